"""What counts as a difference between two sides, and which differences are known: by hand."""

from __future__ import annotations

import math
from typing import Any

import parity_edges
import pytest
from parity_compare import compare, metrics, tolerance
from parity_edges import boundaries, known_differences
from parity_models import TOKENIZERS
from parity_requests import Question, RequestSet

PAIR = RequestSet("pair", "loglikelihood", [("a", " b"), ("a", " c")])
TEXTS = ["the cat sat on the mat and the man walks onto the floor"] * 4


def no_gap(*_: Any) -> float:
    raise AssertionError("nothing discrete differs")


def test_tolerance_grows_with_the_sum() -> None:
    assert tolerance(0.0) == pytest.approx(1e-4)
    assert tolerance(-1000.0) == pytest.approx(1.1e-3)


@pytest.mark.parametrize(("delta", "differ"), [(0.9e-4, 0), (1.2e-4, 1), (math.nan, 1)])
def test_log_probabilities_differ_beyond_the_tolerance(delta: float, differ: int) -> None:
    result = compare(PAIR, [(-1.0, True), (-2.0, False)], [[-1.0 + delta, True], [-2.0, False]], no_gap)
    assert len(result.differences) == differ


def test_greedy_flags_may_differ_at_near_ties_only() -> None:
    ours, theirs = [(-1.0, True), (-2.0, False)], [[-1.0, False], [-2.0, False]]
    assert len(compare(PAIR, ours, theirs, lambda *_: 0.5e-4).near_ties) == 1
    apart = compare(PAIR, ours, theirs, lambda *_: 2e-4)
    assert [entry["request"] for entry in apart.differences] == [0]
    assert not apart.near_ties


def test_texts_are_equal_or_a_near_tie() -> None:
    requests = RequestSet("text", "generate_until", [("a", {}), ("b", {})])
    assert not compare(requests, ["x", "y"], ["x", "y"], no_gap).differences
    assert len(compare(requests, ["x", "y"], ["x", "z"], lambda *_: 1.0).differences) == 1
    assert len(compare(requests, ["x", "y"], ["x", "z"], lambda *_: 0.0).near_ties) == 1


def test_a_refusal_is_a_difference_unless_it_is_known() -> None:
    theirs = [{"error": "AssertionError"}, [-2.0, False]]
    ours = [(-1.0, True), (-2.0, False)]
    assert len(compare(PAIR, ours, theirs, no_gap).differences) == 1
    known = RequestSet("pair", "loglikelihood", PAIR.requests, known={0: "they refuse"})
    result = compare(known, ours, theirs, no_gap)
    assert not result.differences
    assert result.known[0]["why"] == "they refuse"


def test_accuracy_and_accuracy_per_character() -> None:
    # sums -4 and -6; per character -4/2 and -6/6: the plain winner is the first, the normed one the second
    requests = RequestSet(
        "q", "loglikelihood", [("a", " xx"), ("a", " yyyyyy")], [Question(range(2), 1, (2, 6))]
    )
    assert metrics(requests, [(-4.0, False), (-6.0, False)]) == {"acc": 0.0, "acc_norm": 1.0}


def test_metrics_that_differ_are_named() -> None:
    requests = RequestSet("q", "loglikelihood", PAIR.requests, [Question(range(2), 0, (1, 1))])
    result = compare(requests, [(-1.0, False), (-1.00005, False)], [[-1.00005, False], [-1.0, False]], no_gap)
    assert not result.differences
    assert result.unequal_metrics == ["acc", "acc_norm"]


def test_exact_match_is_of_the_last_number() -> None:
    requests = RequestSet(
        "g", "generate_until", [("a", {}), ("b", {})], [Question(range(i, i + 1), "1,200") for i in (0, 1)]
    )
    assert metrics(requests, ["so #### 1200.", "so 1200"]) == {"exact_match": 0.5}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return TOKENIZERS["gpt2"](TEXTS)


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        (("the cat", " sat"), None),
        (("the cat ", "sat"), None),  # the space moves
        (("", "the cat"), None),
        (("the cat", ""), parity_edges.REFUSED_NOTHING),
        ((" \n", "the"), parity_edges.REFUSED_CONTEXT),
        (("t", "he"), parity_edges.REFUSED_SWALLOWED),
        (("the man wal", "ks onto"), parity_edges.MERGED),
        (("the", " the" * 20), parity_edges.REFUSED_LENGTH),
    ],
)
def test_known_differences_of_causal_models(tokenizer: Any, pair: tuple[str, str], why: str | None) -> None:
    requests = RequestSet("x", "loglikelihood", [pair])
    expected = {0: why} if why else {}
    assert known_differences(requests, tokenizer, 16, causal=True) == expected


def test_known_differences_of_encoder_decoder_models(tokenizer: Any) -> None:
    long = "the " * (tokenizer.model_max_length + 1)
    requests = RequestSet("x", "loglikelihood", [("the man wal", "ks onto"), (long, "mat")])
    found = known_differences(requests, tokenizer, None, causal=False)
    assert found == {1: parity_edges.SHORTENED}


def test_of_one_text_cut_at_many_places_only_the_longest_continuation_is_expected_to_agree() -> None:
    requests = boundaries()
    assert len({context + continuation for context, continuation in requests.requests}) == 1
    assert sorted(requests.known) == list(range(1, len(requests.requests)))
