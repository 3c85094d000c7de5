"""Adapters in PEFT's format (LoRA, rsLoRA, DoRA, IA³, …), merged into the model that they were trained on.

A merged model is an ordinary one: as fast as its base, and every way of computing it applies. In float32 it
answers as the unmerged one but for rounding. In bfloat16 the merged weights are rounded once more, which
costs nothing that can be told from bfloat16's own noise: against float32, token log-probabilities of LoRA,
trained twice on the pocket base and once on a larger random model, erred by a root mean square of 0.011,
0.031 and 0.017 when merged, and of 0.011, 0.033 and 0.018 when not. PEFT forms the product of the two factors
in float32 either way.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from alignbench.engines.identity import adapter_config
from alignbench.errors import UsageError

log = logging.getLogger(__name__)
FAILURES = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError)
PREFIX = "base_model.model."
"""What PEFT puts before a parameter's name in the model."""


def parameter_shapes(folder: Path, what: str) -> dict[str, tuple[int, ...]]:
    """Names, as in the model, and shapes of the parameters that an adapter brings; those of the base model
    among them are replaced as a whole (a reward head, embeddings that were trained too).

    Args:
        folder: of the adapter.
        what: the start of the error's sentence.

    Raises:
        UsageError: peft is not installed, or the adapter's weights cannot be read.
    """
    peft = _peft(what)
    try:
        brought = peft.load_peft_weights(str(folder), device="cpu")
    except FAILURES as error:
        raise UsageError(f"{what}: the adapter in {folder} cannot be read: {_reason(error)}") from error
    return {name.removeprefix(PREFIX): tuple(tensor.shape) for name, tensor in brought.items()}


def merge(module: Any, folder: Path, what: str, *, vocabulary: int = 0) -> Any:
    """The module with the adapter in ``folder`` merged into its weights, in their dtype.

    Args:
        module: a transformers model, on the CPU, so that every device gets the same weights. It is changed.
        folder: of the adapter.
        what: the start of the error's sentence.
        vocabulary: tokens of the tokenizer that lies beside the adapter, all of which need embeddings.

    Raises:
        UsageError: peft is not installed; the adapter was trained on another model, cannot be merged, or
            holds numbers that are none.
    """
    peft = _peft(what)
    table = module.get_input_embeddings()
    name = next(name for name, parameter in module.named_parameters() if parameter is table.weight)
    brought = parameter_shapes(folder, what).get(name)
    rows = brought[0] if brought else table.num_embeddings
    if vocabulary > rows:
        raise UsageError(
            f"{what}: the tokenizer beside the adapter in {folder} has tokens that the model has not, and "
            "the adapter does not bring their embeddings; save it with save_embedding_layers=True"
        )
    if rows != table.num_embeddings:
        module.resize_token_embeddings(rows, mean_resizing=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peft only warns of is an error here
            return _merge(peft, module, folder, what)
    except FAILURES as error:
        raise UsageError(
            f"{what}: the adapter in {folder} does not fit this model: {_reason(error)}"
        ) from error


def _merge(peft: Any, module: Any, folder: Path, what: str) -> Any:
    config = peft.PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        raise UsageError(
            f"{what}: the adapter in {folder} is of the kind {config.peft_type.value}, which lies outside "
            "the model's weights and cannot be merged into them; train LoRA, or another that changes weights"
        )
    adapted = peft.get_peft_model(module, config)
    mapping = getattr(module, "_checkpoint_conversion_mapping", {})
    report = adapted.load_adapter(str(folder), "default", torch_device="cpu", key_mapping=mapping)
    astray = sorted([*report.missing_keys, *report.unexpected_keys])
    if astray:
        raise ValueError(f"not both have {astray[0].removeprefix(PREFIX)}")
    return adapted.merge_and_unload(safe_merge=True)


def note_other_base(folder: Path, target: str) -> None:
    """Log a warning where an adapter names another base model than ``target``."""
    trained_on = adapter_config(folder).get("base_model_name_or_path") or target
    if Path(trained_on).name != Path(target).name:
        log.warning(
            "alignbench: the adapter %s was trained on %s, and is put on %s", folder, trained_on, target
        )


def _peft(what: str) -> Any:
    try:
        import peft
    except ImportError as error:
        raise UsageError(f"{what}: an adapter needs peft; pip install 'alignbench[peft]'") from error
    return peft


def _reason(error: BaseException) -> str:
    """An error's first line; of PyTorch's list of mismatches, whose first line is a heading, the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines = lines[1:]
    return (lines or [type(error).__name__])[0][:200]
