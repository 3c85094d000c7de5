"""From a policy's specification to a loaded module, with its identity."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from alignbench.engines.hf import HFEngine
from alignbench.engines.identity import adapter_folder, content_of, digest_text, find_folder, read_prefix
from alignbench.engines.inputs import uses_template
from alignbench.engines.policy import Policy
from alignbench.errors import UsageError, nearest

DTYPES = {
    "auto": None,
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class _Loaded:
    module: Any
    tokenizer: Any


def load_policy(policy: Policy, *, batch_tokens: int | None = None) -> HFEngine:
    """Load a policy of kind ``hf``: see ``alignbench.engines.open_engine``."""
    for option in ("best_of", "generator"):
        if option in policy.options:
            raise UsageError(
                f"policy {policy.spec!r}: the engine hf does not support {option!r}; leave it out"
            )
    folder = find_folder(policy.target, policy.revision, f"policy {policy.spec!r}")
    prefix = read_prefix(policy)
    device = _device(policy)
    with _quiet_loading():
        loaded = _load(policy, folder, device)
    template = policy.options.get("chat_template", "auto")
    templated = uses_template(loaded.tokenizer, template)
    identity = {
        **content_of(policy, folder),
        "dtype": str(loaded.module.dtype).removeprefix("torch."),
        "template": digest_text(loaded.tokenizer.get_chat_template()) if templated else None,
        "prefix": digest_text(prefix) if prefix else None,
    }
    return HFEngine(
        loaded.module,
        loaded.tokenizer,
        identity=identity,
        prefix=prefix,
        chat_template=cast('Literal["auto", "on", "off"]', template),
        batch_tokens=batch_tokens,
    )


def _load(policy: Policy, folder: Path, device: torch.device) -> _Loaded:
    from safetensors import SafetensorError
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    what = f"policy {policy.spec!r}"
    try:
        config = AutoConfig.from_pretrained(folder)
        if getattr(config, "is_encoder_decoder", False):
            raise UsageError(
                f"{what}: encoder-decoder models are not supported yet; name a causal language model"
            )
        names = " ".join(config.architectures or [])
        if "ForMaskedLM" in names:
            raise UsageError(f"{what}: {names} sees both sides of a token; name a causal language model")
        kind = (
            AutoModelForSequenceClassification
            if "ForSequenceClassification" in names
            else AutoModelForCausalLM
        )
        dtype = _dtype(policy, config, device)
        module, report = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"{what}: the model in {folder} cannot be loaded: {reason}") from error
    if report["missing_keys"]:
        lacking = ", ".join(sorted(report["missing_keys"])[:3])
        raise UsageError(
            f"{what}: the checkpoint in {folder} lacks the weights {lacking}; save the whole model"
        )
    if "adapter" in policy.options:
        module = _adapt(module, policy)
    return _Loaded(module.to(device).eval(), tokenizer)


def _dtype(policy: Policy, config: Any, device: torch.device) -> torch.dtype | str:
    """The dtype asked for; else the checkpoint's own, but for float16 on a CPU, which is bad at it."""
    name = policy.options.get("dtype", "auto")
    if name not in DTYPES:
        raise UsageError(f"policy {policy.spec!r}: unknown dtype {name!r}{nearest(name, list(DTYPES))}")
    if name == "auto" and device.type == "cpu" and getattr(config, "dtype", None) == torch.float16:
        return torch.float32
    return DTYPES[name] or "auto"


def _device(policy: Policy) -> torch.device:
    name = policy.options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"policy {policy.spec!r}: device {name!r} is not usable here; write device=cpu"
        ) from error
    return device


def _adapt(module: Any, policy: Policy) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UsageError(f"policy {policy.spec!r}: an adapter needs peft; pip install peft") from error
    return PeftModel.from_pretrained(module, str(adapter_folder(policy))).merge_and_unload()


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Without transformers' own bars, which would fight with ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
