"""Where a continuation starts, and which special tokens reach the model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_tokenizer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from alignbench.engines.encoding import (
    encode_pair,
    encode_pairs,
    encode_texts,
    rolling_windows,
    special_prefix,
)

TOKENIZER = make_tokenizer()
WORDS = st.text(alphabet="the cat\nsat.é", max_size=12)


def plain(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


@given(WORDS, WORDS)
@settings(max_examples=200, deadline=None)
def test_rule_of_lm_evaluation_harness(context: str, continuation: str) -> None:
    ids, start = encode_pair(TOKENIZER, context, continuation)
    # the harness's rule, written out
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    assert ids == plain(context + continuation)
    targets = ids[len(plain(context)) :]
    if continuation and not targets:  # our addition: a swallowed continuation still has a target
        assert ids[start:] == ids[-1:]
    else:
        assert ids[start:] == targets


def test_space_at_the_end_of_the_context_belongs_to_the_continuation() -> None:
    assert encode_pair(TOKENIZER, "the cat ", "sat") == encode_pair(TOKENIZER, "the cat", " sat")


def test_a_merge_across_the_boundary_leaves_a_target() -> None:
    whole = plain("the")
    assert len(whole) == 1, "the test needs a word that is one token"
    assert encode_pair(TOKENIZER, "th", "e") == (whole, 0)


def test_pairs_are_encoded_like_single_ones() -> None:
    pairs = [("the cat", " sat"), ("the cat", " ran"), ("", "dog"), ("the", "")]
    assert encode_pairs(TOKENIZER, pairs) == [encode_pair(TOKENIZER, *pair) for pair in pairs]


def test_eos_is_part_of_the_continuation_and_truncation_is_on_the_left() -> None:
    ids, start = encode_pair(TOKENIZER, "the cat sat on", " the mat", eos=True)
    assert ids[-1] == TOKENIZER.eos_token_id
    n = len(ids) - start
    assert n == len(plain(" the mat")) + 1
    assert encode_pair(TOKENIZER, "the cat sat on", " the mat", eos=True, max_length=n + 1) == (
        ids[-n - 1 :],
        1,
    )
    assert encode_pair(TOKENIZER, "the cat sat on", " the mat", eos=True, max_length=n - 1) == (
        ids[-n + 1 :],
        0,
    )


@pytest.mark.parametrize(
    ("bos", "behind", "prefix"),
    [(False, False, []), (True, False, [2]), (True, True, [2]), (False, True, [])],
)
def test_default_special_tokens_in_front_and_none_behind(bos: bool, behind: bool, prefix: list[int]) -> None:
    tokenizer: Any = make_tokenizer(bos=bos, behind=behind)
    assert special_prefix(tokenizer) == prefix
    assert encode_texts(tokenizer, ["the cat"]) == [prefix + plain("the cat")]
    assert encode_texts(tokenizer, ["the cat"], special=False) == [plain("the cat")]
    ids, start = encode_pair(tokenizer, "the cat", " sat")
    assert ids == prefix + plain("the cat sat")
    assert ids[start:] == plain(" sat")


def test_eos_without_an_eos_token_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no EOS"):
        encode_pair(tokenizer, "a", "b", eos=True)


def test_rolling_windows_by_hand() -> None:
    assert rolling_windows(1, 4) == []  # the start token alone: nothing to predict
    assert rolling_windows(5, 4) == [(0, 1, 5)]
    assert rolling_windows(9, 4) == [(0, 1, 5), (4, 5, 9)]
    assert rolling_windows(7, 4) == [(0, 1, 5), (2, 5, 7)]  # two left to predict: three tokens of context
    assert rolling_windows(7, None) == [(0, 1, 7)]


@given(st.integers(0, 60), st.integers(1, 12))
def test_rolling_windows_are_those_of_lm_evaluation_harness(n_tokens: int, window: int) -> None:
    ids = list(range(n_tokens + 1))  # 0 is the start token
    want, predicted = [], 0
    while predicted < n_tokens:  # the harness's rule, written out: context_len 1, windows made disjoint
        n = min(window, n_tokens - predicted)
        end = predicted + n
        taken = ids[:end] if predicted == 0 else ids[1:][max(0, end - window - 1) : end - 1]
        want.append((taken[: len(taken) - (n - 1)], ids[1:][predicted:end]))
        predicted = end
    windows = rolling_windows(len(ids), window)
    assert [(ids[first:target], ids[target:end]) for first, target, end in windows] == want
    assert all(end - first <= window + 1 for first, _, end in windows)


def test_a_text_that_writes_its_bos_out_gets_no_second_one() -> None:
    tokenizer: Any = make_tokenizer(bos=True)
    assert encode_texts(tokenizer, ["<bos>the cat", "the cat"]) == [[2, *plain("the cat")]] * 2
    assert encode_pair(tokenizer, "<bos>the cat", " sat") == encode_pair(tokenizer, "the cat", " sat")
    assert encode_pair(tokenizer, "", "<bos>the cat") == encode_pair(tokenizer, "", "the cat")


@pytest.mark.parametrize(
    ("context", "continuation", "ids", "start"),
    [
        ("a", "c", [0, 2], 1),
        ("b", "c", [4], 0),  # swallowed: the token that did it is the target
        ("a", "bc", [3, 2], 1),  # "ab" is a token: the first of the whole text's stands for the context's one
        ("ab", "cbc", [3, 2, 4], 1),
        ("", "abc", [3, 2], 0),
    ],
)
def test_the_rule_by_hand(context: str, continuation: str, ids: list[int], start: int) -> None:
    # a 0, b 1, c 2, ab 3, bc 4; "ab" merges before "bc"
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}
    bpe = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("b", "c")]))
    assert encode_pair(PreTrainedTokenizerFast(tokenizer_object=bpe), context, continuation) == (ids, start)
