"""WSC of SuperGLUE as InstructGPT asks it: a free answer that is matched with the noun in question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from alignbench.metrics.squad import squad_normalize


def with_nouns(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with passage (the pronoun between asterisks), pronoun, candidate, refers (whether the
    pronoun means the candidate) and noun: what it means, by this row or another one on the same passage; ""
    where no row says.

    Raises:
        ValueError: the pronoun does not stand in the passage.
    """
    found = [dict(_fields(row)) for row in rows]
    nouns = {row["passage"]: row["candidate"] for row in found if row["refers"]}
    return [{**row, "noun": nouns.get(row["passage"], "")} for row in found]


def matches(fields: Mapping[str, Any], output: str) -> dict[str, float]:
    """Return accuracy: 1 if the output says rightly whether the pronoun means the candidate, else 0.

    It says that it does if it contains the candidate or is contained in it, without case, punctuation and
    articles. An empty output says nothing: ``unparsed``.
    """
    said, candidate = squad_normalize(output), squad_normalize(fields["candidate"])
    if not said:
        return {"accuracy": 0.0, "unparsed": 1.0}
    agrees = f" {candidate} " in f" {said} " or f" {said} " in f" {candidate} "
    return {"accuracy": float(agrees == fields["refers"])}


def _fields(row: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    words, pronoun, index = row["text"].split(), row["span2_text"], int(row["span2_index"])
    alike = [i for i, word in enumerate(words) if squad_normalize(word) == squad_normalize(pronoun)]
    if not alike:
        raise ValueError(f"row {row['idx']} has no word {pronoun!r}")
    at = min(alike, key=lambda i: abs(i - index))  # some rows count punctuation as words
    begin = words[at].lower().index(pronoun.lower())
    end = begin + len(pronoun)
    words[at] = f"{words[at][:begin]}*{words[at][begin:end]}*{words[at][end:]}"
    yield "idx", row["idx"]
    yield "passage", " ".join(words)
    yield "pronoun", pronoun
    yield "candidate", row["span1_text"]
    yield "refers", int(row["label"]) == 1
