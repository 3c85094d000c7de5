"""Brier and ECE by hand, and what holds for any predictions."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.metrics.calibration import (
    binary_brier,
    brier,
    confidence_and_hit,
    ece,
    ece_of,
    ece_statistics,
    reliability,
)
from alignbench.metrics.corpus import corpus_value

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60)


def log(*shares: float) -> list[float]:
    return [math.log(share) for share in shares]


def test_brier_by_hand() -> None:
    # shares 0.7 0.2 0.1, the first is right: ½(0.09 + 0.04 + 0.01)
    assert brier(log(0.7, 0.2, 0.1), [0]) == pytest.approx(0.07)
    assert brier(log(0.7, 0.3), [1]) == pytest.approx(0.49)
    assert brier(log(0.7, 0.3), [1]) == pytest.approx(binary_brier(0.3, True))
    assert brier(log(0.5, 0.4, 0.1), [0, 1]) == pytest.approx((0.0 + 0.01 + 0.01) / 2)
    assert brier([0.0, -math.inf], [0]) == 0.0
    assert brier([0.0, -math.inf], [1]) == 1.0
    assert brier([-1500.0, -1500.0 + math.log(3)], [1]) == pytest.approx(0.0625)
    assert brier([math.nan, 0.0], [0]) is brier([-math.inf], [0]) is None
    assert binary_brier(math.nan, True) is None


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=6))
def test_brier_is_in_0_to_1(logprobs: list[float]) -> None:
    value = brier(logprobs, [0])
    assert value is not None
    assert 0 <= value <= 1 + 1e-12


def test_ece_by_hand_with_equal_widths() -> None:
    # two bins of width ½: 0.2 wrong, 0.4 right: ½ at 0.3; 0.8 right, 0.9 right, 1.0 wrong: ⅔ at 0.9
    pairs = [(0.2, 0.0), (0.8, 1.0), (0.4, 1.0), (0.9, 1.0), (1.0, 0.0)]
    assert ece(pairs, bins=2) == pytest.approx(2 / 5 * 0.2 + 3 / 5 * (0.9 - 2 / 3))
    low, high = reliability(pairs, bins=2)
    assert (low.n, low.confidence, low.accuracy) == (2, pytest.approx(0.3), 0.5)
    assert (high.n, high.confidence, high.accuracy) == (3, pytest.approx(0.9), pytest.approx(2 / 3))


def test_ece_by_hand_with_equal_masses() -> None:
    # sorted, three bins of 1, 2, 1: edges round(4/3) = 1 and round(8/3) = 3
    pairs = [(0.9, 1.0), (0.6, 0.0), (0.7, 1.0), (0.5, 1.0)]
    assert ece(pairs, bins=3, kind="mass") == pytest.approx((0.5 + 2 * abs(0.5 - 0.65) + 0.1) / 4)


def test_an_edge_belongs_to_the_lower_bin() -> None:
    assert [part.confidence for part in reliability([(0.5, 1), (0.51, 1), (0.0, 1), (1.0, 1)], bins=2)] == [
        0.25,
        pytest.approx(0.755),
    ]


def test_no_predictions() -> None:
    assert ece([]) is ece_of([0.0] * 30) is None


@given(PAIRS)
def test_ece_from_sums_is_ece(pairs: list[tuple[float, float]]) -> None:
    assert corpus_value([ece_statistics(*pair) for pair in pairs], ece_of) == pytest.approx(ece(pairs))


@given(PAIRS, st.sampled_from(["width", "mass"]))
def test_ece_is_no_less_than_the_whole_gap(pairs: list[tuple[float, float]], kind: str) -> None:
    gap = abs(sum(hit - said for said, hit in pairs)) / len(pairs)
    value = ece(pairs, kind=kind)  # type: ignore[arg-type]
    assert value is not None
    assert gap - 1e-9 <= value <= 1 + 1e-9
    assert ece(pairs, bins=1, kind=kind) == pytest.approx(gap)  # type: ignore[arg-type]


def test_a_calibrated_model_has_an_ece_above_0_that_shrinks() -> None:
    draw = random.Random(0)
    values = []
    for n in (100, 10_000):
        said = [draw.random() for _ in range(n)]
        values.append(ece([(p, float(draw.random() < p)) for p in said]) or 0)
    assert values[0] > 0.03
    assert values[1] < 0.02


def test_confidence_is_the_likeliest_choices_share() -> None:
    assert confidence_and_hit(log(0.2, 0.6), [1]) == pytest.approx((0.75, 1.0))
    assert confidence_and_hit(log(0.2, 0.6), [0]) == pytest.approx((0.75, 0.0))
    assert confidence_and_hit([-1.0, -1.0], [0]) == (0.5, 0.0)  # a tie is no hit
    assert confidence_and_hit([math.nan, 0.0], [0]) is None
