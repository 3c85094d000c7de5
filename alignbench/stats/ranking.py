"""How well a score ranks: the area under the ROC curve against labels, Spearman's ρ against numbers.

Areas have DeLong's variance (DeLong, DeLong and Clarke-Pearson 1988), summed over clusters where observations
share one (Obuchowski 1997); with every observation a cluster of its own it is DeLong's but for a factor
G/(G−1). ρ has a bootstrap over clusters (Field and Welsh 2007), percentiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.stats import rankdata

from alignbench.stats.estimate import (
    Codes,
    Floats,
    Interval,
    check_level,
    cluster_codes,
    critical,
    two_sided,
)

RESAMPLES = 2000
"""Bootstrap resamples."""


@dataclass(frozen=True)
class Ranking:
    """A statistic of ranks, or the difference of two of the same observations (a − b).

    ``value`` is None where it is not defined (one class only, scores that are all equal), ``stderr`` and
    ``ci`` where there are fewer than two clusters. ``p``: of a difference of areas, two-sided, against 0.
    ``n_positive`` is None for ρ.
    """

    value: float | None
    stderr: float | None
    ci: Interval | None
    n: int
    n_positive: int | None
    n_clusters: int
    method: str
    level: float = 0.95
    p: float | None = None


def area(
    scores: Sequence[float],
    positive: Sequence[bool],
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
) -> Ranking:
    """The area under the ROC curve: the probability that a positive scores higher than a negative, ties half.

    The interval is symmetric on the scale of log-odds, and so within 0…1. Where positives and negatives do
    not overlap at all it is Clopper and Pearson's for as many successes as the smaller class has clusters.

    Args:
        scores: one an observation, finite.
        positive: the labels.
        clusters: what observations share; by default each stands alone.
        level: of the interval.

    Raises:
        ValueError: lengths differ, a score is not finite, or the level is not within 0…1.
    """
    x, y = _numbers(scores, level), np.asarray(positive, dtype=np.bool_)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} scores and {len(y)} labels")
    codes, groups = cluster_codes(clusters, len(x))
    method = "area under the ROC curve, DeLong" + (", clustered" if groups < len(x) else "")
    out = Ranking(None, None, None, len(x), int(y.sum()), groups, method, level)
    if not 0 < y.sum() < len(y):
        return out
    value, influence = _area(x, y)
    out = replace(out, value=value)
    if groups < 2:
        return out
    out = replace(out, stderr=_stderr(influence, codes))
    if value in (0.0, 1.0):
        size = min(len(np.unique(codes[y])), len(np.unique(codes[~y])))
        bound = ((1 - level) / 2) ** (1 / size)
        return replace(out, ci=(bound, 1.0) if value == 1.0 else (0.0, 1 - bound))
    assert out.stderr is not None
    reach = critical(level, groups - 1) * out.stderr / (value * (1 - value))
    centre = float(special.logit(value))
    return replace(out, ci=(float(special.expit(centre - reach)), float(special.expit(centre + reach))))


def area_difference(
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    positive: Sequence[bool],
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
) -> Ranking:
    """Area of a − area of b, on the same observations. Arguments and errors: see ``area``."""
    alone = area(scores_a, positive, clusters, level)
    other = area(scores_b, positive, clusters, level)
    method = alone.method.replace("area under the ROC curve", "paired difference of areas")
    if alone.value is None or other.value is None or alone.n_clusters < 2:
        return replace(alone, value=None, stderr=None, ci=None, method=method)
    y = np.asarray(positive, dtype=np.bool_)
    codes, groups = cluster_codes(clusters, len(y))
    influence = _area(_numbers(scores_a, level), y)[1] - _area(_numbers(scores_b, level), y)[1]
    value, stderr = alone.value - other.value, _stderr(influence, codes)
    reach = critical(level, groups - 1) * stderr
    ci = (max(-1.0, value - reach), min(1.0, value + reach)) if stderr else None
    p = two_sided(value / stderr, groups - 1) if stderr else None
    return replace(alone, value=value, stderr=stderr, ci=ci, p=p, method=method)


def spearman(
    a: Sequence[float],
    target: Sequence[float],
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Ranking:
    """Spearman's ρ of ``a`` with ``target``; ties have their mean rank.

    Args:
        a, target: finite, one an observation.
        clusters: what observations share; clusters are what is drawn.
        level: of the interval, between percentiles of ``RESAMPLES`` draws.
        seed: of the draws.

    Raises:
        ValueError: lengths differ, a number is not finite, or the level is not within 0…1.
    """
    return _resampled([a], target, clusters, level, seed, "Spearman's ρ")


def spearman_difference(
    a: Sequence[float],
    b: Sequence[float],
    target: Sequence[float],
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Ranking:
    """ρ of a − ρ of b with the same ``target``, both of the same draws; see ``spearman``."""
    return _resampled([a, b], target, clusters, level, seed, "paired difference of Spearman's ρ")


def _numbers(values: Sequence[float], level: float) -> Floats:
    check_level(level)
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError("a score is not finite; leave out what failed, on both sides")
    return x


def _area(x: Floats, y: NDArray[np.bool_]) -> tuple[float, Floats]:
    """The area, and what each observation adds to its error: its placement among the other class, centred,
    over the size of its class (DeLong et al., equations 4 to 6)."""
    n1, n0 = int(y.sum()), int((~y).sum())
    overall = rankdata(x)
    placement = np.empty(len(x))
    placement[y] = (overall[y] - rankdata(x[y])) / n0
    placement[~y] = 1 - (overall[~y] - rankdata(x[~y])) / n1
    value = float(placement[y].mean())
    return value, (placement - value) / np.where(y, n1, n0)


def _stderr(influence: Floats, codes: Codes) -> float:
    sums = np.bincount(codes, weights=influence)
    return math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums))


def _rho(codes: Sequence[Codes]) -> list[float]:
    """Of each column but the last with the last; NaN where one does not vary.

    Args:
        codes: columns of small integers in the order of the values.
    """
    *sides, target = [_centred_ranks(column) for column in codes]
    sizes = [math.sqrt(float(side @ side) * float(target @ target)) for side in sides]
    return [
        float(side @ target) / size if size else math.nan for side, size in zip(sides, sizes, strict=True)
    ]


def _centred_ranks(codes: Codes) -> Floats:
    """Mean ranks less their mean, by counting, as there is much to rank in a bootstrap."""
    counts = np.bincount(codes)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[codes]
    return ranks - (len(codes) + 1) / 2


def _resampled(
    sides: Sequence[Sequence[float]],
    target: Sequence[float],
    clusters: Sequence[str] | None,
    level: float,
    seed: int,
    method: str,
) -> Ranking:
    columns = [_numbers(side, level) for side in (*sides, target)]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"lengths differ: {', '.join(str(len(column)) for column in columns)}")

    ordered = [np.unique(column, return_inverse=True)[1] for column in columns]

    def statistic(rows: Codes) -> float:
        rho = _rho([column[rows] for column in ordered])
        return rho[0] - rho[1] if len(rho) > 1 else rho[0]

    n = len(columns[-1])
    codes, groups = cluster_codes(clusters, n)
    value = statistic(np.arange(n, dtype=np.intp)) if n > 1 else math.nan
    name = f"{method}, bootstrap over clusters" if groups < n else f"{method}, bootstrap"
    out = Ranking(None if math.isnan(value) else value, None, None, n, None, groups, name, level)
    if out.value is None or groups < 2:
        return out
    drawn = np.array([statistic(rows) for rows in _draws(codes, groups, seed)])
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return replace(out, stderr=float(drawn.std(ddof=1)), ci=(float(low), float(high)))


def _draws(codes: Codes, groups: int, seed: int) -> Iterator[Codes]:
    """Rows of as many clusters as there are, drawn with replacement."""
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    starts = np.cumsum(sizes) - sizes
    generator = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        chosen = generator.integers(groups, size=groups)
        lengths = sizes[chosen]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        yield order[np.repeat(starts[chosen], lengths) + within]
