"""What is known of a policy before vLLM loads it: its files, its identity, and what does not fit it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alignbench.engines.identity import adapter_config, content_of, digest_text, locate
from alignbench.engines.inputs import open_inputs
from alignbench.engines.policy import Policy
from alignbench.engines.vllm_engine import versions
from alignbench.errors import UsageError

NUMERICS = 1
"""Part of every ledger key of this engine."""


def parallel_size(policy: Policy, option: str) -> int:
    """``tensor_parallel`` or ``data_parallel`` of a policy; 1 by default.

    Raises:
        UsageError: it is no positive number.
    """
    value = policy.options.get(option, "1")
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"policy {policy.spec!r}: {option}={value}: write a number of devices, at least 1")
    return int(value)


def identity_of(policy: Policy, *, fresh: bool = False) -> dict[str, Any]:
    """The parts of the ledger key, from files alone: those of the engine ``hf``, under this engine's name.

    Raises:
        UsageError: as ``open_policy``.
    """
    return dict(recognise(policy, fresh).identity)


@dataclass(frozen=True)
class Opened:
    """``files``: as ``identity.locate`` finds them; ``inputs``: how text becomes token ids; ``config``: the
    model's; ``dtype``: torch's name of it; ``identity``: the parts of the ledger key."""

    files: Any
    inputs: Any
    config: Any
    dtype: str
    identity: dict[str, Any]


def recognise(policy: Policy, fresh: bool = False) -> Opened:
    """What can be told of a policy from its files.

    Raises:
        UsageError: as ``engine.open_policy``, but that vLLM need not be installed.
    """
    from alignbench.engines.weights import setting

    what = f"policy {policy.spec!r}"
    device = policy.options.get("device", "")
    if device not in ("", "cpu", "cuda"):
        raise UsageError(
            f"{what}: device={device}: vLLM chooses its devices; write cpu or cuda, say how many with "
            "tensor_parallel=N or data_parallel=N, and which with the variable CUDA_VISIBLE_DEVICES"
        )
    files = locate(policy)
    inputs, config = open_inputs(policy)
    _require_language_model(config, files, what)
    _, dtype, _ = setting(policy, config)
    name = str(dtype).removeprefix("torch.")
    prefix, templated = inputs.prefix, inputs.templated
    identity = {
        **content_of(files, fresh=fresh),
        "engine": "vllm",
        "numerics": NUMERICS,
        "dtype": name,
        "template": digest_text(inputs.tokenizer.get_chat_template()) if templated else None,
        "prefix": digest_text(prefix) if prefix else None,
    }
    return Opened(files, inputs, config, name, identity)


def _require_language_model(config: Any, files: Any, what: str) -> None:
    names = " ".join(getattr(config, "architectures", None) or [])
    if "ForSequenceClassification" in names or files.classifies:
        raise UsageError(f"{what} is a reward model, which the engine vllm does not run; use --engine hf")
    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(
            f"{what} is an encoder-decoder model, which the engine vllm does not run; use --engine hf"
        )


def lora_rank(files: Any, policy: Policy) -> int:
    """The smallest rank that vLLM can be told of and that holds the adapter's.

    Raises:
        UsageError: an adapter that vLLM cannot use.
    """
    config = adapter_config(files.adapter)
    kind, ranks = (
        config.get("peft_type"),
        [config.get("r") or 0, *(config.get("rank_pattern") or {}).values()],
    )
    fits = [rank for rank in versions.LORA_RANKS if rank >= max(ranks)]
    if kind != "LORA" or not fits or config.get("use_dora"):
        raise UsageError(
            f"policy {policy.spec!r}: vLLM runs LoRA adapters up to rank {versions.LORA_RANKS[-1]}, and "
            f"{files.adapter} is none; use --engine hf, or merge it into the model"
        )
    return fits[0]
