"""By hand: a byte of 8 bits, words, and what cannot be measured."""

from __future__ import annotations

import math

import pytest

from alignbench.metrics import BUILT_IN, bits_per_byte, bits_per_word, greedy_accuracy, log_likelihood


def test_bits_per_byte_counts_utf8_bytes() -> None:
    assert bits_per_byte(-6 * math.log(2), False, "äb") == pytest.approx(2.0)  # 6 bits, 3 bytes
    assert bits_per_byte(-1.0, False, "") is None


def test_bits_per_word_splits_at_white_space_as_the_harness_does() -> None:
    assert bits_per_word(-6 * math.log(2), False, "the  cat\nsat") == pytest.approx(2.0)
    assert bits_per_word(-6 * math.log(2), False, " cat") == pytest.approx(3.0)  # an empty word before it
    # two documents: the word perplexity of both is 2 ** (all bits / all words)
    bits = [bits_per_word(-4 * math.log(2), False, "a b"), bits_per_word(-8 * math.log(2), False, "a b")]
    assert 2 ** (sum(bits) / 2) == pytest.approx(math.exp(12 * math.log(2) / 4))  # type: ignore[arg-type]


def test_accuracy_is_the_greedy_flag() -> None:
    assert greedy_accuracy(-3.0, True) == 1.0
    assert greedy_accuracy(-0.1, False) == 0.0
    assert greedy_accuracy(-math.inf, False) == 0.0  # impossible is wrong, not missing
    assert greedy_accuracy(math.nan, False) is None


@pytest.mark.parametrize("name", ["logprob", "bits_per_byte", "bits_per_word"])
@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_what_is_no_finite_number_is_missing(name: str, broken: float) -> None:
    assert BUILT_IN["loglikelihood"][name](broken, False, "the cat") is None


def test_the_log_likelihood_is_itself() -> None:
    assert log_likelihood(-2.5) == -2.5
