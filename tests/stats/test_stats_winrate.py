"""Win-rates and position bias."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from alignbench.stats import mean_interval, position_bias, win_rate

PREFERENCE = st.one_of(
    st.none(), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1).map(lambda x: round(x, 3))
)


def test_by_hand() -> None:
    # 1 1 0 ½: mean .625, s² = .229167, stderr = .239357, t = .522233 on 3 against ½
    out = win_rate([1, 1, 0, 0.5, None])
    assert (out.n, out.wins, out.losses, out.ties, out.missing) == (4, 2, 1, 1, 1)
    assert (out.win_rate, out.discrete_win_rate) == (0.625, 0.625)
    assert out.stderr == pytest.approx(0.239357, abs=1e-6)
    assert out.p == pytest.approx(0.637618, abs=1e-5)
    assert out.p_sign == pytest.approx(1.0)
    assert out.missing_bounds == pytest.approx((0.5, 0.7))


def test_soft_preferences_count_their_value() -> None:
    out = win_rate([0.9, 0.6, 0.5, 0.2])
    assert out.win_rate == pytest.approx(0.55)
    assert (out.wins, out.losses, out.ties) == (2, 1, 1)
    assert out.discrete_win_rate == pytest.approx(0.625)


def test_three_wins_of_three_prove_nothing() -> None:
    out = win_rate([1, 1, 1])
    assert out.win_rate == 1.0
    assert out.ci == pytest.approx((3 / (3 + 1.959964**2), 1.0), abs=1e-6)
    assert out.p is not None
    assert out.p > 0.05
    assert out.p_sign == pytest.approx(0.25)


@pytest.mark.parametrize(("wins", "losses"), [(5, 0), (8, 2), (3, 9), (40, 40)])
def test_the_sign_test_is_exact(wins: int, losses: int) -> None:
    out = win_rate([1.0] * wins + [0.0] * losses + [0.5] * 7)
    assert out.p_sign == pytest.approx(distributions.binomtest(wins, wins + losses).pvalue)


def test_judgements_of_one_prompt_are_one_cluster() -> None:
    alone, repeated = win_rate([1, 0, 0.5, 1]), win_rate([1, 0, 0.5, 1] * 5, list("abcd") * 5)
    assert repeated.n_clusters == 4
    assert repeated.ci == pytest.approx(alone.ci)
    assert repeated.p == pytest.approx(alone.p)


def test_nothing_to_count() -> None:
    out = win_rate([None, None])
    assert (out.n, out.missing, out.win_rate, out.ci, out.p, out.p_sign) == (0, 2, None, None, None, None)
    with pytest.raises(ValueError, match="preference"):
        win_rate([1.2])


def test_sources_that_agree_are_not_made_certain_by_rounding() -> None:
    """Three sources, each with the mean .516, which floating point does not give exactly."""
    values, sources = [0.604, 0.428, 0.428, 0.428, 0.604, 0.604], ["0", "1", "2"] * 2
    one, other = win_rate(values, sources), win_rate([1 - v for v in values], sources)
    assert (one.stderr, other.stderr) == (0.0, 0.0)
    assert one.p == other.p == 0.25  # 2^(1-3): all three on the same side of 1/2
    # 1 - .025^(1/3) of the population may lie at either end
    share = 1 - 0.025 ** (1 / 3)
    assert one.ci == pytest.approx((0.516 * (1 - share), 0.516 + share * 0.484))
    assert other.ci == pytest.approx((1 - one.ci[1], 1 - one.ci[0]))


@given(st.lists(PREFERENCE, max_size=40), st.integers(1, 20))
def test_a_against_b_mirrors_b_against_a(values: list[float | None], sources: int) -> None:
    clusters = [str(i % sources) for i in range(len(values))]
    one = win_rate(values, clusters)
    other = win_rate([None if v is None else 1 - v for v in values], clusters)
    assert (one.n, one.wins, one.losses, one.ties) == (other.n, other.losses, other.wins, other.ties)
    if one.win_rate is None:
        return
    assert one.win_rate == pytest.approx(1 - other.win_rate)
    assert one.discrete_win_rate == pytest.approx(1 - other.discrete_win_rate)
    if one.ci is not None:
        assert one.ci == pytest.approx((1 - other.ci[1], 1 - other.ci[0]), abs=1e-9)
        assert 0 <= one.ci[0] <= one.win_rate + 1e-12
        assert one.win_rate - 1e-12 <= one.ci[1] <= 1
        assert one.p == pytest.approx(other.p, rel=1e-6, abs=1e-12)


@given(st.lists(PREFERENCE, min_size=1, max_size=40), st.randoms())
def test_the_order_of_rows_does_not_matter(values: list[float | None], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(values)
    random.shuffle(shuffled)
    one, other = win_rate(values), win_rate(shuffled)
    assert (one.win_rate, one.wins, one.ties, one.p_sign) == (
        other.win_rate,
        other.wins,
        other.ties,
        other.p_sign,
    )
    assert one.ci == (None if other.ci is None else pytest.approx(other.ci, abs=1e-9))


def test_position_bias_by_hand() -> None:
    # x: a wins when first, b wins when first (a flip). y: a wins both times. z: one order only, b first
    preferences = [1.0, 0.0, 1.0, 1.0, 0.5, None, 1.0]
    a_first = [True, False, True, False, False, True, None]
    out = position_bias(preferences, a_first, ["x", "x", "y", "y", "z", "z", "w"])
    assert out is not None
    assert (out.n, out.n_both, out.flip_rate) == (5, 2, 0.5)
    assert out.first_rate == pytest.approx((1 + 1 + 1 + 0 + 0.5) / 5)
    assert out.ci == mean_interval([1, 1, 1, 0, 0.5], list("xxyyz"), bounds=(0, 1)).ci


def test_position_is_unknown_without_orders() -> None:
    assert position_bias([1.0, 0.0], [None, None], ["x", "y"]) is None
    one_order = position_bias([1.0, 0.0], [True, True], ["x", "y"])
    assert one_order is not None
    assert one_order.flip_rate is None
