"""IFEval's instruction ids, in the words of our own checks, so that its data set runs as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alignbench.errors import UsageError

Given = Mapping[str, Any]
ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""What the constrained response may say."""


def _bounds(relation: str, n: int) -> dict[str, int]:
    """``at least`` n, or ``less than`` n."""
    if relation == "at least":
        return {"at_least": n}
    if relation == "less than" and n > 0:
        return {"at_most": n - 1}
    raise UsageError(f"a relation is 'at least' or 'less than' with a number above 0, not {relation!r} {n}")


def _plain(name: str, **renamed: str) -> Callable[[Given], tuple[str, dict[str, Any]]]:
    """The check ``name``, its parameters ``renamed`` (ours = theirs)."""
    return lambda given: (name, {ours: given[theirs] for ours, theirs in renamed.items()})


def _compared(
    name: str, relation: str, number: str, **renamed: str
) -> Callable[[Given], tuple[str, dict[str, Any]]]:
    """The check ``name`` with the bound that the parameters ``relation`` and ``number`` give."""
    return lambda given: (
        name,
        {
            **{ours: given[theirs] for ours, theirs in renamed.items()},
            **_bounds(given[relation], given[number]),
        },
    )


def _exactly(name: str, number: str, **fixed: str) -> Callable[[Given], tuple[str, dict[str, Any]]]:
    return lambda given: (name, {**fixed, "at_least": given[number], "at_most": given[number]})


def _constrained(given: Given) -> tuple[str, dict[str, Any]]:
    return "holds_one_of", {"options": ANSWERS}


IFEVAL: Mapping[str, tuple[Mapping[str, str], Callable[[Given], tuple[str, dict[str, Any]]]]] = {
    "keywords:existence": ({"keywords": "Sequence[str]"}, _plain("includes", keywords="keywords")),
    "keywords:forbidden_words": (
        {"forbidden_words": "Sequence[str]"},
        _plain("excludes", keywords="forbidden_words"),
    ),
    "keywords:frequency": (
        {"keyword": "str", "frequency": "int", "relation": "str"},
        _compared("keyword_frequency", "relation", "frequency", keyword="keyword"),
    ),
    "keywords:letter_frequency": (
        {"letter": "str", "let_frequency": "int", "let_relation": "str"},
        _compared("letter_frequency", "let_relation", "let_frequency", letter="letter"),
    ),
    "language:response_language": ({"language": "str"}, _plain("language", code="language")),
    "length_constraints:number_words": (
        {"num_words": "int", "relation": "str"},
        _compared("words", "relation", "num_words"),
    ),
    "length_constraints:number_sentences": (
        {"num_sentences": "int", "relation": "str"},
        _compared("sentences", "relation", "num_sentences"),
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": "int"},
        _exactly("paragraphs", "num_paragraphs", separator="***"),
    ),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": "int", "nth_paragraph": "int", "first_word": "str"},
        _plain(
            "paragraph_starts_with",
            paragraph="nth_paragraph",
            word="first_word",
            paragraphs="num_paragraphs",
        ),
    ),
    "detectable_content:number_placeholders": (
        {"num_placeholders": "int"},
        _plain("placeholders", at_least="num_placeholders"),
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "str"},
        _plain("postscript", marker="postscript_marker"),
    ),
    "detectable_format:number_bullet_lists": ({"num_bullets": "int"}, _exactly("bullets", "num_bullets")),
    "detectable_format:constrained_response": ({}, _constrained),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": "int"},
        _plain("highlights", at_least="num_highlights"),
    ),
    "detectable_format:multiple_sections": (
        {"section_spliter": "str", "num_sections": "int"},
        _plain("sections", marker="section_spliter", at_least="num_sections"),
    ),
    "detectable_format:json_format": ({}, _plain("json_only")),
    "detectable_format:title": ({}, _plain("title")),
    "combination:two_responses": ({}, _plain("two_responses")),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "str"},
        _plain("repeats_prompt", prompt="prompt_to_repeat"),
    ),
    "startend:end_checker": ({"end_phrase": "str"}, _plain("ends_with", phrase="end_phrase")),
    "startend:quotation": ({}, _plain("quoted")),
    "change_case:capital_word_frequency": (
        {"capital_frequency": "int", "capital_relation": "str"},
        _compared("capital_words", "capital_relation", "capital_frequency"),
    ),
    "change_case:english_capital": ({}, _plain("english_upper_case")),
    "change_case:english_lowercase": ({}, _plain("english_lower_case")),
    "punctuation:no_comma": ({}, _plain("no_commas")),
}
"""IFEval's id → the types of its parameters, and what turns them into (our check, its parameters)."""
