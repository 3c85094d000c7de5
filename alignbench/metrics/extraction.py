"""Answers found in free text: a number, a letter, yes or no.

A model may say more than its answer. These rules find what it says, or say that they found none: then the
answer is wrong by rule, and ``UNPARSED`` tells it from a wrong answer, so that its rate can be shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction


class Unparsed(float):
    """A wrong answer's 0, of an output in which no answer was found: ``isinstance(value, Unparsed)``."""


UNPARSED = Unparsed(0.0)
MAX_DIGITS = 400
"""A longer row of digits is a model that repeats itself, and no number."""

_STATED = re.compile(r"####|\\boxed\{|^[ \t]*a:|\banswer(?:\s+is|\s*:)", re.IGNORECASE | re.MULTILINE)
"""What announces a final answer: GSM8K's "####" and "A:", "the answer is", "Answer:", LaTeX's box."""
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)%])[-−–])?(?:[$€£¥]\s?(?P<inner>[-−])?)?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<decimals>(?(digits)(?:\.\d+)?|\.\d+))"
    r"(?:e(?P<power>[+-]?\d{1,3})(?!\w))?(?:/(?P<under>\d+)(?![\d/]))?",
    re.IGNORECASE,
)
_LETTER = r"\(?\*{0,2}(?P<letter>[A-J])\*{0,2}(?![\w'’])\)?"
_CUE = (
    r"(?:answer|option|choice)\b(?:\s+(?:is|would\s+be|should\s+be))?[\s:]*(?:option\s+|choice\s+)?"
    r"|\b(?:choose|pick|select|say|think|guess|go\s+with|it\s+is|it's|it’s)\s+"
    r"(?:it\s+is\s+|it's\s+)?(?:option\s+)?"
    r"|\\boxed\{(?:\\text\{)?"
)
_STATED_LETTER = re.compile(rf"(?i:{_CUE}){_LETTER}")
_IS_RIGHT = re.compile(rf"{_LETTER}\s+(?i:is\s+(?:the\s+)?(?:correct|right|best|answer|true))")
_FIRST_LETTER = re.compile(r"\s*\(?\*{0,2}(?P<letter>[A-Ja-j])\*{0,2}(?P<end>[).:,]|\s*$|\s*\n|\s+\w)")
_IN_BRACKETS = re.compile(r"\((?P<letter>[A-Ja-j])\)")
_ARTICLE = re.compile(r"\s+(?!(?:because|since|as|and|or|but|which|for|if|is)\b)[a-z]")
"""Behind a bare A or I that is no choice: the next word of a sentence."""
_OR_ANOTHER = re.compile(r"\s*(?:,|/|or|and|&)\s*\(?(?:[A-J]\b|both)")
_YES_NO = r"(?P<word>yes|no)\b"
_STATED_YES_NO = re.compile(
    rf"\banswer(?:\s+is\s*:?|\s*:)\s*[\"'“*(]*{_YES_NO}(?!\s+(?:longer|more|one))", re.IGNORECASE
)
_WHOLE_YES_NO = re.compile(rf"[\"'“*(\s]*{_YES_NO}[\"'”*).!\s]*", re.IGNORECASE)
_FIRST_YES_NO = re.compile(rf"[\"'“*(\s]*{_YES_NO}(?!\s+(?:longer|more|one|doubt|matter))", re.IGNORECASE)


def extract_number(text: str) -> Fraction | None:
    """The number that the text gives as its answer, by value; None where it has none.

    The first number after the last announcement ("####", a line's "A:", "the answer is", "Answer:",
    "\\\\boxed{"); without an announcement, or without a number after it, the last number of the text.

    Read are 1,234 (thousands only: "1,2" is two numbers), .5 and 3.50, −3 and -$3, 2e3, 3/4. Units, currency
    and percent signs are left out: 50% is 50. A hyphen behind a word or number is no sign: 10-5 is 10, then
    5. A decimal comma is not read.
    """
    stated = [mark.end() for mark in _STATED.finditer(text)]
    after = next(_numbers(text, stated[-1]), None) if stated else None
    if after is not None:
        return after
    return next(reversed(list(_numbers(text))), None)


def numeric_match(output: str, references: Sequence[str]) -> float | None:
    """1 if the output's number equals that of a reference in value, else 0; ``UNPARSED`` where it has none.

    References may be whole solutions, as GSM8K's are (Cobbe et al. 2021). None where none of them has a
    number.
    """
    wanted = {extract_number(text) for text in references} - {None}
    if not wanted:
        return None
    said = extract_number(output)
    return UNPARSED if said is None else float(said in wanted)


def extract_letter(text: str) -> str | None:
    """The choice A…J that the text names, or None where it names none or several. In this order:

    1. a statement: "the answer is (B)", "Answer: B", "option B", "I choose B", "B is correct",
       "\\\\boxed{B}". The last one counts, unless it names two ("A or B": None);
    2. the text begins with the letter: "B", "b)", "(B) because", "**B**"; "A dog" and "I think" do not;
    3. one letter in brackets anywhere; several different ones: None.
    """
    stated = [found for found in _STATED_LETTER.finditer(text) if not _is_a_word(found, text)]
    stated = sorted([*stated, *_IS_RIGHT.finditer(text)], key=lambda found: found.end("letter"))
    first = _FIRST_LETTER.match(text)
    found = stated[-1] if stated else first if first and _begins_with_a_letter(first) else None
    if found is not None:
        end = found.end("letter")
        two = _OR_ANOTHER.match(text, end + text[end:].startswith(")"))
        return None if two else found["letter"].upper()
    bracketed = {found["letter"].upper() for found in _IN_BRACKETS.finditer(text)}
    return bracketed.pop() if len(bracketed) == 1 else None


def letter_match(output: str, references: Sequence[str]) -> float | None:
    """1 if the output names the letter of a reference ("B", "(B)", "B. Paris"), else 0; ``UNPARSED`` where it
    names none, or several. None where no reference names one."""
    wanted = {extract_letter(text) for text in references} - {None}
    if not wanted:
        return None
    said = extract_letter(output)
    return UNPARSED if said is None else float(said in wanted)


def extract_yes_no(text: str) -> bool | None:
    """True for yes, False for no, None where the text says neither.

    "The answer is yes" counts first (the last one of several), then the first word, then a last sentence that
    is nothing but the word. "No longer", "no one" and the like are no answers.
    """
    stated = list(_STATED_YES_NO.finditer(text))
    found = stated[-1] if stated else _FIRST_YES_NO.match(text)
    if found is None:
        sentences = re.split(r"(?<=[.!?])\s+|\n+", text.strip())
        found = _WHOLE_YES_NO.fullmatch(sentences[-1])
    return None if found is None else found["word"].lower() == "yes"


def yes_no_match(output: str, references: Sequence[str]) -> float | None:
    """1 if the output says yes where a reference does, or no; else 0; ``UNPARSED`` where it says neither.
    None where no reference says either."""
    wanted = {extract_yes_no(text) for text in references} - {None}
    if not wanted:
        return None
    said = extract_yes_no(output)
    return UNPARSED if said is None else float(said in wanted)


def _numbers(text: str, start: int = 0) -> Iterator[Fraction]:
    for found in _NUMBER.finditer(text, start):
        digits, decimals = found["digits"] or "", found["decimals"] or ""
        if not 0 < len(digits) + len(decimals) <= MAX_DIGITS:
            continue
        value = Fraction((digits.replace(",", "") or "0") + decimals)
        if found["power"]:
            value *= Fraction(10) ** int(found["power"])
        if found["under"] and int(found["under"]):
            value /= int(found["under"])
        yield -value if found["sign"] or found["inner"] else value


def _is_a_word(found: re.Match[str], text: str) -> bool:
    """In "the answer is A dog" and "I think I know" an article or a pronoun stands where a letter could."""
    bare = text[found.start("letter") - 1] not in "(*{"
    return bare and found["letter"] in "AI" and _ARTICLE.match(text, found.end("letter")) is not None


def _begins_with_a_letter(found: re.Match[str]) -> bool:
    """Whether the text's first letter is an answer: punctuation or nothing follows, or it is no word."""
    end, letter = found["end"].strip(), found["letter"]
    return not end or end in ").:," or (letter.isupper() and letter not in "AI")
