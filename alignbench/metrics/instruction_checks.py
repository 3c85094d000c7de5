"""Instructions that a program can verify: one function each, from an output to whether it follows it.

The idea is that of IFEval (Zhou et al. 2023); the checks are our own. ``at_least`` and ``at_most`` are
inclusive, one of them may be left out; both equal is "exactly". An output is stripped of white space at its
ends before it gets here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from alignbench.metrics.languages import detect_language

# --- length --------------------------------------------------------------------------------------------


def words(output: str, at_least: int | None = None, at_most: int | None = None) -> bool:
    """So many words: unbroken runs of letters, digits and underscores ("don't" is two, as IFEval counts)."""
    return _within(len(re.findall(r"\w+", output)), at_least, at_most)


def sentences(output: str, at_least: int | None = None, at_most: int | None = None) -> bool:
    """So many sentences, by ``split_sentences``."""
    return _within(len(split_sentences(output)), at_least, at_most)


def paragraphs(
    output: str, at_least: int | None = None, at_most: int | None = None, separator: str = "blank line"
) -> bool:
    """So many paragraphs, parted by a "blank line" or by the ``separator`` (``***``); an empty one breaks
    it."""
    parts = _paragraphs(output, separator)
    return all(parts) and _within(len(parts), at_least, at_most)


def characters(output: str, at_least: int | None = None, at_most: int | None = None) -> bool:
    """So many characters, spaces and line breaks included."""
    return _within(len(output), at_least, at_most)


# --- format --------------------------------------------------------------------------------------------


def json_only(output: str) -> bool:
    """The whole output is one JSON value; a Markdown fence around it is allowed."""
    inner = re.sub(r"\A```(?:json)?\s*|\s*```\Z", "", output, flags=re.IGNORECASE)
    try:
        json.loads(inner)
    except (ValueError, RecursionError):
        return False
    return True


def bullets(output: str, at_least: int | None = None, at_most: int | None = None) -> bool:
    """So many bullet points: lines that begin with ``*``, ``-``, ``+`` or ``•`` and a space."""
    return _within(len(re.findall(r"^[ \t]*[*+•-][ \t]+\S", output, re.MULTILINE)), at_least, at_most)


def numbered_items(output: str, at_least: int | None = None, at_most: int | None = None) -> bool:
    """A numbered list of so many items: lines that begin with ``1.`` or ``1)``, ``2.``, … in order from 1."""
    numbers = [int(n) for n in re.findall(r"^[ \t]*(\d{1,4})[.)][ \t]+\S", output, re.MULTILINE)]
    return numbers == list(range(1, len(numbers) + 1)) and _within(len(numbers), at_least, at_most)


def headings(output: str, at_least: int | None = None, at_most: int | None = None) -> bool:
    """So many Markdown headings: lines that begin with one to six ``#`` and a space."""
    return _within(len(re.findall(r"^#{1,6}[ \t]+\S", output, re.MULTILINE)), at_least, at_most)


def sections(output: str, marker: str, at_least: int | None = None, at_most: int | None = None) -> bool:
    """So many sections, each announced by the marker and a number: "Section 1"."""
    return _within(len(re.findall(rf"(?<!\w){re.escape(marker)}\s?\d+", output)), at_least, at_most)


def highlights(output: str, at_least: int | None = None, at_most: int | None = None) -> bool:
    """So many passages marked with asterisks: ``*like this*`` or ``**like this**``, within a line."""
    found = re.findall(r"\*\*([^*\n]+)\*\*|\*([^*\n]+)\*", output)
    return _within(sum(bool((one or two).strip()) for one, two in found), at_least, at_most)


def title(output: str) -> bool:
    """A title in double angular brackets: ``<<title>>``."""
    for line in output.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end and line[start:end].strip("<> \t"):
            return True
    return False


def placeholders(output: str, at_least: int | None = None, at_most: int | None = None) -> bool:
    """So many placeholders in square brackets: ``[address]``."""
    return _within(len(re.findall(r"\[[^\[\]\n]+\]", output)), at_least, at_most)


def postscript(output: str, marker: str = "P.S.") -> bool:
    """A postscript: the marker (its letters with or without points and spaces between) and something behind
    it."""
    letters = [re.escape(letter) for letter in marker if letter.isalnum()]
    return (
        re.search(r"(?<![\w.])" + r"\.?\s?".join(letters) + r"\b[.:]*\s*\S", output, re.IGNORECASE)
        is not None
    )


def quoted(output: str) -> bool:
    """The whole output stands in double quotation marks, straight or curly."""
    return len(output) > 1 and output[0] in '"“' and output[-1] in '"”'


def one_of(output: str, options: Sequence[str]) -> bool:
    """The output is one of the options and nothing else."""
    return output in {option.strip() for option in options}


def holds_one_of(output: str, options: Sequence[str]) -> bool:
    """One of the options stands in the output, word for word."""
    return any(option in output for option in options)


def no_commas(output: str) -> bool:
    """No comma (``,``) anywhere."""
    return "," not in output


def upper_case(output: str) -> bool:
    """Capital letters only, of which there is one at least."""
    return output.isupper()


def lower_case(output: str) -> bool:
    """Small letters only, of which there is one at least."""
    return output.islower()


def english_upper_case(output: str) -> bool:
    """English in capital letters only."""
    return output.isupper() and detect_language(output) in {"en", None}


def english_lower_case(output: str) -> bool:
    """English in small letters only."""
    return output.islower() and detect_language(output) in {"en", None}


def capital_words(output: str, at_least: int | None = None, at_most: int | None = None) -> bool:
    """So many words of capital letters only; "I" and "A" are some, "WELL-KNOWN" and "P.S." are one each."""
    found = re.findall(r"\w+(?:[-'’.]\w+)*", output)
    return _within(sum(word.isupper() for word in found), at_least, at_most)


def two_responses(output: str, separator: str = "******") -> bool:
    """Exactly two answers, not empty and not the same, parted by the separator."""
    parts = [part.strip() for part in output.split(separator)]
    filled = [part for part in parts if part]
    # an empty part at either end is only a separator too many
    return len(filled) == 2 and filled[0] != filled[1] and all(parts[1:-1])


def repeats_prompt(output: str, prompt: str) -> bool:
    """The output begins with the prompt, word for word; case is free."""
    return output.lower().startswith(prompt.strip().lower())


# --- keywords --------------------------------------------------------------------------------------------


def includes(output: str, keywords: Sequence[str]) -> bool:
    """Every keyword occurs; case is free, and it may be part of a longer word ("mom" in "moms")."""
    return all(keyword.lower() in output.lower() for keyword in keywords)


def excludes(output: str, keywords: Sequence[str]) -> bool:
    """No keyword occurs as a whole word; case is free."""
    return not any(
        re.search(rf"(?<!\w){re.escape(keyword)}(?!\w)", output, re.IGNORECASE) for keyword in keywords
    )


def keyword_frequency(
    output: str, keyword: str, at_least: int | None = None, at_most: int | None = None
) -> bool:
    """The keyword occurs so often; counted as in ``includes``."""
    return _within(output.lower().count(keyword.lower()), at_least, at_most)


def letter_frequency(
    output: str, letter: str, at_least: int | None = None, at_most: int | None = None
) -> bool:
    """One letter or sign occurs so often; case is free."""
    return _within(output.lower().count(letter.lower()), at_least, at_most)


def starts_with(output: str, phrase: str) -> bool:
    """The output begins with the phrase; case is free, and a quotation mark may stand before it."""
    return output.lstrip('"“').lstrip().lower().startswith(phrase.strip().lower())


def ends_with(output: str, phrase: str) -> bool:
    """The output ends with the phrase; case is free, and a quotation mark may stand behind it."""
    return output.rstrip('"”').rstrip().lower().endswith(phrase.strip().strip('"').lower())


def first_word(output: str, word: str) -> bool:
    """The first word of the output, without punctuation; case is free."""
    found = re.findall(r"\w+(?:[-'’]\w+)*", output)
    return bool(found) and found[0].lower() == word.strip().lower()


def last_word(output: str, word: str) -> bool:
    """The last word of the output, without punctuation; case is free."""
    found = re.findall(r"\w+(?:[-'’]\w+)*", output)
    return bool(found) and found[-1].lower() == word.strip().lower()


def paragraph_starts_with(output: str, paragraph: int, word: str, paragraphs: int | None = None) -> bool:
    """The given paragraph (from 1; parted by blank lines) begins with the word, and there are so many."""
    parts = [part for part in re.split(r"\n\n", output) if part.strip()]
    if not 1 <= paragraph <= len(parts) or paragraphs not in {None, len(parts)}:
        return False
    return first_word(parts[paragraph - 1], word)


# --- language --------------------------------------------------------------------------------------------


def language(output: str, code: str) -> bool:
    """The output is in the language of this ISO 639-1 code, as far as ``detect_language`` can tell."""
    return detect_language(output) == code.strip().lower()


_ABBREVIATIONS = (
    r"(?<!\b[A-Z]\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bMrs\.)(?<!\bProf\.)(?<!\bvs\.)(?<!\be\.g\.)"
    r"(?<!\bi\.e\.)(?<!\bJr\.)(?<!\bSr\.)(?<!\bInc\.)(?<!\bLtd\.)"
)
_SENTENCE_END = re.compile(
    rf"(?<=[.!?…।؟۔])[\"'”’)\]*]*{_ABBREVIATIONS}(?!(?<=[ap]\.m\.)\s+[a-z])\s+"  # a mark and what closes
    r"|(?<=[。！？])\s*"  # scripts without white space
    r"|\n\s*\n+|\n(?=[ \t]*(?:[*+•-]|\d+[.)])\s)"  # a new paragraph, a new item of a list
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text: up to ``.``, ``!``, ``?`` or ``…`` (or their like in other scripts), closing
    marks included, before white space or the end; a line break between paragraphs ends one too. Common
    abbreviations and single capitals end none; a list's number alone is none."""
    parts = _SENTENCE_END.split(text)
    return [part.strip() for part in parts if re.search(r"[^\W\d_]", part)]


def _paragraphs(output: str, separator: str) -> list[str]:
    pattern = r"\n[ \t]*\n+" if separator == "blank line" else rf"\s*{re.escape(separator)}\s*"
    parts = [part.strip() for part in re.split(pattern, output)]
    while parts and not parts[0]:
        parts = parts[1:]
    while parts and not parts[-1]:
        parts = parts[:-1]
    return parts


def _within(n: int, at_least: int | None, at_most: int | None) -> bool:
    return (at_least is None or n >= at_least) and (at_most is None or n <= at_most)
