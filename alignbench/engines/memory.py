"""How many tokens fit: bytes that a token costs, by the model's config, against the memory of its device.

The answers are powers of two under a cap, and on a machine that is not busy they do not depend on what
happens to be free: the batch plan, and with it every bit of the answers, must be the same in every ordinary
run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

BATCH_CAP = {"cpu": 8_192, "mps": 8_192, "cuda": 65_536}
"""Tokens in a forward pass from which more of them make it no faster."""
KV_CAP = 2**20
LEAST = 256
"""What is tried where the estimate says that even less fits; an engine halves a batch that does not."""
BATCH_SHARE = 0.25
KV_SHARE = {"cpu": 0.25, "mps": 0.25, "cuda": 0.6}
"""Shares of the memory beside the weights. On a CPU the rest of the machine wants to live too."""
IDLE = {"cpu": 0.5, "mps": 0.9, "cuda": 0.9}
"""From this share of the memory beside the weights on, a device counts as free for us: the shares above then
fit, and the budget is reckoned from its size, which does not change, instead of from what is free."""
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Shape:
    """The widths that a token's memory depends on. ``intermediate`` is what a token activates in a layer's
    MLP (for a mixture of experts: in all the experts that it is sent to)."""

    layers: int
    hidden: int
    intermediate: int
    query: int
    key_value: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """From a transformers config. A key that it lacks is taken as in GPT-2: an MLP of four times the
        hidden size, as many key-value heads as heads; without a hidden size, that of a 7B model."""
        config = config.get_text_config()
        hidden = _number(config, "hidden_size", "d_model") or 4_096
        heads = _number(config, "num_attention_heads", "num_heads") or 1
        size = _number(config, "head_dim", "d_kv") or hidden // heads
        groups = _number(config, "num_key_value_heads", "num_kv_heads") or heads
        dense = _number(config, "intermediate_size", "n_inner", "ffn_dim", "d_ff") or 4 * hidden
        expert = _number(config, "moe_intermediate_size") or dense
        experts = _number(config, "num_experts_per_tok") or 0
        return cls(
            layers=_number(config, "num_hidden_layers", "num_layers") or 32,
            hidden=hidden,
            intermediate=max(dense, experts * expert),
            query=heads * size,
            key_value=groups * size,
        )


def _number(config: Any, *keys: str) -> int | None:
    """The config's value under the first key that it has; the largest, where it has one a layer."""
    for key in keys:
        value = getattr(config, key, None)
        if isinstance(value, (list, tuple)) and value and all(isinstance(v, int) for v in value):
            value = max(value)
        if isinstance(value, int) and value > 0:
            return value
    return None


def kv_bytes(shape: Shape, itemsize: int) -> int:
    """Bytes of one token's keys and values in all layers."""
    return 2 * shape.layers * shape.key_value * itemsize


def forward_bytes(shape: Shape, itemsize: int) -> int:
    """Bytes that one more token costs at the height of a forward pass without gradients: its keys and values,
    which stay, and one layer's working set, which does not: eight hidden states (residual, normalised,
    attention's output, copies), two of them also in float32 for a norm; the MLP's gate, up and product;
    query, key and value, twice, since rotary embeddings copy them. Logits are not in it: an engine computes
    few positions' at a time.

    Measured on a CPU in float32, with 8,192 tokens and six layers of GPT-2's and of a Llama's shape (hidden
    size 768): it is 1.2 to 1.8 times what resident memory rose by."""
    working = 8 * shape.hidden + 3 * shape.intermediate + 2 * (shape.query + 2 * shape.key_value)
    return working * itemsize + 2 * shape.hidden * 4 + kv_bytes(shape, itemsize)


def fitting(room: float, each: int, cap: int) -> int:
    """The largest power of two of tokens, ``each`` bytes each, within ``room``; from ``LEAST`` to ``cap``."""
    tokens = max(LEAST, int(room // each))
    return min(cap, 1 << (tokens.bit_length() - 1))


def beside_weights(total: int, free: int, weights: int, idle: float) -> int:
    """Bytes to reckon with: the device's memory but for the weights, when at least the share ``idle`` of that
    is free; else what is free."""
    beside = max(0, total - weights)
    return beside if free >= idle * beside else free


def batch_tokens(module: Any, device: torch.device) -> int:
    """Tokens of a forward pass (rows × length, no gradients) that the device's memory holds with ease.

    Args:
        module: a transformers model, already on the device.
        device: where it computes.
    """
    each = forward_bytes(Shape.of(module.config), _itemsize(module))
    return fitting(BATCH_SHARE * _room(module, device), each, BATCH_CAP.get(device.type, BATCH_CAP["cpu"]))


def kv_tokens(module: Any, device: torch.device, dtype: torch.dtype) -> int:
    """Tokens whose keys and values in ``dtype`` the device's memory holds, beside a batch of
    ``batch_tokens``; the other arguments are the same."""
    share = KV_SHARE.get(device.type, KV_SHARE["cpu"])
    return fitting(share * _room(module, device), kv_bytes(Shape.of(module.config), dtype.itemsize), KV_CAP)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of a device or of the machine, ran out. For main memory torch raises a bare
    RuntimeError (on Windows with other words than elsewhere)."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def memory_of(device: torch.device) -> tuple[int, int]:
    """Bytes that a device has and those that are free, within what a container (cgroup) may use."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # torch keeps freed blocks, and uses them again
        return total, free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return total, max(0, total - torch.mps.driver_allocated_memory())
    import psutil

    memory = psutil.virtual_memory()
    total = min([memory.total, *_cgroup_limits()])
    return total, min(memory.available, total)


def _cgroup_limits() -> list[int]:
    found = []
    for name in CGROUP_LIMITS:
        try:
            found.append(int(Path(name).read_text(encoding="ascii")))
        except (OSError, ValueError):  # none here, or "max"
            continue
    return found


def _room(module: Any, device: torch.device) -> int:
    total, free = memory_of(device)
    weights = sum(tensor.nbytes for tensor in module.parameters())
    return beside_weights(total, free, weights, IDLE.get(device.type, IDLE["cpu"]))


def _itemsize(module: Any) -> int:
    size: int = next(module.parameters()).dtype.itemsize
    return size
