"""One shape for CrowS-Pairs' two layouts, the authors' CSV and the hub's; and the score of parts of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignbench.metrics.bias import stereotype_preferred

DIRECTIONS = ("stereo", "antistereo")
TYPES = (
    "race-color",
    "socioeconomic",
    "gender",
    "disability",
    "nationality",
    "sexual-orientation",
    "physical-appearance",
    "religion",
    "age",
)
"""What the numbers of the hub's columns mean."""


def prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return number, more (the sentence that stereotypes more), less, direction and bias_type.

    Raises:
        KeyError: the row has neither layout's columns.
        ValueError: an unknown direction or type of bias.
    """
    direction, kind = row["stereo_antistereo"], row["bias_type"]
    direction = DIRECTIONS[direction] if isinstance(direction, int) else direction
    kind = TYPES[kind] if isinstance(kind, int) else kind
    if direction not in DIRECTIONS or kind not in TYPES:
        raise ValueError(f"direction {direction!r}, type of bias {kind!r}")
    return {
        "number": row["id"] if "id" in row else row[""],
        "more": row["sent_more"].strip(),
        "less": row["sent_less"].strip(),
        "direction": direction,
        "bias_type": kind,
    }


def parts(fields: Mapping[str, Any], logprobs: Sequence[float]) -> dict[str, tuple[float, float] | None]:
    """(whether the sentence that stereotypes more is the likelier one, 1) for the direction and the type of
    bias that the pair has, (0, 0) for all others; None where a log-likelihood is no number."""
    value = stereotype_preferred(logprobs, (0,))
    mine = {fields["direction"], fields["bias_type"]}
    return {
        name.replace("-", "_"): None if value is None else (value, 1.0) if name in mine else (0.0, 0.0)
        for name in (*DIRECTIONS, *TYPES)
    }
