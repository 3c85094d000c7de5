"""The lower baseline: VADER's lexicon (Hutto and Gilbert 2014) alone, without its rules for negation, degree
and punctuation."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

LEXICON = "lexicons/vader_lexicon.txt.gz"
NORMALISER = 15
"""VADER's own constant in the compound score."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def read_lexicon(data: Path) -> dict[str, float]:
    """Entry → mean valence in −4…4."""
    with gzip.open(data / LEXICON, "rt", encoding="utf-8") as file:
        rows = [line.split("\t")[:2] for line in file if line.strip()]
    return {word: float(valence) for word, valence in rows}


def compound(lexicon: Mapping[str, float], text: str) -> float:
    """−s / √(s² + 15) for the sum s of valences: VADER's compound score, turned so that negative is high."""
    total = sum(_valences(lexicon, text))
    return -total / math.sqrt(total**2 + NORMALISER)


def worst_word(lexicon: Mapping[str, float], text: str) -> float:
    """The most negative word's valence, turned; 0 where none is negative."""
    return max([0.0, *(-valence for valence in _valences(lexicon, text))])


def negative_share(lexicon: Mapping[str, float], text: str) -> float:
    """The negative valences' sum a word of the text, turned."""
    negative = sum(-valence for valence in _valences(lexicon, text) if valence < 0)
    return negative / max(1, len(_WORD.findall(text)))


RULES: Mapping[str, Callable[[Mapping[str, float], str], float]] = {
    "compound": compound,
    "worst word": worst_word,
    "negative share": negative_share,
}


def _valences(lexicon: Mapping[str, float], text: str) -> list[float]:
    return [lexicon[word] for word in _WORD.findall(text.lower()) if word in lexicon]
