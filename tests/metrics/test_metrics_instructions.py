"""Verifiable instructions: each check followed and not followed, by hand; IFEval's rows; what is refused."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.errors import UsageError
from alignbench.metrics.corpus import corpus_value, ratio
from alignbench.metrics.ifeval import IFEVAL
from alignbench.metrics.instruction_checks import split_sentences
from alignbench.metrics.instructions import CHECKS, check, follows, ifeval_instructions, instruction_scores

# name, parameters, outputs that follow, outputs that do not
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("words", {"at_least": 3}, ["one two three", "don't stop"], ["one two", "..."]),
    ("words", {"at_least": 2, "at_most": 3}, ["a b", "a, b; c"], ["a", "a b c d"]),
    ("sentences", {"at_most": 1}, ["One sentence.", "No mark"], ["One. Two."]),
    ("sentences", {"at_least": 2}, ["He left. She came!", "Why?\n\nBecause"], ["Dr. Smith met Mr. J. Doe."]),
    ("paragraphs", {"at_least": 2, "at_most": 2}, ["a\n\nb", "a\nb\n \nc"], ["a\nb", "a\n\nb\n\nc"]),
    (
        "paragraphs",
        {"at_least": 2, "separator": "***"},
        ["a\n***\nb", "***a***b***"],
        ["a\n\nb", "a*** ***b"],
    ),
    ("characters", {"at_most": 5}, ["12345", "  12345 "], ["123456"]),
    (
        "json_only",
        {},
        ['{"a": [1, 2]}', "```json\n[1]\n```", "```\n3\n```"],
        ["{a: 1}", 'Here: {"a": 1}', "[" * 9999],
    ),
    (
        "bullets",
        {"at_least": 2, "at_most": 2},
        ["* a\n* b", "Two:\n - a\n • b"],
        ["* a", "*a*\n**b**", "-a\n-b"],
    ),
    (
        "numbered_items",
        {"at_least": 2},
        ["1. a\n2. b", "1) a\n2) b\n3) c"],
        ["1. a\n3. b", "1. a", "2. a\n3. b"],
    ),
    ("headings", {"at_least": 1}, ["# Title\ntext", "a\n### Deep"], ["#tag", "a # b"]),
    (
        "sections",
        {"marker": "Section", "at_least": 2},
        ["Section 1: a\nSection 2: b"],
        ["Section one", "SECTION 1 SECTION 2"],
    ),
    ("highlights", {"at_least": 2}, ["*a* and **b c**", "*a*\n*b*"], ["*a* and **", "* a\n* b", "**a"]),
    ("title", {}, ["<<A title>>\ntext"], ["<A title>", "<<  >>", "<<>>"]),
    ("placeholders", {"at_least": 2}, ["Dear [name], of [address]"], ["[name]", "[] []"]),
    (
        "postscript",
        {"marker": "P.S."},
        ["Bye.\nP.S. Write!", "Bye. PS: write", "Bye. P. S. x"],
        ["Bye.", "P.P.S. x", "tips. x"],
    ),
    ("postscript", {"marker": "P.P.S"}, ["P.P.S. more"], ["P.S. more"]),
    ("quoted", {}, ['"all of it"', "“all of it”"], ['"some" of it', '"', "'single'"]),
    ("one_of", {"options": ["yes", "no"]}, ["yes", " no\n"], ["yes.", "Yes"]),
    ("holds_one_of", {"options": ["My answer is no."]}, ["Well. My answer is no."], ["My answer is: no."]),
    ("no_commas", {}, ["one; two"], ["one, two"]),
    ("upper_case", {}, ["ALL OF IT, 3 TIMES"], ["ALL of it", "123"]),
    ("lower_case", {}, ["all of it"], ["All of it", "123"]),
    (
        "english_upper_case",
        {},
        ["THE CAT IS ON THE MAT"],
        ["The cat is on THE mat", "LE CHAT EST DANS LA MAISON ET IL DORT"],
    ),
    ("english_lower_case", {}, ["the cat is on the mat"], ["le chat est dans la maison et il dort"]),
    ("capital_words", {"at_least": 2}, ["I SAW it", "WELL-KNOWN FACTS"], ["It is NASA", "P.S. it"]),
    (
        "two_responses",
        {},
        ["one ****** two", "******one******two"],
        ["one", "one ****** one", "a ****** b ****** c"],
    ),
    ("repeats_prompt", {"prompt": "Write a poem."}, ["write a poem. Roses"], ["Here: Write a poem. Roses"]),
    ("includes", {"keywords": ["mom", "Love"]}, ["My moms love it"], ["My mom"]),
    ("excludes", {"keywords": ["field"]}, ["Fields of gold"], ["In the FIELD."]),
    ("keyword_frequency", {"keyword": "war", "at_least": 2}, ["War and war", "warfare at war"], ["war"]),
    ("keyword_frequency", {"keyword": "war", "at_most": 0}, ["peace"], ["war"]),
    ("letter_frequency", {"letter": "#", "at_least": 2}, ["#a #b"], ["#a"]),
    ("letter_frequency", {"letter": "T", "at_most": 1}, ["it"], ["that"]),
    ("starts_with", {"phrase": "Dear all"}, ["dear all, hello", '"Dear all"'], ["Hello, dear all"]),
    ("ends_with", {"phrase": "the end."}, ["It is The End.", '"the end."'], ["The end", "the end. Bye"]),
    ("first_word", {"word": "yes"}, ["Yes, it is", '"Yes"'], ["Oh yes"]),
    ("last_word", {"word": "Goodbye"}, ["And so: goodbye!"], ["Goodbye then"]),
    (
        "paragraph_starts_with",
        {"paragraph": 2, "word": "then"},
        ["First.\n\nThen."],
        ["Then.", "Then.\n\nFirst."],
    ),
    (
        "paragraph_starts_with",
        {"paragraph": 1, "word": "a", "paragraphs": 2},
        ["a\n\nb"],
        ["a", "a\n\nb\n\nc"],
    ),
    ("language", {"code": "fr"}, ["Le chat est dans la maison."], ["The cat is in the house.", "123"]),
]


@pytest.mark.parametrize(("name", "parameters", "good", "bad"), CASES)
def test_checks(name: str, parameters: dict[str, Any], good: list[str], bad: list[str]) -> None:
    assert [output for output in good if not check(name, output, **parameters)] == []
    assert [output for output in bad if check(name, output, **parameters)] == []


def test_every_check_has_a_case() -> None:
    assert {name for name, *_ in CASES} == set(CHECKS)


@pytest.mark.parametrize(("name", "parameters", "good", "bad"), CASES)
def test_an_empty_output_follows_nothing(
    name: str, parameters: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    assert not check(name, " \n", **parameters)


@given(st.text(max_size=200))
def test_no_output_breaks_a_check(output: str) -> None:
    for name, parameters, *_ in CASES:
        assert check(name, output, **parameters) in {True, False}


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("One. Two! Three?", 3),
        ("Dr. Smith paid $3.50 to J. Doe at 5 p.m. today.", 1),
        ('She said "Go!" He went.', 2),
        ("Wait... what?", 2),
        ("A list:\n1. first thing\n2. second thing", 3),
        ("A title\n\nA sentence.", 2),
        ("我喜欢茶。你呢？", 2),
        ("... !", 0),
    ],
)
def test_sentences(text: str, n: int) -> None:
    assert len(split_sentences(text)) == n


# --- IFEval ------------------------------------------------------------------------------------------------

ROWS: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["cat"]}, "A cat", "A dog"),
    ("keywords:forbidden_words", {"forbidden_words": ["dog"]}, "A cat", "A dog"),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "at least"}, "cat cat", "cat"),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "less than"}, "cat", "cat cat"),
    (
        "keywords:letter_frequency",
        {"letter": "!", "let_frequency": 2, "let_relation": "at least"},
        "a!!",
        "a!",
    ),
    ("language:response_language", {"language": "kn"}, "ಹೌದು, ಇದು ಸತ್ಯ.", "Yes, it is true."),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "a b", "a b c"),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        "He left. She is.",
        "A",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "a\n\nThen b",
        "then\n\nb",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "[a]", "a"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "a\nP.S. b", "a"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "* a", "* a\n* b"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*a*", "a"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Day", "num_sections": 2},
        "Day 1 Day 2",
        "Day 1",
    ),
    ("detectable_format:json_format", {}, "{}", "a"),
    ("detectable_format:title", {}, "<<a>>", "a"),
    ("combination:two_responses", {}, "a ****** b", "a"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi"}, "Say hi. Hi!", "Hi!"),
    ("startend:end_checker", {"end_phrase": "Bye."}, "So: bye.", "Bye. So"),
    ("startend:quotation", {}, '"a"', "a"),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 1, "capital_relation": "at least"},
        "ABC",
        "abc",
    ),
    ("change_case:english_capital", {}, "THE CAT", "The cat"),
    ("change_case:english_lowercase", {}, "the cat", "The cat"),
    ("punctuation:no_comma", {}, "a b", "a, b"),
]


@pytest.mark.parametrize(("name", "kwargs", "good", "bad"), ROWS)
def test_ifevals_ids(name: str, kwargs: dict[str, Any], good: str, bad: str) -> None:
    assert check(name, good, **kwargs)
    assert not check(name, bad, **kwargs)
    # the hub's table has every key in every row, and makes floats of numbers with gaps
    padded = {key: None for _, other, *_ in ROWS for key in other}
    padded |= {key: float(value) if isinstance(value, int) else value for key, value in kwargs.items()}
    assert check(name, good, **padded)


def test_all_of_ifevals_ids_are_tried() -> None:
    assert {name for name, *_ in ROWS} == set(IFEVAL)
    assert len(IFEVAL) == 25


def test_a_row_of_the_data_set() -> None:
    row = json.loads(
        '{"key": 7, "prompt": "Praise tea in at least 4 words and no commas, highlighting one part.", '
        '"instruction_id_list": ["punctuation:no_comma", "detectable_format:number_highlighted_sections", '
        '"length_constraints:number_words"], '
        '"kwargs": [{}, {"num_highlights": 1}, {"relation": "at least", "num_words": 4}]}'
    )
    instructions = ifeval_instructions(row)
    assert follows("I do *love* tea", instructions) == [True, True, True]
    assert follows("I love tea, really", instructions) == [False, False, True]
    with pytest.raises(UsageError, match="row 7 is none of IFEval's"):
        ifeval_instructions({"key": 7, "instruction_id_list": ["a"], "kwargs": []})


# --- loose, and scores -------------------------------------------------------------------------------------


def test_loose_forgives_what_surrounds_the_answer() -> None:
    wanted = [("json_only", {}), ("no_commas", {})]
    output = 'Sure, here you are:\n{"a": 1}\nBye, friend'
    assert follows(output, wanted) == [False, False]
    assert follows(output, wanted, loose=True) == [True, True]
    assert follows('**"quoted"**', [("quoted", {})]) == [False]
    assert follows('**"quoted"**', [("quoted", {})], loose=True) == [True]
    assert follows("", wanted, loose=True) == follows("one line, only", [("no_commas", {})], loose=True) * 2


@given(st.text('ab*,\n "', max_size=60))
def test_what_is_followed_strictly_is_followed_loosely(output: str) -> None:
    instructions = [(name, parameters) for name, parameters, *_ in CASES]
    strict, loose = follows(output, instructions), follows(output, instructions, loose=True)
    assert all(two or not one for one, two in zip(strict, loose, strict=True))


def test_prompt_and_instruction_level_by_hand() -> None:
    two = [("no_commas", {}), ("words", {"at_least": 2})]
    first = instruction_scores("one, two", two)  # one of two, also loosely
    second = instruction_scores("one", [("no_commas", {})])
    third = instruction_scores("a, b\nc d", two)  # strictly one, loosely both
    assert first == {"prompt_strict": 0, "prompt_loose": 0, "n": 2, "followed_strict": 1, "followed_loose": 1}
    assert second["prompt_strict"] == 1.0
    assert (third["prompt_strict"], third["prompt_loose"]) == (0.0, 1.0)
    scores = [first, second, third]
    assert corpus_value([(s["followed_strict"], s["n"]) for s in scores], ratio) == pytest.approx(3 / 5)
    assert corpus_value([(s["followed_loose"], s["n"]) for s in scores], ratio) == pytest.approx(4 / 5)
    with pytest.raises(UsageError, match="no instruction to check"):
        instruction_scores("one", [])


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("word", {"at_least": 1}, "no instruction check is named 'word' (did you mean 'words'?)"),
        ("words", {"at_leest": 1}, "has no parameter 'at_leest' (did you mean 'at_least'?)"),
        ("no_commas", {"at_least": 1}, "it has none"),
        ("words", {"at_least": "three"}, "'at_least' is a whole number, not 'three'"),
        ("words", {"at_least": -1}, "'at_least' is a whole number, not -1"),
        ("words", {"at_least": True}, "a whole number, not True"),
        ("words", {}, "needs 'at_least' or 'at_most'"),
        ("words", {"at_least": 3, "at_most": 2}, "can never hold: at least 3, at most 2"),
        ("includes", {"keywords": "cat"}, "'keywords' is a list of texts, not 'cat'"),
        ("includes", {"keywords": []}, "a list of texts"),
        ("includes", {}, "needs 'keywords'"),
        ("language", {"code": "xx"}, "the language 'xx' is not known"),
        ("keywords:existance", {}, "did you mean 'keywords:existence'?"),
        ("length_constraints:number_words", {"num_words": 3}, "needs 'relation'"),
        (
            "length_constraints:number_words",
            {"num_words": 3, "relation": "about"},
            "'at least' or 'less than'",
        ),
        ("length_constraints:number_words", {"num_words": 0, "relation": "less than"}, "a number above 0"),
        ("punctuation:no_comma", {"num_words": 3}, "has no parameter 'num_words'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(name: str, parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as error:
        check(name, "some output", **parameters)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_long_run_of_brackets_is_read_at_once() -> None:
    start = time.perf_counter()
    assert not check("title", "<" * 60_000)  # once half a minute
    assert check("title", "<" * 60_000 + "a>>")
    assert time.perf_counter() - start < 5
