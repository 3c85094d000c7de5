"""A module's special ids and its last hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alignbench.engines.answering import eos_ids_of
from alignbench.errors import WorkError

COPIED = 2**28
"""Bytes of an output embedding up to which decoding keeps a copy of it."""


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


def quick_head(head: Any) -> Any:
    """``head``, or the same function of states [B, D] with the weights in oneDNN's own layout.

    MKL lays a large matrix out anew for every product with a few rows: in float32, with 32,768 × 320 weights
    and 8 to 64 rows, the product takes about twice as long. It costs a copy of the weights while it is used.
    """
    plain = type(head) is torch.nn.Linear and not head._forward_hooks and not head._forward_pre_hooks
    if not plain or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return head
    weight = head.weight.detach()
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or weight.nbytes > COPIED:
        return head
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, 32)
    linear = torch.ops.mkldnn._linear_pointwise
    return lambda states: linear(states, laid_out, head.bias, "none", [], "")


def eos_ids(module: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a completion; see ``answering.eos_ids_of``."""
    return eos_ids_of(getattr(module, "generation_config", None), module.config, tokenizer)


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
