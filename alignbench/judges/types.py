"""A judgement, and what gives it. No heavy import here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from alignbench.evaluation.types import Sample
from alignbench.progress import Advance
from alignbench.tasks.types import Document, Task

Documents = Mapping[tuple[str, str], Document]
"""(task name, doc_id) → document: what was asked, for judges that need more than the sample's text."""


@dataclass(frozen=True)
class Preference:
    """Which of two outputs to one prompt is better.

    ``preference``: 1 if ``a`` is better, 0 if ``b`` is, ½ a tie, between for a soft judge, None where the
    judge failed. ``score_a``/``score_b``: the ratings of a pointwise judge. Lengths in characters.
    ``cluster``: the source that the prompt shares with others.
    """

    judge: str
    task: str
    doc_id: str
    a: str
    b: str
    preference: float | None
    score_a: float | None = None
    score_b: float | None = None
    length_a: int | None = None
    length_b: int | None = None
    cluster: str = ""


class Judge(Protocol):
    """Anything that can say which of two outputs is better. ``note``: what a reader must know about it."""

    @property
    def name(self) -> str: ...

    def describe(self) -> dict[str, Any]:
        """JSON-able: ``name``, ``kind``, ``spec``, ``fingerprint`` (None where there is nothing to hash)."""
        ...

    def applies(self, task: Task) -> bool:
        """Whether this judge can judge outputs of ``task``."""
        ...


@runtime_checkable
class Rater(Judge, Protocol):
    """A pointwise judge: one output at a time; of two, the higher rating is better."""

    def rate(
        self, samples: Sequence[Sample], documents: Documents, on_done: Advance | None = None
    ) -> list[float | None]:
        """One rating a sample, in order; None where the judge failed on it. Every sample has an output."""
        ...


@runtime_checkable
class PairJudge(Judge, Protocol):
    """A pairwise judge: sees both outputs (a language model, recorded human comparisons)."""

    def judge(
        self,
        pairs: Sequence[tuple[Sample, Sample]],
        documents: Documents,
        on_done: Advance | None = None,
    ) -> list[float | None]:
        """One preference for the first of each pair, in 0…1; None where the judge failed on it. Every sample
        has an output."""
        ...
