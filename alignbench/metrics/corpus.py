"""Statistics of a whole corpus that are no mean over documents: corpus BLEU, ratios, precision and recall.

Such a statistic is a function of sums: every document gives a vector of k numbers, the vectors are added up,
and the function turns the k sums into the figure. ``linearise`` turns it back into one value a document, so
that paired differences, clusters and intervals work on it as on any other metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Vector = Sequence[float]
"""The sufficient statistics of one document, or their sums: k numbers."""


@dataclass(frozen=True)
class CorpusMetric:
    """A statistic of sums.

    ``statistics`` has the signature of its kind's other metrics and gives one document's k numbers, or None
    where the measurement failed; it is None where a task's own function has to give them. ``combine`` turns k
    sums into the figure, or None where that has no value (nothing to divide by). ``ideal``: the best value
    where neither end is. ``bounds``: the figure's range; linearised values may lie outside it.
    """

    combine: Callable[[Vector], float | None]
    statistics: Callable[..., Vector | None] | None = None
    higher_is_better: bool | None = True
    ideal: float | None = None
    bounds: tuple[float, float] = (0.0, 1.0)


def linearise(
    statistics: Sequence[Vector | None], combine: Callable[[Vector], float | None]
) -> list[float | None]:
    """One value a document: their mean is the statistic, their variance the jackknife's.

    With S the sums over all n documents, θ = combine(S) and θ₍₋ᵢ₎ = combine(S − sᵢ) the statistic without
    document i, document i's value is

        vᵢ = θ + (n − 1)·(mean_j θ₍₋ⱼ₎ − θ₍₋ᵢ₎)

    so mean(v) = θ exactly, and var(v)/n = (n−1)/n · Σ(θ₍₋ᵢ₎ − mean θ₍₋ⱼ₎)², the jackknife's variance (Efron
    and Tibshirani 1993, An Introduction to the Bootstrap, section 11.2, equation 11.5). These are the
    jackknife's pseudo-values without their bias correction. For a mean they are the documents' own values;
    for a ratio they agree with Taylor linearisation (Särndal, Swensson and Wretman 1992, section 5.5) to
    O(1/n).

    To compare two policies, linearise each over the documents that both have.

    Args:
        statistics: n vectors of k numbers, one a document. A document whose vector is None, or holds what is
            no finite number, was not measured: its value is None and it is in none of the sums.
        combine: from k sums (floats) to the statistic.

    Returns:
        n values, in order. One document alone has no variance and gets θ. Where θ has no value all are None;
        so also where the statistic has none without some one document: it hangs on that document, and its
        sampling error cannot be told. Values may lie outside the statistic's own range.
    """
    kept = [index for index, vector in enumerate(statistics) if vector is not None and _finite(vector)]
    values: list[float | None] = [None] * len(statistics)
    vectors = [tuple(map(float, statistics[index] or ())) for index in kept]
    whole = combine(_sums(vectors)) if vectors else None
    if whole is None or not math.isfinite(whole):
        return values
    if len(vectors) == 1:
        values[kept[0]] = whole
        return values
    without = _leave_one_out(vectors, combine)
    if without is None:
        return values
    n = len(vectors)
    centre = math.fsum(without) / n
    for index, left in zip(kept, without, strict=True):
        values[index] = whole + (n - 1) * (centre - left)
    return values


def corpus_value(
    statistics: Sequence[Vector | None], combine: Callable[[Vector], float | None]
) -> float | None:
    """The statistic itself, over the documents that were measured; None where it has no value."""
    vectors = [tuple(vector) for vector in statistics if vector is not None and _finite(vector)]
    return combine(_sums(vectors)) if vectors else None


def ratio(sums: Vector) -> float | None:
    """sums[0] / sums[1]; None where the denominator is 0. With (x, 1) it is the mean of x."""
    return sums[0] / sums[1] if sums[1] else None


def precision_of(sums: Vector) -> float | None:
    """True positives / (true + false positives). ``sums``: those of (TP, FP, FN). None where nothing was
    found."""
    found = sums[0] + sums[1]
    return sums[0] / found if found else None


def recall_of(sums: Vector) -> float | None:
    """True positives / (true positives + false negatives). None where there was nothing to find."""
    wanted = sums[0] + sums[2]
    return sums[0] / wanted if wanted else None


def f1_of(sums: Vector) -> float | None:
    """2·TP / (2·TP + FP + FN), the harmonic mean of precision and recall. None where all three are 0."""
    whole = 2 * sums[0] + sums[1] + sums[2]
    return 2 * sums[0] / whole if whole else None


def counts(said: bool, is_so: bool) -> tuple[float, float, float]:
    """(TP, FP, FN) of one document: what was ``said`` of it, and what ``is_so``."""
    return float(said and is_so), float(said and not is_so), float(is_so and not said)


def moments(x: float, y: float) -> tuple[float, ...]:
    """One pair's part in a correlation: (1, x, y, x², y², xy)."""
    return 1.0, x, y, x * x, y * y, x * y


def correlation_of(sums: Vector) -> float | None:
    """Pearson's r from the sums of ``moments``. None where x or y does not vary."""
    n, x, y, xx, yy, xy = sums
    spread_x, spread_y = _less(n * xx, x * x), _less(n * yy, y * y)
    if spread_x <= 0 or spread_y <= 0:
        return None
    return max(-1.0, min(1.0, (n * xy - x * y) / math.sqrt(spread_x * spread_y)))


def _leave_one_out(
    vectors: Sequence[Vector], combine: Callable[[Vector], float | None]
) -> list[float] | None:
    """The statistic without each document in turn; None where it has no value without one of them."""
    totals = _sums(vectors)
    results: list[float] = []
    cache: dict[Any, float | None] = {}  # many documents have the same vector: yes or no
    for vector in vectors:
        key = tuple(vector)
        if key not in cache:
            cache[key] = combine([_less(total, part) for total, part in zip(totals, vector, strict=True)])
        left = cache[key]
        if left is None or not math.isfinite(left):
            return None
        results.append(left)
    return results


def _less(total: float, part: float) -> float:
    """total − part; what is only rounding is 0, so that an emptied denominator is seen to be empty."""
    rest = total - part
    return 0.0 if abs(rest) < 1e-12 * abs(total) else rest


def _sums(vectors: Sequence[Vector]) -> list[float]:
    return [math.fsum(column) for column in zip(*vectors, strict=True)]


def _finite(vector: Vector) -> bool:
    return all(math.isfinite(part) for part in vector)
