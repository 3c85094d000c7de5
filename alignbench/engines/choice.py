"""Which engine evaluates policies on weights where none was named. Nothing heavy is imported here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from alignbench.engines.identity import accelerators, locate
from alignbench.engines.policy import Policy
from alignbench.engines.vllm_engine import versions
from alignbench.errors import UsageError

LARGE = 2**31
"""Bytes of weights from which vLLM's start, up to a minute, is soon made up for."""
HEADS = (64, 80, 96, 112, 128, 192, 256)
"""Sizes of attention heads that vLLM's kernels have."""


def default_engine(policies: Sequence[Policy]) -> tuple[str | None, str]:
    """``vllm`` on a CUDA GPU where it is installed and can run every policy on weights, else None: each
    policy's own. One engine for all, as answers of two differ by rounding. And the sentence that says why;
    empty where there was no choice.

    A policy that names its device, is small, a reward model, an encoder–decoder model or an adapter keeps
    them all with ``hf``. Judges and training never use what is chosen here.
    """
    weights = [policy for policy in policies if policy.kind == "hf"]
    if not weights or not versions.for_cuda() or not _has_gpu():
        return None, ""
    if not all(map(_suits, weights)):
        return None, "engine: hf, as vLLM is not the choice for every policy here; --engine vllm chooses it"
    return "vllm", "engine: vLLM, as it is installed and a CUDA GPU is here; --engine hf chooses transformers"


def _has_gpu() -> bool:
    found = accelerators()
    return "/dev/nvidiactl" in found["drivers"] and found.get("CUDA_VISIBLE_DEVICES") != ""


def _suits(policy: Policy) -> bool:
    if {"device", "adapter", "best_of", "generator"} & policy.options.keys():
        return False
    try:
        files = locate(policy)
        config = json.loads((files.model / "config.json").read_text(encoding="utf-8"))
    except (UsageError, OSError, ValueError):  # whoever loads it says what is wrong
        return False
    if files.adapter is not None or not isinstance(config, dict):
        return False
    names = config.get("architectures") or []
    causal = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names)
    size = sum(path.stat().st_size for path in files.model.glob("*.safetensors"))
    return causal and not config.get("is_encoder_decoder") and _head(config) in HEADS and size >= LARGE


def _head(config: dict[str, Any]) -> int:
    """The size of an attention head; 0 where it is not said."""
    if isinstance(own := config.get("head_dim"), int):
        return own
    width = config.get("hidden_size") or config.get("n_embd") or 0
    heads = config.get("num_attention_heads") or config.get("n_head") or 0
    return int(width) // int(heads) if heads else 0
