"""Linearised statistics: what their mean and variance are, by hand and for any numbers."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alignbench.metrics.corpus import (
    corpus_value,
    counts,
    f1_of,
    linearise,
    precision_of,
    ratio,
    recall_of,
)

NUMBERS = st.lists(st.floats(-100, 100), min_size=2, max_size=30)
PAIRS = st.lists(st.tuples(st.floats(0, 10), st.floats(0.5, 10)), min_size=3, max_size=30)


def test_a_ratio_by_hand() -> None:
    # θ = 6/6 = 1; without each: 5/4, 4/5, 3/3; their mean 61/60; v = 1 + 2·(61/60 − θ₋)
    values = linearise([(1, 2), (2, 1), (3, 3)], ratio)
    assert values == pytest.approx([1 + 2 * (61 / 60 - left) for left in (1.25, 0.8, 1.0)])
    assert sum(values) / 3 == pytest.approx(1.0)  # type: ignore[arg-type]


@given(NUMBERS)
def test_for_a_mean_the_values_come_back(numbers: list[float]) -> None:
    assert linearise([(x, 1.0) for x in numbers], ratio) == pytest.approx(numbers, abs=1e-9)


@given(PAIRS)
def test_mean_is_the_statistic_and_variance_the_jackknifes(pairs: list[tuple[float, float]]) -> None:
    values = linearise(pairs, ratio)
    n = len(pairs)
    whole = ratio([sum(x for x, _ in pairs), sum(y for _, y in pairs)])
    assert sum(v for v in values if v is not None) / n == pytest.approx(whole, abs=1e-9)
    left = [
        sum(x for j, (x, _) in enumerate(pairs) if j != i)
        / sum(y for j, (_, y) in enumerate(pairs) if j != i)
        for i in range(n)
    ]
    jackknife = (n - 1) / n * sum((one - sum(left) / n) ** 2 for one in left)
    assert statistics.variance(v for v in values if v is not None) / n == pytest.approx(
        jackknife, rel=1e-6, abs=1e-9
    )


def test_a_ratio_meets_the_delta_method_as_n_grows() -> None:
    draw = random.Random(0)
    gaps = []
    for n in (50, 500, 5000):
        pairs = [(draw.random(), 1 + draw.random()) for _ in range(n)]
        sx, sy = sum(x for x, _ in pairs), sum(y for _, y in pairs)
        delta = [sx / sy + (x - sx / sy * y) / (sy / n) for x, y in pairs]  # Taylor linearisation
        gaps.append(
            max(abs(v - d) for v, d in zip(linearise(pairs, ratio), delta, strict=True) if v is not None)
        )
    assert all(gap < 4 / n for gap, n in zip(gaps, (50, 500, 5000), strict=True))
    assert gaps[0] > gaps[1] > gaps[2]


@given(PAIRS, st.randoms())
def test_order_does_not_matter(pairs: list[tuple[float, float]], shuffler: random.Random) -> None:
    order = list(range(len(pairs)))
    shuffler.shuffle(order)
    plain, mixed = linearise(pairs, ratio), linearise([pairs[i] for i in order], ratio)
    assert mixed == pytest.approx([plain[i] for i in order], abs=1e-9)


@given(PAIRS, st.data())
def test_what_was_not_measured_changes_nothing(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(pairs)))
    missing = data.draw(st.sampled_from([None, (math.nan, 1.0), (1.0, math.inf)]))
    with_gap = linearise([*pairs[:place], missing, *pairs[place:]], ratio)
    assert with_gap.pop(place) is None
    assert with_gap == linearise(pairs, ratio)


def test_degenerate_corpora() -> None:
    assert linearise([], ratio) == []
    assert linearise([None, None], ratio) == [None, None]
    assert linearise([(0, 0), (0, 0)], ratio) == [None, None]
    assert linearise([(1, 4)], ratio) == [0.25]  # one document: the statistic, no variance
    # without the first there is nothing to divide by: the figure hangs on one document
    assert linearise([(1, 4), (0, 0)], ratio) == [None, None]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 1)), min_size=2, max_size=5), st.integers(1, 5))
def test_documents_outside_the_domain_leave_the_statistic(
    pairs: list[tuple[float, float]], outside: int
) -> None:
    values = linearise([*pairs, *[(0.0, 0.0)] * outside], ratio)
    assert math.fsum(v for v in values if v is not None) / len(values) == pytest.approx(
        ratio([sum(x for x, _ in pairs), sum(y for _, y in pairs)])
    )


def test_an_emptied_denominator_is_seen_in_spite_of_rounding() -> None:
    vectors = [(0.1, 0.1), (0.2, 0.2), (0.0, 0.0)]
    assume_none = linearise([vectors[0], vectors[2], vectors[2]], ratio)
    assert assume_none == [None, None, None]
    assert corpus_value(vectors, ratio) == pytest.approx(1.0)


def test_precision_recall_f1_by_hand() -> None:
    # two found and right, one found and wrong, two missed, one left alone
    seen = [(True, True), (True, True), (True, False), (False, True), (False, True), (False, False)]
    vectors = [counts(said, is_so) for said, is_so in seen]
    assert corpus_value(vectors, precision_of) == pytest.approx(2 / 3)
    assert corpus_value(vectors, recall_of) == pytest.approx(2 / 4)
    assert corpus_value(vectors, f1_of) == pytest.approx(4 / 7)
    assert precision_of([0, 0, 3]) is None
    assert recall_of([0, 3, 0]) is None
    assert f1_of([0, 0, 0]) is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=40))
def test_f1_is_the_harmonic_mean(seen: list[tuple[bool, bool]]) -> None:
    vectors = [counts(said, is_so) for said, is_so in seen]
    precision, recall = corpus_value(vectors, precision_of), corpus_value(vectors, recall_of)
    assume(precision and recall)
    assert corpus_value(vectors, f1_of) == pytest.approx(2 * precision * recall / (precision + recall))  # type: ignore[operator]
