"""Areas under ROC curves and rank correlations: hand-worked numbers, scipy as an oracle, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from alignbench.stats import ranking
from alignbench.stats.ranking import area, area_difference, spearman, spearman_difference


def delong(x: list[float], y: list[bool]) -> tuple[float, float]:
    """Area and variance, by the paper's double sums."""
    pos, neg = [a for a, b in zip(x, y) if b], [a for a, b in zip(x, y) if not b]
    kernel = [[1.0 if p > q else 0.5 if p == q else 0.0 for q in neg] for p in pos]
    v10 = [sum(row) / len(neg) for row in kernel]
    v01 = [sum(row[j] for row in kernel) / len(pos) for j in range(len(neg))]
    return sum(v10) / len(pos), float(np.var(v10, ddof=1) / len(pos) + np.var(v01, ddof=1) / len(neg))


def test_an_area_by_hand() -> None:
    # of 2 × 3 pairs: .8 beats .1, .4, .6; .4 beats .1, ties .4, loses to .6: 4.5 / 6
    found = area([0.8, 0.4, 0.1, 0.4, 0.6], [True, True, False, False, False])
    assert found.value == pytest.approx(0.75)
    assert (found.n, found.n_positive, found.n_clusters) == (5, 2, 5)


def test_area_and_variance_are_delongs() -> None:
    rng = np.random.default_rng(3)
    y = [bool(v) for v in rng.random(400) < 0.3]
    x = [float(round(v, 1)) for v in rng.normal(size=400) + np.array(y)]
    value, variance = delong(x, y)
    found = area(x, y)
    assert found.value == pytest.approx(value)
    u = stats.mannwhitneyu(*[[a for a, b in zip(x, y) if b is side] for side in (True, False)]).statistic
    assert found.value == pytest.approx(u / (sum(y) * (400 - sum(y))))
    assert found.stderr == pytest.approx(math.sqrt(variance), rel=0.01)  # n−1 a class there, G−1 here
    assert found.ci is not None
    assert found.ci[0] < value < found.ci[1]


def test_clusters_of_copies_are_worth_one_each() -> None:
    x, y = [0.1, 0.5, 0.3, 0.9, 0.2, 0.6], [False, True, False, True, True, False]
    alone = area(x, y)
    copied = area(x * 4, y * 4, [str(i) for i in range(6)] * 4)
    assert copied.value == alone.value
    assert copied.stderr == pytest.approx(alone.stderr)
    assert copied.n_clusters == 6
    assert "clustered" in copied.method


def test_no_overlap_has_an_interval_too() -> None:
    found = area([1, 2, 3, 4], [False, False, True, True])
    assert found.value == 1.0
    assert found.ci == pytest.approx((math.sqrt(0.025), 1.0))  # two of two, Clopper and Pearson
    turned = area([1, 2, 3, 4], [True, True, False, False])
    assert turned.ci == pytest.approx((0.0, 1 - math.sqrt(0.025)))


def test_one_class_has_no_area() -> None:
    assert area([0.1, 0.2], [True, True]).value is None
    assert area_difference([0.1, 0.2], [0.1, 0.3], [True, True]).value is None
    assert area([0.1, 0.2], [True, False], ["a", "a"]).ci is None


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [([0.1, math.nan], [True, False], "not finite"), ([0.1], [True, False], "1 scores and 2 labels")],
)
def test_bad_numbers(scores: list[float], labels: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        area(scores, labels)
    with pytest.raises(ValueError):
        area([0.1, 0.2], [True, False], level=1.0)


def test_a_difference_is_paired() -> None:
    rng = np.random.default_rng(1)
    y = [bool(v) for v in rng.random(300) < 0.5]
    a = rng.normal(size=300) + np.array(y)
    b = a + rng.normal(size=300) * 0.05
    found = area_difference(list(a), list(b), y)
    one, other = area(list(a), y), area(list(b), y)
    assert one.value is not None
    assert other.value is not None
    assert found.value == pytest.approx(one.value - other.value)
    assert found.stderr is not None
    assert one.stderr is not None
    assert found.stderr < one.stderr / 5  # the two err together
    assert area_difference(list(a), list(a), y).value == 0.0


def test_intervals_of_areas_cover() -> None:
    rng = np.random.default_rng(5)
    truth = float(stats.norm.cdf(1.5 / math.sqrt(2)))
    held = 0
    for _ in range(400):
        y = np.arange(120) < 40
        x = rng.normal(size=120) + 1.5 * y
        ci = area(list(x), [bool(v) for v in y]).ci
        assert ci is not None
        held += ci[0] <= truth <= ci[1]
    assert 0.92 <= held / 400 <= 0.98


def test_spearman_is_scipys() -> None:
    rng = np.random.default_rng(2)
    a = [float(v) for v in rng.integers(0, 9, size=80)]
    b = [x + float(v) for x, v in zip(a, rng.normal(size=80) * 4)]
    found = spearman(a, b)
    assert found.value == pytest.approx(stats.spearmanr(a, b).statistic)
    assert found.ci is not None
    assert found.ci[0] < found.value < found.ci[1]
    assert spearman(a, b) == found  # seeded
    fisher = 1.06 / math.sqrt(80 - 3)  # of atanh ρ; Fieller et al. (1957)
    assert found.stderr == pytest.approx(fisher * (1 - found.value**2), rel=0.25)
    both = spearman_difference(a, b, b)
    assert both.value == pytest.approx(found.value - 1)


def test_copies_do_not_make_a_correlation_surer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "RESAMPLES", 300)
    a, b = [1.0, 2, 3, 4, 5, 6, 7, 8], [2.0, 1, 4, 3, 6, 5, 8, 7]
    names = [str(i) for i in range(8)]
    alone, copied = spearman(a, b), spearman(a * 9, b * 9, names * 9)
    assert copied.stderr == pytest.approx(alone.stderr)
    assert spearman([1.0, 1, 1], [1.0, 2, 3]).value is None
    with pytest.raises(ValueError, match="lengths differ"):
        spearman([1.0], [1.0, 2.0])


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_turning_the_scores_turns_the_area(rows: list[tuple[int, bool]]) -> None:
    x, y = [float(a) for a, _ in rows], [b for _, b in rows]
    found, turned = area(x, y), area([-a for a in x], y)
    if found.value is None:
        assert turned.value is None
    else:
        assert turned.value == pytest.approx(1 - found.value)
        assert found.ci is None or 0 <= found.ci[0] <= found.value + 1e-9 <= found.ci[1] + 2e-9 <= 1 + 2e-9
