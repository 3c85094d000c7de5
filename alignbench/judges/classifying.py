"""A sequence classifier of transformers: its labels, its weights, its logits."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench.errors import UsageError, WorkError
from alignbench.judges.classifier import Classified

if TYPE_CHECKING:
    import torch

HEAD = "ForSequenceClassification"


def labels_of(folder: Path, what: str) -> tuple[list[str], str | None]:
    """The labels of a model, in the order of its logits, and its config's ``problem_type``; nothing heavy is
    imported.

    Raises:
        UsageError: the model is no sequence classifier, or its config cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = config.get("architectures") or []
        by_id = {int(number): str(label) for number, label in (config.get("id2label") or {}).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{what}: {folder}/config.json cannot be read; save the model again") from error
    if not any(HEAD in name for name in names):
        made = ", ".join(names) or "an unknown architecture"
        raise UsageError(f"{what}: {made} is no classifier; name a model with a head {HEAD}")
    if sorted(by_id) != list(range(len(by_id))):
        raise UsageError(f"{what}: id2label in {folder}/config.json does not count from 0; mend the config")
    # transformers writes no id2label where the labels are its default two
    labels = [by_id[i] for i in range(len(by_id))] or ["LABEL_0", "LABEL_1"]
    return labels, config.get("problem_type")


def load_classifier(folder: Path, *, dtype: str, device: str | None, what: str) -> Classifier:
    """Load the weights onto ``device`` (an accelerator where there is one).

    Raises:
        UsageError: the checkpoint cannot be loaded or lacks weights, or the device is not usable.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = _device(device, what)
    try:
        module, report = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"{what}: the model in {folder} cannot be loaded: {reason}") from error
    lacking = sorted(report["missing_keys"])
    if lacking:
        named = ", ".join(lacking[:3])
        raise UsageError(
            f"{what}: the checkpoint in {folder} lacks the weights {named}; save the whole model"
        )
    return Classifier(module.to(place).eval(), tokenizer, place)


def _device(name: str | None, what: str) -> torch.device:
    import torch

    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"{what}: device {name!r} is not usable here; write device=cpu") from error
    return device


class Classifier:
    """A loaded classifier.

    Args:
        module: transformers', with a head for sequence classification, in eval mode on ``device``.
        tokenizer: its own.
    """

    def __init__(self, module: Any, tokenizer: Any, device: torch.device) -> None:
        from alignbench.engines import memory

        self._module, self._tokenizer, self._device = module, tokenizer, device
        self.window = window_of(module, tokenizer)
        self._budget = memory.batch_tokens(module, device)
        pad = tokenizer.pad_token_id
        if pad is None:  # what is padded is masked, so that any token will do
            pad = tokenizer.eos_token_id or 0
        self._pad: int = pad
        if module.config.pad_token_id is None:
            module.config.pad_token_id = pad

    def classify(
        self, texts: Sequence[str], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Classified]]]:
        """Logits of the texts whose index is not in ``held``, in batches of similar length.

        Yields:
            Lists of (index, result). A text longer than the window loses its end, but for the special tokens.

        Raises:
            WorkError: even one text does not fit into memory.
        """
        from alignbench.engines.memory import is_out_of_memory

        asked = [i for i in range(len(texts)) if i not in held]
        rows = dict(zip(asked, (self._encode(texts[i]) for i in asked), strict=True))
        waiting = sorted(asked, key=lambda i: (-len(rows[i][0]), i))
        budget = self._budget
        while waiting:
            size = max(1, budget // len(rows[waiting[0]][0]))
            batch = waiting[:size]
            try:
                logits = self._forward([rows[i][0] for i in batch])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise WorkError(
                        "the classifier ran out of memory on one text; write device=cpu"
                    ) from error
                budget = len(rows[waiting[0]][0]) * (len(batch) // 2)
                continue
            waiting = waiting[size:]
            yield [
                (i, Classified(row if all(map(math.isfinite, row)) else None, len(rows[i][0]), rows[i][1]))
                for i, row in zip(batch, logits, strict=True)
            ]

    def _encode(self, text: str) -> tuple[list[int], int]:
        """Token ids within the window, and how many were cut."""
        whole: list[int] = self._tokenizer(text)["input_ids"]
        if len(whole) <= self.window:
            return whole or [self._pad], 0
        kept: list[int] = self._tokenizer(text, truncation=True, max_length=self.window)["input_ids"]
        return kept, len(whole) - len(kept)

    def _forward(self, rows: list[list[int]]) -> list[list[float]]:
        import torch

        width = max(map(len, rows))
        ids = torch.tensor([row + [self._pad] * (width - len(row)) for row in rows], device=self._device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._device)
        with torch.inference_mode():
            logits = self._module(input_ids=ids, attention_mask=mask).logits
        return [[float(value) for value in row] for row in logits.float().cpu().tolist()]


def window_of(module: Any, tokenizer: Any) -> int:
    """The longest row, in tokens, special ones included: what the tokenizer says, within the positions that
    the model has. RoBERTa's kind starts to count behind the id of its padding."""
    positions = getattr(module.config, "max_position_embeddings", None) or 10**9
    for name, part in module.named_modules():
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            positions = min(positions, part.num_embeddings - part.padding_idx - 1)
    return int(min(positions, tokenizer.model_max_length))
