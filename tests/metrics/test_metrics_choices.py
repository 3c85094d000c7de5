"""Hand-worked numbers, then what holds for any log-likelihoods."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.metrics import accuracy, accuracy_bytes, mc1, mc2, pair_accuracy, reward_margin
from alignbench.metrics.choices import accuracy_tokens, chosen

LOGPROBS = st.lists(st.floats(-2000, 0), min_size=2, max_size=8)


def test_accuracy_by_hand() -> None:
    assert accuracy([-1.0, -2.0, -3.0], [0]) == 1.0
    assert accuracy([-1.0, -2.0, -3.0], [1]) == 0.0
    assert accuracy([-1.0, -2.0, -3.0], [1, 0]) == 1.0


@pytest.mark.parametrize("metric", [accuracy, mc1])
def test_a_tie_with_a_wrong_choice_is_no_win(metric: Callable[..., float | None]) -> None:
    assert metric([-1.0, -1.0], [0]) == 0.0


def test_accuracy_per_byte_by_hand() -> None:
    # "no" costs 1 nat a byte, "absolutely" 0.3: longer, less likely, and yet preferred
    assert accuracy([-2.0, -3.0], [1]) == 0.0
    assert accuracy_bytes([-2.0, -3.0], [1], ["no", "absolutely"]) == 1.0
    # é is two bytes: −2 over 2 ties with −1 over 1
    assert accuracy_bytes([-2.0, -1.0], [0], ["é", "e"]) == 0.0


def test_accuracy_per_token_by_hand() -> None:
    # −2 over 1 token against −3 over 2: the longer one is preferred
    assert accuracy_tokens([-2.0, -3.0], [1], [1, 2]) == 1.0
    assert accuracy_tokens([-2.0, -4.0], [1], [1, 2]) == 0.0  # a tie
    assert accuracy_tokens([-2.0, -3.0], [1], [1, 0]) is None
    with pytest.raises(ValueError):
        accuracy_tokens([-2.0, -3.0], [1], [1])


def test_mc2_by_hand() -> None:
    # masses ½, ¼ true and ¼ false
    assert mc2([math.log(0.5), math.log(0.25), math.log(0.25)], [0, 1]) == pytest.approx(0.75)


def test_mc2_does_not_underflow() -> None:
    # exp(−1500) is 0 in floating point; the shares are still those of −1500 and −1500 + log 3
    assert mc2([-1500.0, -1500.0 + math.log(3)], [0]) == pytest.approx(0.25)


@given(LOGPROBS, st.floats(-500, 500))
def test_mc2_is_a_share_and_only_differences_count(logprobs: list[float], shift: float) -> None:
    share = mc2(logprobs, [0])
    assert share is not None
    assert 0 <= share <= 1
    assert mc2([value + shift for value in logprobs], [0]) == pytest.approx(share, abs=1e-9)
    rest = mc2(logprobs, range(1, len(logprobs)))
    assert rest is not None
    assert share + rest == pytest.approx(1)


@given(LOGPROBS)
def test_exactly_one_choice_wins_unless_the_best_tie(logprobs: list[float]) -> None:
    wins = sum(mc1(logprobs, [index]) or 0 for index in range(len(logprobs)))
    assert wins == (logprobs.count(max(logprobs)) == 1)


@pytest.mark.parametrize("metric", [accuracy, mc1, mc2])
def test_a_value_that_is_no_number_is_a_failed_measurement(metric: Callable[..., float | None]) -> None:
    assert metric([math.nan, -1.0], [1]) is None


def test_a_choice_without_any_mass_is_only_unlikely() -> None:
    assert mc1([-1.0, -math.inf], [0]) == 1.0
    assert mc2([-1.0, -math.inf], [0]) == 1.0
    assert mc2([-math.inf, -math.inf], [0]) is None


def test_chosen_is_the_first_of_the_likeliest() -> None:
    assert chosen([-2.0, -1.0, -1.0]) == 1
    assert chosen([math.nan, -1.0]) == 1


def test_pairs_by_hand() -> None:
    assert pair_accuracy(1.0, 0.5) == 1.0
    assert pair_accuracy(0.5, 1.0) == 0.0
    assert pair_accuracy(0.5, 0.5) == 0.5
    assert pair_accuracy(math.nan, 0.5) is None
    assert reward_margin(1.0, 3.0) == -2.0
    assert reward_margin(math.inf, 3.0) is None
