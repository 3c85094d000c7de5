"""Means over seeds, paired differences, and how many seeds would tell."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from alignbench.stats.seeds import over_seeds, paired_differences, paired_power, seeds_needed

NUMBERS = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=12)


def test_by_hand() -> None:
    # 1 2 3 4: mean 2.5, sd = √(5/3) = 1.290994, stderr = .645497, t(3) = 3.182446, half-width 2.054260
    out = over_seeds([1, 2, None, 3, 4, math.nan])
    assert (out.n, out.missing, out.mean) == (4, 2, 2.5)
    assert out.sd == pytest.approx(1.290994, abs=1e-6)
    assert out.stderr == pytest.approx(0.645497, abs=1e-6)
    assert out.ci == pytest.approx((0.445740, 4.554260), abs=1e-6)
    assert out.p == pytest.approx(0.030466, abs=1e-6)  # t = 3.872983 on 3


@given(NUMBERS)
def test_the_test_is_scipys(x: list[float]) -> None:
    out = over_seeds(x, null=0.1)
    if out.sd == 0:
        return
    theirs = distributions.ttest_1samp(x, 0.1)
    assert out.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert out.ci == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-9, abs=1e-12)


@given(NUMBERS)
def test_p_and_interval_agree(x: list[float]) -> None:
    out = over_seeds(x)
    if out.p is None or out.ci is None or abs(out.p - 0.05) < 1e-9:
        return
    assert (out.p < 0.05) == (out.ci[0] > 0 or out.ci[1] < 0)


def test_paired_is_the_paired_t_test() -> None:
    a, b = [0.61, 0.58, 0.66, 0.60, 0.63], [0.52, 0.55, 0.54, 0.51, 0.60]
    out = over_seeds(paired_differences(a, b))
    assert out.p == pytest.approx(distributions.ttest_rel(a, b).pvalue, rel=1e-9)
    assert out.mean == pytest.approx(0.072)


def test_a_seed_without_one_side_is_missing() -> None:
    assert paired_differences([1.0, None, 3.0, math.nan], [0.5, 1.0, None, 1.0]) == [0.5, None, None, None]
    with pytest.raises(ValueError):
        paired_differences([1.0], [1.0, 2.0])


def test_what_cannot_be_estimated_is_none() -> None:
    nothing = over_seeds([None, None])
    assert (nothing.n, nothing.missing, nothing.mean, nothing.ci, nothing.p) == (0, 2, None, None, None)
    alone = over_seeds([0.3])
    assert (alone.n, alone.mean, alone.sd, alone.ci, alone.p, alone.seeds_needed) == (
        1,
        0.3,
        None,
        None,
        None,
        None,
    )
    untested = over_seeds([0.3, 0.4, 0.6], null=None)
    assert untested.ci is not None
    assert (untested.p, untested.seeds_needed) == (None, None)


def test_equal_values_test_the_sign_alone() -> None:
    # five seeds, all at 0.1 (which has no exact binary form): the sign test's 2 · ½⁵
    out = over_seeds([0.1] * 5)
    assert (out.sd, out.ci, out.seeds_needed) == (0.0, None, None)
    assert out.p == pytest.approx(1 / 16)
    assert over_seeds([0.0] * 5).p == 1.0
    assert over_seeds([0.5] * 5, null=0.5).p == 1.0


def test_the_interval_ends_where_the_values_do() -> None:
    out = over_seeds([0.97, 1.0, 0.99, 1.0], null=None, span=(0.0, 1.0))
    assert out.ci is not None
    assert out.ci[1] == 1.0
    assert out.ci[0] > 0.9


@pytest.mark.parametrize(
    ("effect", "n"), [(0.1, 787), (0.3, 90), (0.5, 34), (0.8, 15), (1.0, 10), (2.0, 5), (3.0, 4)]
)
def test_seeds_needed(effect: float, n: int) -> None:
    # Cohen (1988) and every power program: 34 pairs for d = .5 at 80 %, two-sided 5 %
    assert seeds_needed(effect, 1.0) == n
    assert seeds_needed(-2 * effect, 2.0) == n
    assert paired_power(effect, n) >= 0.8 > paired_power(effect, n - 1)


@pytest.mark.parametrize("effect", [0.05, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("n", [2, 8, 40])
def test_power_is_statsmodels(effect: float, n: int) -> None:
    power = pytest.importorskip("statsmodels.stats.power")
    assert paired_power(effect, n) == pytest.approx(power.TTestPower().power(effect, n, 0.05), abs=1e-7)


def test_seeds_needed_where_it_cannot_be_told() -> None:
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(1.0, 0.0) is None
    assert seeds_needed(0.001, 1.0) is None  # millions
    assert seeds_needed(1e6, 1.0) == 2


def test_differences_of_rounding_are_no_spread() -> None:
    found = over_seeds([5.5e-17] * 6 + [1.1e-16] * 6)
    assert (found.sd, found.ci, found.p, found.seeds_needed) == (0.0, None, 1.0, None)
