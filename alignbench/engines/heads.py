"""A module's special ids, its last hidden states, and the rewards that a scalar head reads off them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignbench.engines.types import Rewarded
from alignbench.errors import UsageError, WorkError

if TYPE_CHECKING:
    from alignbench.engines.hf import HFEngine


def require_language_model(module: Any) -> None:
    """Refuse a module that has no language-modelling head, such as a reward model.

    Raises:
        WorkError: transformers says that the module cannot generate.
    """
    can_generate = getattr(module, "can_generate", None)
    if can_generate is not None and not can_generate():
        raise WorkError(
            f"{type(module).__name__} has no language-modelling head, so it can neither generate nor score "
            "text; give a causal language model"
        )


def eos_ids(module: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a completion: the generation config's, else the config's, else the tokenizer's."""
    text_config = module.config.get_text_config()
    for ids in (
        getattr(getattr(module, "generation_config", None), "eos_token_id", None),
        getattr(text_config, "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        if ids is not None:
            return tuple(ids) if isinstance(ids, (list, tuple)) else (int(ids),)
    return ()


def pad_id(tokenizer: Any) -> int:
    """An id to fill padded positions with; they are never attended to."""
    for value in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if value is not None:
            return int(value)
    return 0


def pad_right(sequences: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Long [B, T]. Causal attention never looks right, so that no mask is needed."""
    width = max(map(len, sequences))
    return torch.tensor([list(s) + [pad] * (width - len(s)) for s in sequences])


def last_hidden(module: Any, ids: Tensor, cache: Any = None) -> Tensor:
    """Hidden states [B, T, D] behind the last layer; ``cache`` has the keys and values of what is before."""
    out = module.base_model(input_ids=ids, past_key_values=cache, use_cache=cache is not None)
    states: Tensor = out.last_hidden_state
    return states


def reward_batch(engine: HFEngine, sequences: Sequence[Sequence[int]]) -> list[Rewarded]:
    """The scalar head at each sequence's last token, in float32, ``config.reward_offset`` subtracted.

    Raises:
        UsageError: the module has no scalar head.
        WorkError: the reward is not a number.
    """
    module = engine.module
    generates = getattr(module, "can_generate", bool)()  # a causal model's config may say num_labels too
    if generates or getattr(module.config, "num_labels", None) != 1:
        raise UsageError(
            "rewards need a sequence-classification model with one label; this model has no such head"
        )
    pad = pad_id(engine.tokenizer)
    ids = pad_right(sequences, pad).to(engine.device)
    last = torch.tensor([len(s) - 1 for s in sequences], device=engine.device)
    if hasattr(module, "score"):
        # decoders: transformers pools at the last id that differs from pad, which need not be the last token
        states = last_hidden(module, ids)[torch.arange(len(last), device=engine.device), last]
        values = module.score(states)[:, 0]
    else:
        mask = torch.arange(ids.shape[1], device=engine.device)[None] <= last[:, None]
        values = module(input_ids=ids, attention_mask=mask.long()).logits[:, 0]
    values = values.float() - float(getattr(module.config, "reward_offset", 0.0) or 0.0)
    if bool(values.isnan().any()):
        raise WorkError("the reward model's output is not a number (NaN): its weights are broken")
    return [Rewarded(value, len(s)) for value, s in zip(values.tolist(), sequences)]
