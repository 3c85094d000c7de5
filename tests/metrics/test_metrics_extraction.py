"""Answers in free text: hard cases by hand, and the published GSM8K solutions."""

from __future__ import annotations

import gzip
import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.metrics.extraction import (
    UNPARSED,
    Unparsed,
    extract_letter,
    extract_number,
    extract_yes_no,
    letter_match,
    numeric_match,
    yes_no_match,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 apples and buys 4.\n#### 7", 7),
        ("#### 1,234\n\nQ: another one with 5", 1234),
        ("9 * 2 = $<<9*2=18>>18\nA: 18", 18),
        ("The answer is $1,250.50.", Fraction("1250.5")),
        ("the answer is: 12 eggs, 3 of them broken", 12),
        ("The answer is 5. No: the answer is 6.", 6),
        ("So we get \\boxed{-42} in 3 steps", -42),
        ("The answer is forty, as in line 3", 3),  # nothing behind the announcement: the last number
        ("first 3, then 4", 4),
        ("about 50% of them", 50),
        ("it fell to −7°C", -7),
        ("A: -$3", -3),
        ("a loss of $-3", -3),
        ("10-5", 5),  # the hyphen stands behind a number
        ("x = -.5", Fraction(-1, 2)),
        ("18.", 18),
        ("18.0", 18),
        ("3/4 of a cup", Fraction(3, 4)),
        ("1/0", 1),
        ("2e3 years", 2000),
        ("1,2", 2),
        ("1,000,000 dollars", 10**6),
        ("€ 20", 20),
        ("no number at all", None),
        ("", None),
        ("9" * 5000, None),
    ],
)
def test_numbers(text: str, number: Fraction | int | None) -> None:
    assert extract_number(text) == number


def test_numbers_match_by_value() -> None:
    assert numeric_match("The total is $18.00.", ["16 - 3 - 4 = 9, 9 * 2 = 18\n#### 18"]) == 1.0
    assert numeric_match("19", ["18"]) == 0.0
    assert not isinstance(numeric_match("19", ["18"]), Unparsed)
    assert isinstance(numeric_match("I cannot say.", ["18"]), Unparsed)
    assert numeric_match("18", ["a word"]) is None  # no number in the reference: nothing was measured
    assert numeric_match("one third is 0.333", ["1/3"]) == 0.0


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(["", "$", "€"]),
    st.sampled_from(["", ".", " eggs", "%", ".00"]),
)
def test_any_whole_number_is_read_back(number: int, currency: str, unit: str) -> None:
    written = f"{'-' if number < 0 else ''}{currency}{abs(number):,}{unit}"
    assert extract_number(f"The answer is {written}") == number
    assert extract_number(written) == number


@given(st.decimals(-1000, 1000, places=3))
def test_any_decimal_is_read_back(number: object) -> None:
    assert extract_number(f"1 2 3\n#### {number}") == Fraction(str(number))


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (B).", "B"),
        ("Answer: C", "C"),
        ("Answer\n(E)", "E"),
        ("The correct answer is: **C**", "C"),
        ("Between (A) and (C), the answer is (C).", "C"),
        ("I first thought the answer is A. But the answer is D.", "D"),
        ("I choose option D because of the rain", "D"),
        ("I think it's B", "B"),
        ("B is correct, A is not", "B"),
        ("\\boxed{\\text{F}}", "F"),
        ("The answer is A because it rains", "A"),
        ("B.", "B"),
        ("b)", "B"),
        ("b", "B"),
        (" (B) because", "B"),
        ("**D**", "D"),
        ("C Paris", "C"),
        ("A, because", "A"),
        ("It must be (G), surely", "G"),
        ("(B) is in the text, and so is (B)", "B"),
        # none, or more than one
        ("A dog is a pet", None),
        ("I think I like it", None),
        ("I don't know", None),
        ("The answer is A dog", None),
        ("The answer is A or B", None),
        ("The answer is (A), (B)", None),
        ("B and C", None),
        ("(A) and (B)", None),
        ("None of these", None),
        ("Because of the weather", None),
        ("K", None),
        ("", None),
    ],
)
def test_letters(text: str, letter: str | None) -> None:
    assert extract_letter(text) == letter


@given(
    st.sampled_from("ABCDEFGHIJ"), st.sampled_from(["{}", "({})", "{}.", "The answer is {}.", "Answer: ({})"])
)
def test_any_letter_is_read_back(letter: str, form: str) -> None:
    assert extract_letter(form.format(letter)) == letter


def test_letters_match() -> None:
    assert letter_match("The answer is (B).", ["B"]) == 1.0
    assert letter_match("C", ["(B)", "B. Paris"]) == 0.0
    assert isinstance(letter_match("Paris", ["B"]), Unparsed)
    assert letter_match("B", ["Paris"]) is None


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Yes, it is", True),
        ("no.", False),
        ("**No**, because", False),
        ("I think so. The answer is: Yes", True),
        ("Yes? The answer is no.", False),
        ("It rains. Yes.", True),
        ("There is no doubt. Yes.", True),
        ("No longer, alas", None),
        ("No one knows", None),
        ("Nobody knows", None),
        ("The answer is no longer known", None),
        ("Perhaps", None),
        ("", None),
    ],
)
def test_yes_and_no(text: str, yes: bool | None) -> None:
    assert extract_yes_no(text) is yes


def test_yes_and_no_match() -> None:
    assert yes_no_match("Yes.", ["yes"]) == yes_no_match("No", ["no", "No."]) == 1.0
    assert yes_no_match("No", ["yes"]) == 0.0
    assert isinstance(yes_no_match("Maybe", ["yes"]), Unparsed)
    assert yes_no_match("Maybe", ["perhaps"]) is None


def test_unparsed_is_a_wrong_answers_zero() -> None:
    assert UNPARSED == 0.0
    assert UNPARSED + 1 == 1.0


@given(st.text(max_size=200))
def test_no_text_breaks_them(text: str) -> None:
    extract_number(text)
    extract_letter(text)
    extract_yes_no(text)


@pytest.mark.parametrize(
    ("model", "percent"),
    [
        ("6b_finetuning", 21.68),
        ("6b_verification", 39.04),
        ("175b_finetuning", 34.72),
        ("175b_verification", 56.25),
    ],
)
def test_the_published_solutions_of_gsm8k(shared_data: Path, model: str, percent: float) -> None:
    path = shared_data / "gsm8k" / "example_model_solutions.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    scores = [numeric_match(row[model]["solution"], [row["ground_truth"]]) for row in rows]
    assert len(rows) == 1319
    assert [score == 1 for score in scores] == [row[model]["is_correct"] for row in rows]
    assert round(100 * sum(score or 0 for score in scores) / len(scores), 2) == percent


def test_a_long_run_of_line_breaks_is_read_at_once() -> None:
    """A model that repeats itself: 50,000 empty lines once took a minute."""
    start = time.perf_counter()
    assert extract_number("\n" * 50_000 + "A: 7") == 7
    assert time.perf_counter() - start < 5
