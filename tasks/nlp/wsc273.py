"""Winograd's schemas with partial scoring: how likely is what follows the noun put for the pronoun?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alignbench.metrics.choices import accuracy

POSSESSIVES = ("my", "his", "her", "our", "their", "its")
ALIKE = 0.6
"""Share of words from which on a sentence is another version of the one before it."""


def schemas(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return heads (the text up to and with each candidate), rest (what follows, with its space), label
    (index of the right candidate) and schema, a number that the versions of one schema share; they stand one
    after the other.

    Rows are either {context_options, continuation, gold}, put together already, or the hub's {text, pronoun,
    pronoun_loc, options, label}.

    Raises:
        KeyError: the row has neither layout's columns.
    """
    found: list[dict[str, Any]] = []
    for row in rows:
        heads, rest, label = _parts(row)
        words = _words(heads[0] + rest)
        before = found[-1] if found else None
        twin = before is not None and _share(words, before["words"]) >= ALIKE
        schema = before["schema"] + (not twin) if before is not None else 0
        found.append({"heads": heads, "rest": rest, "label": label, "schema": schema, "words": words})
    return [{key: value for key, value in each.items() if key != "words"} for each in found]


def partial(fields: Mapping[str, Any], logprobs: Sequence[float]) -> dict[str, float | None]:
    """Accuracy by partial and by full scoring (Trinh and Le 2018, section 3.1).

    Args:
        logprobs: of the text with each candidate, then of the text up to and with each candidate (nats). The
            difference is that of the rest given what stands before it.
    """
    n = len(logprobs) // 2
    whole, heads = logprobs[:n], logprobs[n:]
    rests = [all_of - head for all_of, head in zip(whole, heads, strict=True)]
    label = [fields["label"]]
    return {"accuracy": accuracy(rests, label), "accuracy_full": accuracy(whole, label)}


def _parts(row: Mapping[str, Any]) -> tuple[list[str], str, int]:
    if "context_options" in row:
        return list(row["context_options"]), _spaced(row["continuation"]), int(row["gold"])
    text, pronoun, at = row["text"], row["pronoun"], int(row["pronoun_loc"])
    before, rest = text[:at], _spaced(text[at + len(pronoun) :])
    heads = [before + _fitted(option, before, pronoun) for option in row["options"]]
    return heads, rest, int(row["label"])


def _spaced(rest: str) -> str:
    """With a space before a word, with none before punctuation."""
    rest = rest.strip()
    return rest if rest[:1] in tuple(".,;:!?") else f" {rest}"


def _fitted(option: str, before: str, pronoun: str) -> str:
    """A candidate as it stands in the sentence: no capital article inside it, 's for a possessive."""
    begins = not before.strip() or before.strip()[-1] in ".!?"
    first, _, others = option.partition(" ")
    if not begins and first.lower() in ("the", "a", "an", *POSSESSIVES):
        option = f"{first.lower()} {others}".strip()
    return option + ("'s" if pronoun.lower() in POSSESSIVES else "")


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w']+", text.lower()))


def _share(some: set[str], others: set[str]) -> float:
    return len(some & others) / max(len(some), len(others))
