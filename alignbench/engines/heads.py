"""A module's special ids and its last hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alignbench.errors import WorkError


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


def require_numbers(logprobs: Tensor) -> None:
    """Refuse what a broken model gives.

    Raises:
        WorkError: a log-probability is not a number.
    """
    if bool(logprobs.isnan().any()):
        raise WorkError(
            "the model's logits are not numbers (NaN): its weights are broken or dtype is too small"
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
