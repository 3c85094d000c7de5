"""SQuAD 1.1, 2.0 and QuAC by hand, after the rules of their official scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.metrics.squad import (
    quac_f1,
    quac_human_f1,
    says_no_answer,
    squad_em,
    squad_f1,
    squad_normalize,
)

WORDS = st.lists(st.sampled_from(["one", "two", "three", "the", "Four", "five.", "six"]), max_size=6).map(
    " ".join
)


def test_normalisation_drops_ascii_punctuation_only() -> None:
    assert squad_normalize("The U.S.A.'s  answer, An apple!") == "usas answer apple"
    assert squad_normalize("“quoted”") == "“quoted”"


def test_exact_match_and_f1_by_hand() -> None:
    assert squad_em("the Eiffel Tower.", ["Paris", "Eiffel Tower"]) == 1.0
    # said: in, eiffel, tower (3); wanted: eiffel, tower (2); shared 2 → 2·2/5
    assert squad_em("in the Eiffel Tower", ["Eiffel Tower"]) == 0.0
    assert squad_f1("in the Eiffel Tower", ["Eiffel Tower", "Paris"]) == pytest.approx(0.8)
    assert squad_f1("Rome", ["Paris"]) == 0.0
    assert squad_f1("ha ha ha", ["ha ha"]) == pytest.approx(0.8)  # words count as often as they stand there


@pytest.mark.parametrize("metric", [squad_em, squad_f1])
@pytest.mark.parametrize("output", ["", " . ", "unanswerable", "Not in background.", "the"])
def test_no_answer_is_right_where_there_is_none_and_only_there(metric, output: str) -> None:  # type: ignore[no-untyped-def]
    assert metric(output, []) == 1.0
    assert metric(output, ["", "The"]) == 1.0  # references without a word are none
    assert metric(output, ["Paris"]) == 0.0


@pytest.mark.parametrize("metric", [squad_em, squad_f1])
def test_an_answer_is_wrong_where_there_is_none(metric) -> None:  # type: ignore[no-untyped-def]
    assert metric("Paris", []) == 0.0
    assert metric("It is unanswerable, I think", []) == 0.0  # the whole output has to say it


def test_what_says_no_answer_can_be_set_and_be_an_answer() -> None:
    assert squad_em("unanswerable", [], no_answer=()) == 0.0
    assert squad_em("keine Angabe", [], no_answer=("Keine Angabe.",)) == 1.0
    assert squad_em("No answer", ["no answer"]) == 1.0
    assert says_no_answer("Unanswerable.")
    assert not says_no_answer("Paris")


@given(WORDS, st.lists(WORDS, max_size=3))
def test_f1_is_1_where_exact_match_is_and_never_below_it(output: str, references: list[str]) -> None:
    em, f1 = squad_em(output, references), squad_f1(output, references)
    assert 0 <= em <= f1 <= 1
    assert em == 0 or f1 == 1


def test_quac_leaves_each_reference_out_in_turn() -> None:
    references = ["red car", "red", "blue"]
    # F1 of "red car": 1, 2/3, 0; the best without each: 2/3, 1, 1
    assert quac_f1("red car", references) == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert quac_f1("red car", ["red"]) == pytest.approx(2 / 3)
    # among people: red car ~ red 2/3, red ~ red car 2/3, blue 0
    assert quac_human_f1(references) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert quac_human_f1(["red"]) == 1.0
    assert quac_human_f1(["the", "the", "red"]) == 0.0  # nothing but an article agrees with nothing, as there


def test_quac_votes_on_whether_there_is_an_answer() -> None:
    none, tied, few = ["CANNOTANSWER"], ["CANNOTANSWER", "red"], ["CANNOTANSWER", "red", "red car"]
    assert quac_f1("I don't know.", none) == quac_f1("CANNOTANSWER", tied) == 1.0
    assert quac_f1("red", tied) == 0.0
    assert quac_f1("red", few) == pytest.approx((2 / 3 + 1) / 2)
    assert quac_f1("I don't know.", few) == 0.0
    assert quac_f1("", none) == 0.0  # nothing said is no answer
    assert quac_f1("red", []) is None
    assert quac_human_f1([]) is None


def test_quac_a_reference_that_sounds_like_no_answer() -> None:
    assert quac_f1("I don't know", ["I don't know"]) == 1.0
