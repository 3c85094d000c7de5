"""What an estimate rests on: a model's numbers from its config alone, and this machine's rates, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from alignbench.engines import memory
from alignbench.engines.estimate import Rates, Size
from alignbench.engines.parallel import devices_of
from alignbench.engines.policy import Policy

SECONDS = 0.08
"""Each rate is measured for about so long."""
FLOPS = 4 * 10**9
"""Of one matrix product that is timed, at most."""
READ = 2**27
"""Bytes that are read to time the memory, at most: less, where the model is smaller, may lie in a cache."""


@dataclass(frozen=True)
class Setting:
    """Where and how a policy would be computed: its numbers, the dtype, the (first) device, and its budgets:
    tokens of a forward pass, tokens that are kept while decoding, rows that are decoded together.
    ``copies``: devices that compute side by side."""

    size: Size
    shape: memory.Shape
    dtype: torch.dtype
    device: torch.device
    batch_tokens: int
    kv_tokens: int
    rows: int
    copies: int = 1


def plan_setting(policy: Policy, config: Any, batch_tokens: int | None = None) -> Setting:
    """What a policy's engine would choose; the weights are not read.

    Args:
        config: the policy's, transformers'.
        batch_tokens: in place of the engine's own choice.

    Raises:
        UsageError: the model, its dtype or device is of no use here.
    """
    from alignbench.engines.hf import MOST_ROWS
    from alignbench.engines.weights import setting

    devices = devices_of(policy)
    if devices:
        policy = replace(policy, options={**policy.options, "device": devices[0]})
    auto_class, dtype, device = setting(policy, config)
    size, shape = size_of(config, dtype, auto_class), memory.Shape.of(config)
    batch, kept = (batch_tokens, batch_tokens) if batch_tokens else budgets(size, shape, device)
    rows = MOST_ROWS.get(device.type, MOST_ROWS["cpu"])
    return Setting(size, shape, dtype, device, batch, kept, rows, max(1, len(devices)))


def size_of(config: Any, dtype: torch.dtype, auto_class: Any) -> Size:
    """A model's numbers, from an instance without memory (torch's meta device).

    Args:
        config: transformers'.
        dtype: that it is loaded in.
        auto_class: transformers' class for its head.
    """
    with torch.device("meta"):
        module = auto_class.from_config(config)
    shape = memory.Shape.of(config)
    tables = {id(m.weight): m.weight.numel() for m in module.modules() if isinstance(m, torch.nn.Embedding)}
    output = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    head = output.weight.numel() if output is not None else 0
    parameters = sum(p.numel() for p in module.parameters())  # a tied weight is one parameter
    looked_up = sum(tables.values())
    tied = output is not None and id(output.weight) in tables
    body = parameters - looked_up - (0 if tied else head)
    return Size(
        parameters=parameters,
        # a token passes the encoder or the decoder
        body=body // 2 if getattr(config, "is_encoder_decoder", False) else body,
        head=head,
        layers=shape.layers,
        width=shape.query,
        itemsize=dtype.itemsize,
        kv_bytes=memory.kv_bytes(shape, dtype.itemsize),
        forward_bytes=memory.forward_bytes(shape, dtype.itemsize),
    )


def budgets(size: Size, shape: memory.Shape, device: torch.device) -> tuple[int, int]:
    """The token budgets of a forward pass and of what is kept while decoding, as the engine would choose them
    (see ``memory.batch_tokens`` and ``memory.kv_tokens``)."""
    total, free = memory.memory_of(device)
    kind = device.type
    room = memory.beside_weights(total, free, size.weight_bytes, memory.IDLE.get(kind, memory.IDLE["cpu"]))
    batch = memory.fitting(
        memory.BATCH_SHARE * room, size.forward_bytes, memory.BATCH_CAP.get(kind, memory.BATCH_CAP["cpu"])
    )
    kept = memory.KV_SHARE.get(kind, memory.KV_SHARE["cpu"]) * room
    return batch, memory.fitting(kept, size.kv_bytes, memory.KV_CAP)


def measure(setting: Setting) -> Rates:
    """This machine's rates for the widths and dtype at hand, in a fraction of a second."""
    hidden, inner = setting.shape.hidden, setting.shape.intermediate
    rows = int(min(1024, max(16, FLOPS // (2 * hidden * inner))))
    one = torch.ones(1, dtype=setting.dtype, device=setting.device)
    left, right, little = one.new_ones(rows, hidden), one.new_ones(hidden, inner), one.new_ones(64)
    amount = min(READ, max(2**20, setting.size.weight_bytes))
    block = torch.ones(amount // 4, device=setting.device)
    with torch.inference_mode():
        product = _time(lambda: left @ right, setting.device)
        reading = _time(block.sum, setting.device)
        call = _time(lambda: little + little, setting.device)
    return Rates(2 * rows * hidden * inner / product, amount / reading, call)


def _time(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: the median of five groups of calls, on the machine as busy as it is."""

    def group(n: int) -> float:
        _wait(device)
        started = time.perf_counter()
        for _ in range(n):
            run()
        _wait(device)
        return (time.perf_counter() - started) / n

    run()
    n = max(1, int(SECONDS / 5 / max(1e-7, group(3))))
    return statistics.median(group(n) for _ in range(5))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
