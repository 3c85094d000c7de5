"""One document answered by one policy, scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

UNPARSED = "unparsed"
"""A score function says with this key that it found no answer in the output; it becomes the sample's flag."""
CUT = "prompt_cut"
"""Flag of a sample whose prompt did not fit into the model's context and lost its beginning."""


@dataclass(frozen=True)
class Sample:
    """``values``: metric → number, None where the measurement failed. ``flags``: e.g. ``truncated``
    (max_tokens ran out), ``prompt_cut`` (the prompt did not fit into the model's context and lost its
    beginning), ``empty``, ``unparsed`` (no extractable answer; the value is then wrong by rule), ``missing``
    (a recording has no output for this document: ``output`` and all values are None).
    ``n_tokens``: None where nobody counted them."""

    policy: str
    task: str
    doc_id: str
    cluster: str
    prompt: str
    output: str | None
    target: str | None
    values: Mapping[str, float | None]
    n_tokens: int | None
    flags: tuple[str, ...] = ()
