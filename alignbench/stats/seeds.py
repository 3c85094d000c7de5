"""Runs over seeds: the seed is the unit, and arms of one seed are paired.

Notation: x_s is one number of seed s (a score, or the difference of two arms), n seeds have one, x̄ and sd are
their mean and standard deviation. x̄ ± t(n − 1) · sd/√n is the interval, and the p-value that of Student's
one-sample t-test against ``null``. The values are taken as independent between seeds and roughly normal; with
few seeds neither can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from alignbench.stats.estimate import Interval, check_level, clip, critical, is_number, two_sided

POWER, ALPHA = 0.8, 0.05
MOST_SEEDS = 10_000
"""Nobody trains more; beyond it ``seeds_needed`` says None."""
ROUNDING = 1e-12


@dataclass(frozen=True)
class OverSeeds:
    """The mean over ``n`` seeds, in the units of the values.

    ``missing`` counts seeds without a value (None, NaN or infinite). ``mean`` is None where n = 0; ``sd``,
    ``stderr``, ``ci`` and ``p`` where n < 2. ``p`` is two-sided, of mean = ``null``; None without a null.
    Where all values are equal there is no spread to estimate from: ``sd`` and ``stderr`` are 0, ``ci`` is
    None, and ``p`` can only test the sign, 2^(1−n). ``seeds_needed``: see the function; None where it cannot
    be told, or exceeds ``MOST_SEEDS``.
    """

    mean: float | None
    sd: float | None
    stderr: float | None
    ci: Interval | None
    p: float | None
    n: int
    missing: int
    seeds_needed: int | None
    null: float | None = 0.0
    level: float = 0.95


def over_seeds(
    values: Sequence[float | None],
    null: float | None = 0.0,
    level: float = 0.95,
    span: Interval | None = None,
) -> OverSeeds:
    """The mean of one value a seed, with its t interval, the test of ``null`` and the seeds that it needs.

    The interval is cut at the ends of ``span``, the range that the values can have.

    Raises:
        ValueError: ``level`` is outside (0, 1).
    """
    check_level(level)
    x = np.array([value for value in values if is_number(value)], dtype=np.float64)
    n, missing = len(x), len(values) - len(x)
    if n == 0:
        return OverSeeds(None, None, None, None, None, 0, missing, None, null, level)
    mean = math.fsum(x) / n
    if n == 1:
        return OverSeeds(mean, None, None, None, None, 1, missing, None, null, level)
    sd = float(x.std(ddof=1))
    if sd <= ROUNDING * max(1.0, float(np.max(np.abs(x)))):  # shares: 1 is their scale
        sign = None if null is None else 1.0 if abs(mean - null) <= ROUNDING else 2.0 ** (1 - n)
        return OverSeeds(mean, 0.0, 0.0, None, sign, n, missing, None, null, level)
    stderr = sd / math.sqrt(n)
    half = critical(level, n - 1) * stderr
    p, needed = None, None
    if null is not None:
        p = two_sided((mean - null) / stderr, n - 1)
        needed = seeds_needed(mean - null, sd)
    ci = clip((mean - half, mean + half), span)
    return OverSeeds(mean, sd, stderr, ci, p, n, missing, needed, null, level)


def paired_differences(a: Sequence[float | None], b: Sequence[float | None]) -> list[float | None]:
    """a − b of each seed, in order; None where either side has no value.

    Raises:
        ValueError: the two do not list the same number of seeds.
    """
    return [
        x - y if x is not None and y is not None and is_number(x) and is_number(y) else None
        for x, y in zip(a, b, strict=True)
    ]


def seeds_needed(
    difference: float, sd: float, *, power: float = POWER, alpha: float = ALPHA, most: int = MOST_SEEDS
) -> int | None:
    """The fewest seeds at which a two-sided t-test at ``alpha`` finds a true mean ``difference`` between
    seeds that spread by ``sd``, with probability ``power`` at least.

    The t statistic of n seeds is noncentral t with n − 1 degrees of freedom and noncentrality
    √n · difference/sd (Cohen 1988, chapter 2). Put in an observed difference and the answer is itself an
    estimate, a rough one where the data are few.

    Returns:
        At least 2; None where ``difference`` or ``sd`` is 0, or ``most`` seeds are not enough.
    """
    if difference == 0 or sd <= 0:
        return None
    effect = abs(difference) / sd

    def enough(n: int) -> bool:
        return paired_power(effect, n, alpha) >= power

    if not enough(most):
        return None
    low, high = 1, most  # enough(high), not enough(low): power grows with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def paired_power(effect: float, n: int, alpha: float = ALPHA) -> float:
    """Power of a two-sided t-test of ``n`` differences whose mean is ``effect`` standard deviations."""
    if n < 2:
        return 0.0
    bound = critical(1 - alpha, n - 1)
    shift = effect * math.sqrt(n)
    beyond = stats.nct.sf(bound, n - 1, shift)
    # the far tail is nothing to speak of, and scipy's nct loses its digits there
    below = stats.nct.cdf(-bound, n - 1, shift) if shift < 5 else 0.0
    if not math.isfinite(beyond):  # scipy gives up on a very large shift, where power is 1
        return 1.0
    return float(min(1.0, beyond + (below if math.isfinite(below) else 0.0)))
