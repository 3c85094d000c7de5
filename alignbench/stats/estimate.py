"""The mean of one column of numbers, with an interval that respects shared sources.

Notation: n observations x_i in G clusters (documents that share a passage, a template or a prompt);
u_g = Σ_{i in g} (x_i − x̄). The cluster-robust (CR1) standard error of the mean is
√(G/(G−1) · Σ_g u_g²) / n, which is s/√n when every cluster holds one observation
(Liang & Zeger 1986; Cameron & Miller 2015, section II).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
Interval = tuple[float, float]

ROUNDING = 1e-12
"""Relative to what is added up: less than this is nothing but rounding."""
WORST_CASE = 1
"""How many clusters' evidence the worst design effect weighs; chosen by simulation."""
MISSING_SHARE = 0.01
"""Above this share of missing observations the best and the worst case are given too."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty, in the units of the values.

    ``n`` counts observations that were used and ``missing`` those that were not (None, NaN or infinite);
    ``mean`` is None where n = 0, ``stderr`` and ``ci`` where fewer than two clusters are left.
    ``missing_bounds``: the mean over all observations if every missing one were the lowest, or the highest,
    value possible; given when more than 1 % are missing and the range is known. ``effective_n``: for rates,
    how many independent documents the interval was taken at.
    """

    mean: float | None
    stderr: float | None
    ci: Interval | None
    n: int
    missing: int
    n_clusters: int
    method: str
    level: float = 0.95
    missing_bounds: Interval | None = None
    effective_n: float | None = None


def mean_interval(
    values: Sequence[float | None],
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
    bounds: Interval | None = None,
) -> Estimate:
    """The mean of ``values`` with a ``level`` interval.

    Rates (every value 0 or 1) get Wilson's score interval, so that 0 % and 100 % are never "certain"; where
    clusters repeat it is taken at the effective sample size with t on G−1 degrees of freedom (Dean & Pagano
    2015; see ``effective_size``). Other values get a t interval, cut at ``bounds`` if the metric has any.
    Values that are all equal show no spread to estimate from; see ``no_variation``.

    ``clusters`` names each value's source; an empty name means a source of its own.
    Raises ValueError for a level outside (0, 1), clusters of another length, or values outside ``bounds``.
    """
    check_level(level)
    if clusters is not None and len(clusters) != len(values):
        raise ValueError(f"{len(values)} values but {len(clusters)} clusters")
    used = [i for i, value in enumerate(values) if is_number(value)]
    x = np.array([values[i] for i in used], dtype=np.float64)
    names = [clusters[i] for i in used] if clusters is not None else None
    codes, n_clusters = cluster_codes(names, len(used))
    missing = len(values) - len(used)
    if not used:
        return Estimate(None, None, None, 0, missing, 0, "none", level)
    binary = is_binary(x)
    span = (0.0, 1.0) if binary else bounds
    _check_bounds(x, bounds)
    mean = math.fsum(x) / len(x)
    outer = _missing_bounds(mean, len(x), missing, span)
    if n_clusters < 2:
        return Estimate(mean, None, None, len(x), missing, n_clusters, "none", level, outer)
    stderr = cluster_stderr(x, codes)
    clustered = n_clusters < len(x)
    ci: Interval | None
    size = effective_size(x, codes) if binary else None
    if size is not None:
        ci = _wilson(mean, size, critical(level, n_clusters - 1 if clustered else math.inf))
        method = "wilson, cluster-robust" if clustered else "wilson"
    elif stderr == 0.0:
        ci, method = no_variation(mean, n_clusters, level, span), "no variation"
    else:
        half = critical(level, n_clusters - 1) * stderr
        ci, method = clip((mean - half, mean + half), span), "t, cluster-robust" if clustered else "t"
    return Estimate(mean, stderr, ci, len(x), missing, n_clusters, method, level, outer, size)


def no_variation(value: float, n_clusters: int, level: float, span: Interval | None) -> Interval | None:
    """The interval of a mean when all G independent sources gave the same ``value``.

    If a share q of the population differed, all G would agree with probability (1−q)^G. So q is at most
    1 − ((1−level)/2)^(1/G), the exact bound behind the "rule of three", and that share could lie at either
    end of ``span``. Without a known span there is no honest interval: None.
    """
    if span is None:
        return None
    share = 1 - ((1 - level) / 2) ** (1 / n_clusters)
    low, high = span
    return value - share * (value - low), value + share * (high - value)


def cluster_codes(clusters: Sequence[str] | None, n: int) -> tuple[Codes, int]:
    """Integer cluster codes 0…G−1 of n observations, and G. None, or an empty name: a cluster of its own."""
    if clusters is None:
        return np.arange(n, dtype=np.intp), n
    codes: dict[str | int, int] = {}
    out = [codes.setdefault(name or i, len(codes)) for i, name in enumerate(clusters)]
    return np.array(out, dtype=np.intp), len(codes)


def cluster_stderr(x: Floats, codes: Codes) -> float:
    """CR1 standard error of the mean; 0 where the spread is nothing but rounding."""
    residual = x - math.fsum(x) / len(x)
    if np.max(np.abs(residual)) <= ROUNDING * np.max(np.abs(x), initial=0.0):
        return 0.0
    sums = np.bincount(codes, weights=residual)
    if np.max(np.abs(sums)) <= ROUNDING * np.max(np.bincount(codes, weights=np.abs(residual))):
        return 0.0  # clusters with the same mean, in which single values differ
    groups = len(sums)
    return math.sqrt(groups / (groups - 1) * float(sums @ sums)) / len(x)


def effective_size(x: Floats, codes: Codes) -> float:
    """How many independent documents the n outcomes ``x`` (0/1, or −1/0/1 differences) are worth: n/deff.

    The design effect deff = CR1²/(s²/n), at least 1, is itself uncertain where few clusters depart from the
    commonest outcome (a new cluster may bring all its documents at once). So it is averaged with the worst
    case, Σ m_g²/n for clusters of m_g equal documents, which weighs as much as ``WORST_CASE`` clusters
    against the K that depart.
    """
    n, groups = len(x), int(codes.max()) + 1
    if groups == n:
        return float(n)
    values, counts = np.unique(x, return_counts=True)
    departing = len(np.unique(codes[x != values[counts.argmax()]]))
    worst = float(np.sum(np.bincount(codes) ** 2)) / n
    variance = float(x.var(ddof=1)) / n
    deff = max(1.0, cluster_stderr(x, codes) ** 2 / variance) if variance > 0 else 1.0
    return n * (departing + WORST_CASE) / (departing * deff + WORST_CASE * worst)


def critical(level: float, df: float) -> float:
    """The half-width of a central ``level`` interval of Student's t, in standard errors; df = ∞: normal."""
    tail = (1 + level) / 2
    return float(special.ndtri(tail) if math.isinf(df) else special.stdtrit(df, tail))


def two_sided(ratio: float, df: float) -> float:
    """Two-sided p-value of ``ratio`` standard errors under Student's t; df = ∞: normal."""
    return float(2 * (special.ndtr(-abs(ratio)) if math.isinf(df) else special.stdtr(df, -abs(ratio))))


def is_number(value: float | None) -> bool:
    """Whether an observation is there; a NaN or an infinity is a failed measurement."""
    return value is not None and math.isfinite(value)


def is_binary(x: Floats) -> bool:
    """Whether every value is 0 or 1."""
    return bool(np.all((x == 0) | (x == 1)))


def check_level(level: float) -> None:
    """Raise ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")


def clip(ci: Interval, span: Interval | None) -> Interval:
    """An interval cut at the ends of ``span``."""
    return ci if span is None else (max(ci[0], float(span[0])), min(ci[1], float(span[1])))


def p_against(estimate: Estimate, null: float) -> float | None:
    """Two-sided p-value of mean = ``null``, dual to the interval: Wilson's score test, else t.

    Where nothing varied only the sign can be tested: 2^(1−G). None where there is no standard error.
    """
    if estimate.mean is None or estimate.stderr is None:
        return None
    distance, groups = abs(estimate.mean - null), estimate.n_clusters
    if estimate.effective_n is not None:
        ratio = distance / math.sqrt(null * (1 - null) / estimate.effective_n)
        return two_sided(ratio, groups - 1 if groups < estimate.n else math.inf)
    if estimate.stderr == 0:
        return 1.0 if distance <= ROUNDING else min(1.0, 2.0 ** (1 - groups))
    return two_sided(distance / estimate.stderr, groups - 1)


def _wilson(p: float, size: float, crit: float) -> Interval:
    square = crit * crit / size
    centre = (p + square / 2) / (1 + square)
    half = crit / (1 + square) * math.sqrt(p * (1 - p) / size + square / (4 * size))
    return min(max(centre - half, 0.0), p), max(min(centre + half, 1.0), p)


def _missing_bounds(mean: float, n: int, missing: int, span: Interval | None) -> Interval | None:
    total = n + missing
    if span is None or missing <= MISSING_SHARE * total:
        return None
    return (mean * n + span[0] * missing) / total, (mean * n + span[1] * missing) / total


def _check_bounds(x: Floats, bounds: Interval | None) -> None:
    if bounds is not None and (x.min() < bounds[0] or x.max() > bounds[1]):
        raise ValueError(f"values from {x.min()} to {x.max()} lie outside the bounds {bounds}")
