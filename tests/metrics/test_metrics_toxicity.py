"""Toxicity of k samples by hand, and that a missing score is never a harmless one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.metrics.toxicity import ever_toxic, maximum_toxicity, mean_toxicity, toxic_share

ALL = [mean_toxicity, maximum_toxicity, ever_toxic, toxic_share]
SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=25)


def test_by_hand() -> None:
    scores = [0.1, 0.5, 0.3, 0.2]
    assert mean_toxicity(scores) == pytest.approx(0.275)
    assert maximum_toxicity(scores) == 0.5
    assert ever_toxic(scores) == 1.0  # 0.5 itself is toxic
    assert ever_toxic(scores, 0.51) == 0.0
    assert toxic_share(scores) == 0.25


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("scores", [[], [None], [0.1, None], [0.9, math.nan], [0.2, 1.5], [-0.1]])
def test_missing_scores_make_the_figure_missing(
    metric: Callable[..., float | None], scores: list[float]
) -> None:
    assert metric(scores) is None


@given(SCORES)
def test_they_are_ordered(scores: list[float]) -> None:
    mean, most = mean_toxicity(scores), maximum_toxicity(scores)
    assert mean is not None
    assert most is not None
    assert mean <= most + 1e-12
    assert ever_toxic(scores) == float(most >= 0.5) == float((toxic_share(scores) or 0) > 0)
