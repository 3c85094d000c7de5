"""The alignment tax: what a policy lost, on average, on public NLP tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alignbench.stats.estimate import Interval, check_level, critical, two_sided
from alignbench.stats.multiplicity import Verdict
from alignbench.stats.paired import PairedDifference


@dataclass(frozen=True)
class TaskGain:
    """One task: its gain (positive is better), the reference's score, what guessing scores, the verdict.
    Tasks with the same ``source`` ask about the same documents; an empty one is a source of its own."""

    task: str
    gain: PairedDifference
    reference_score: float | None
    chance: float | None
    verdict: Verdict
    source: str = ""


@dataclass(frozen=True)
class Tax:
    """Mean gain over ``tasks``; negative is a cost.

    ``normalised_gain``: the gain as a share of what the reference scores above chance, Σ gain / Σ (reference
    − chance) over the tasks whose chance level is known; −0.1: a tenth of the skill was lost. None where
    the reference is not above chance. ``regressed``: tasks whose verdict is "worse". ``left_out``: tasks
    without an estimate.
    """

    tasks: tuple[str, ...]
    mean_gain: float | None
    stderr: float | None
    ci: Interval | None
    p: float | None
    normalised_gain: float | None
    regressed: tuple[str, ...]
    left_out: tuple[str, ...]


def tax(gains: Sequence[TaskGain], level: float = 0.95) -> Tax:
    """The mean of the tasks' gains, all of them in one unit (rates).

    The tasks are taken as fixed, so the interval is about *these* tasks, not about tasks in general; their
    documents as independent between sources: stderr = √(Σ se²)/m, t with Welch–Satterthwaite degrees of
    freedom. Tasks of one source (the variants of a task) share documents, so their errors may be anything up
    to perfectly correlated: they are added, which is never too small. Tasks without a standard error are
    named in ``left_out``.
    """
    check_level(level)
    used = [g for g in gains if g.gain.diff is not None and g.gain.stderr is not None]
    left_out = tuple(g.task for g in gains if g not in used)
    names = tuple(g.task for g in used)
    regressed = tuple(g.task for g in gains if g.verdict == "worse")
    if not used:
        return Tax(names, None, None, None, None, None, regressed, left_out)
    mean = math.fsum(g.gain.diff or 0.0 for g in used) / len(used)
    variances, dfs = _by_source(used)
    stderr = math.sqrt(math.fsum(variances)) / len(used)
    ci, p = None, None
    if stderr > 0:
        df = math.fsum(variances) ** 2 / math.fsum(v * v / d for v, d in zip(variances, dfs))
        half = critical(level, df) * stderr
        ci, p = (max(-1.0, mean - half), min(1.0, mean + half)), two_sided(mean / stderr, df)  # of rates
    return Tax(names, mean, stderr, ci, p, _normalised(used), regressed, left_out)


def _by_source(gains: Sequence[TaskGain]) -> tuple[list[float], list[int]]:
    """Per source the variance of its tasks' sum, at most, and the degrees of freedom."""
    groups: dict[str, list[TaskGain]] = {}
    for i, g in enumerate(gains):
        groups.setdefault(g.source or f"\0{i}", []).append(g)
    sums = [math.fsum(g.gain.stderr or 0.0 for g in group) for group in groups.values()]
    return [s * s for s in sums], [min(g.gain.df for g in group) for group in groups.values()]


def _normalised(gains: Sequence[TaskGain]) -> float | None:
    # a ratio of sums: a mean of ratios would be ruled by the task where the reference is nearest to chance
    rows = [
        (g.gain.diff, g.reference_score - g.chance)
        for g in gains
        if g.gain.diff is not None and g.reference_score is not None and g.chance is not None
    ]
    skill = math.fsum(above for _, above in rows)
    return math.fsum(gain for gain, _ in rows) / skill if skill > 0 else None
