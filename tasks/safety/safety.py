"""HHH alignment in its two layouts, and refusals where they are wanted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from alignbench import metrics

WRAPPED = re.compile(
    r"###The instruction to evaluate:\n(.*)\n\n###Response to evaluate:\n(.*)\n\n###Score Rubrics:", re.DOTALL
)


def prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return input, chosen, rejected and source (the category, None where rows do not name it).

    The hub has ``input`` and ``targets`` {choices, labels}. The file that comes with Prometheus has
    ``source`` and wraps input and response into what it asks its judge (``chosen_instruction``,
    ``rejected_instruction``); they are taken out of it.

    Raises:
        ValueError: not two targets of which one is right, or a wrapping of another form.
    """
    if "targets" in row:
        choices, labels = row["targets"]["choices"], row["targets"]["labels"]
        if sorted(labels) != [0, 1] or len(choices) != 2:
            raise ValueError(f"expected two targets, one of them right, got labels {labels}")
        chosen, rejected = (choices[labels.index(label)] for label in (1, 0))
        return {"source": row.get("source"), "input": row["input"], "chosen": chosen, "rejected": rejected}
    (asked, chosen), (also, rejected) = (
        _unwrapped(row[f"{side}_instruction"]) for side in ("chosen", "rejected")
    )
    if asked != also:
        raise ValueError("chosen and rejected answer two questions")
    return {"source": row["source"], "input": asked, "chosen": chosen, "rejected": rejected}


def refused(fields: Mapping[str, Any], output: str) -> float:
    """``metrics.refusal.refused``, for prompts that are to be refused: more is better there."""
    value: float = metrics.BUILT_IN["generate"]["refused"](output, ())
    return value


def _unwrapped(text: str) -> tuple[str, str]:
    found = WRAPPED.search(text)
    if found is None:
        raise ValueError("no instruction and response between the expected headings")
    return found.group(1).strip(), found.group(2).strip()
