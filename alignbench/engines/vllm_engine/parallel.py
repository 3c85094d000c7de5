"""Data parallelism of the engine ``vllm``: a process and a copy of the model for each device, as for ``hf``
(``parallel``). vLLM's own takes one process a copy too, and cannot be had from one that is running."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from alignbench.engines.parallel import ParallelEngine
from alignbench.engines.policy import Policy
from alignbench.engines.vllm_engine import versions
from alignbench.errors import UsageError


def open_parallel(policy: Policy, copies: int, *, batch_tokens: int | None = None) -> ParallelEngine:
    """An engine whose requests are shared among ``copies`` processes.

    Raises:
        UsageError: the model is to be split as well, or there are fewer devices.
    """
    what = f"policy {policy.spec!r}"
    if policy.options.get("tensor_parallel", "1") != "1":
        raise UsageError(
            f"{what}: tensor_parallel and data_parallel cannot be had together here; serve the model with "
            "vLLM's own server, and name it openai:MODEL@BASE_URL"
        )
    devices = [f"cpu:{i}" for i in range(copies)] if versions.on_cpu() else _gpus(copies, what)
    return ParallelEngine(policy, devices, batch_tokens=batch_tokens, load=load_share)


def _gpus(copies: int, what: str) -> list[str]:
    import torch

    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = visible or [str(i) for i in range(torch.cuda.device_count())]
    if len(names) < copies:
        raise UsageError(f"{what}: data_parallel={copies}, but there are {len(names)} GPUs here")
    return [f"cuda:{name}" for name in names[:copies]]


def load_share(policy: Policy, batch_tokens: int | None, sharers: int) -> Any:
    """In a process of its own: the engine on one GPU, or on one of ``sharers`` parts of the CPU."""
    kind, _, which = policy.options["device"].partition(":")
    if kind == "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = which
    elif hasattr(os, "sched_getaffinity"):
        mine = sorted(os.sched_getaffinity(0))[int(which) :: sharers]
        if mine:
            os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, mine))
    from alignbench.engines.vllm_engine.engine import VLLMEngine

    options = {key: v for key, v in policy.options.items() if key not in ("device", "data_parallel")}
    return VLLMEngine(replace(policy, options=options), batch_tokens=batch_tokens)
