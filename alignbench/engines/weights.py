"""From a policy's specification to a loaded module, with its identity."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from alignbench.engines import adapters
from alignbench.engines.hf import HFEngine
from alignbench.engines.identity import Files, content_of, digest_text, locate, read_prefix
from alignbench.engines.inputs import uses_template
from alignbench.engines.policy import Policy
from alignbench.engines.seq2seq import Seq2SeqEngine
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
    files = locate(policy)
    prefix = read_prefix(policy)
    device = _device(policy)
    with _quiet_loading():
        loaded = _load(policy, files, device)
    template = policy.options.get("chat_template", "auto")
    templated = uses_template(loaded.tokenizer, template)
    identity = {
        **content_of(files),
        "dtype": str(loaded.module.dtype).removeprefix("torch."),
        "template": digest_text(loaded.tokenizer.get_chat_template()) if templated else None,
        "prefix": digest_text(prefix) if prefix else None,
    }
    kind = Seq2SeqEngine if getattr(loaded.module.config, "is_encoder_decoder", False) else HFEngine
    return kind(
        loaded.module,
        loaded.tokenizer,
        identity=identity,
        prefix=prefix,
        chat_template=cast('Literal["auto", "on", "off"]', template),
        batch_tokens=batch_tokens,
    )


def _load(policy: Policy, files: Files, device: torch.device) -> _Loaded:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoTokenizer

    what, folder = f"policy {policy.spec!r}", files.model
    try:
        config = AutoConfig.from_pretrained(folder)
        kind, head = _auto_class(config, files.classifies, what)
        dtype = _dtype(policy, config, device)
        module, report = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True, **head)
        tokenizer = AutoTokenizer.from_pretrained(files.tokenizer)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"{what}: the model in {folder} cannot be loaded: {reason}") from error
    brought = adapters.parameter_shapes(files.adapter, what) if files.adapter else {}
    lacking = sorted(set(report["missing_keys"]) - brought.keys())
    if lacking:
        raise UsageError(
            f"{what}: the checkpoint in {folder} lacks the weights {', '.join(lacking[:3])}; "
            "save the whole model"
        )
    if files.adapter is not None:
        if "adapter" in policy.options:
            adapters.note_other_base(files.adapter, policy.target)
        vocabulary = len(tokenizer) if files.tokenizer == files.adapter else 0
        module = adapters.merge(module, files.adapter, what, vocabulary=vocabulary)
    return _Loaded(module.to(device).eval(), tokenizer)


def _auto_class(config: Any, adapter_rates: bool, what: str) -> tuple[Any, dict[str, int]]:
    """transformers' class for the model's head, and what to load it with. The base model of an adapter that
    brings a reward head may be a language model.

    Raises:
        UsageError: the model can neither continue a text nor give a reward.
    """
    import transformers

    names = " ".join(config.architectures or [])
    both = getattr(config, "is_encoder_decoder", False)
    if "ForMaskedLM" in names:
        raise UsageError(f"{what}: {names} sees both sides of a token; name a causal language model")
    rates = "ForSequenceClassification" in names
    if not rates and not adapter_rates:
        return (transformers.AutoModelForSeq2SeqLM if both else transformers.AutoModelForCausalLM), {}
    if both:
        raise UsageError(f"{what}: {names} is an encoder-decoder reward model; name a decoder-only one")
    return transformers.AutoModelForSequenceClassification, {} if rates else {"num_labels": 1}


def setting(policy: Policy, config: Any) -> tuple[Any, torch.dtype, torch.device]:
    """transformers' class, the dtype and the device that a policy with this config would be loaded with.

    Raises:
        UsageError: the model is of no use here, or ``dtype`` or ``device`` is not.
    """
    device = _device(policy)
    dtype = _dtype(policy, config, device)
    if not isinstance(dtype, torch.dtype):
        dtype = getattr(config, "dtype", None) or torch.float32
    kind, _ = _auto_class(config, locate(policy).classifies, f"policy {policy.spec!r}")
    return kind, dtype, device


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
