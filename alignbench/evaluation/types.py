"""One document answered by one policy, scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from alignbench.progress import Advance
from alignbench.tasks.types import Document, Task

UNPARSED = "unparsed"
"""A score function says with this key that it found no answer in the output; it becomes the sample's flag."""
CUT = "prompt_cut"
"""Flag of a sample whose prompt did not fit into the model's context and lost its beginning."""


@dataclass(frozen=True)
class Sample:
    """``values``: metric → number, None where the measurement failed. ``flags``: e.g. ``truncated``
    (max_tokens ran out), ``prompt_cut`` (the prompt did not fit into the model's context and lost its
    beginning), ``empty``, ``unparsed`` (no extractable answer; the value is then wrong by rule), ``missing``
    (no output: a recording has none for this document, or a server refused it; ``output`` and all values are
    None).
    ``n_tokens``: of all outputs; None where nobody counted them. ``outputs``: all of them, where a task draws
    several for a prompt (``output`` is the first). ``scores``: scorer → one score an output. ``sums``: metric
    that is a statistic of sums → the document's part in them, None where it was not measured."""

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
    outputs: tuple[str, ...] = ()
    scores: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    sums: Mapping[str, Sequence[float] | None] = field(default_factory=dict)


class Scorer(Protocol):
    """What scores single outputs for a task's metrics: a classifier, a language model, a record."""

    @property
    def name(self) -> str:
        """The name by which task files ask for it."""
        ...

    def score(
        self,
        task: Task,
        documents: Sequence[Document],
        outputs: Sequence[str],
        on_done: Advance | None = None,
    ) -> list[float | None]:
        """One score an output, in order; None where the scorer failed on it.

        Args:
            documents: what each output answers.
        """
        ...
