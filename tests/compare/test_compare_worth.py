"""What a judge is worth, word for word."""

from __future__ import annotations

from typing import Any

import pytest

from alignbench.compare.results import JudgeResult, Score
from alignbench.compare.worth import no_better_than_a_coin, rated, worth_in_words


def card(worth: str, mean: float | None = None, half: float = 0.06, **fields: Any) -> JudgeResult:
    score = None if mean is None else Score(mean, half / 2, (mean - half, mean + half), 232)
    return JudgeResult("rm-hh", "rm", "rm:runs/rm-hh", None, score, worth=worth, **fields)


def test_a_coin() -> None:
    judge = card("at_chance", 0.55, data="hh_rlhf", base="pocket")
    assert worth_in_words(judge) == (
        "Judge rm-hh (a reward model trained on hh_rlhf from pocket) picks the preferred response in 55.0 % "
        "[49.0, 61.0] of 232 held-out pairs of its own data: not distinguishable from a coin."
    )
    assert (
        no_better_than_a_coin([judge, card("below_chance", 0.4), card("above_chance", 0.7)]) == ["rm-hh"] * 2
    )


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        (0.53, "better than a coin, and barely"),
        (0.61, "right about three times in five"),
        (0.67, "right about two times in three"),
        (0.72, "right about seven times in ten"),
        (0.79, "right about four times in five"),
        (0.99, "nearly always right"),
    ],
)
def test_better_than_a_coin(mean: float, words: str) -> None:
    assert worth_in_words(card("above_chance", mean, half=0.01)).endswith(f"of its own data: {words}.")


def test_what_is_not_known_is_said() -> None:
    assert worth_in_words(card("unknown")) == (
        "Judge rm-hh (a reward model) has no held-out accuracy on record, so what its word is worth is not "
        "known."
    )
    assert worth_in_words(card("below_chance", 0.3)).endswith("worse than a coin.")
    gold = JudgeResult("gold", "gold", "gold", None, note="the truth, not a proxy", worth="truth")
    assert worth_in_words(gold) == "Judge gold: the truth, not a proxy."


def test_texts_that_it_did_not_see_whole() -> None:
    judge = card("at_chance", 0.5, rated={"a": 252, "b": 252}, cut={"a": 8, "b": 0})
    assert worth_in_words(judge).endswith(
        "Texts longer than its context, of which it saw only the end: 8 of 252 of a."
    )


def test_a_policy_that_was_trained_against_it_is_named() -> None:
    judge = card("above_chance", 0.7, note="ppo optimised this reward: a proxy there, not a neutral judge")
    assert worth_in_words(judge).endswith(f"Note: {judge.note}.")


def test_its_verdicts_are_ratings() -> None:
    words = [rated("better"), rated("worse"), rated("equivalent"), rated("inconclusive")]
    assert words == ["rated higher", "rated lower", "equivalent", "inconclusive"]
