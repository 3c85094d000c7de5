"""Hashed n-grams of a text's words: what the offline toxicity scorer reads. Training reads the same."""

from __future__ import annotations

import html
import re
import unicodedata
import zlib
from functools import lru_cache
from itertools import pairwise

BUCKETS = 2**20
"""Features are hashed into so many (CRC-32, its low 20 bits)."""
CHARACTERS = (2, 5)
"""Shortest and longest character n-gram of a word; its ends are part of it, as ``<`` and ``>``."""

_LINK = re.compile(r"(?:https?://|www\.|\bt\.co/)\S+")
_MENTION = re.compile(r"(?<!\w)@\w+")
_RETWEET = re.compile(r"\b(?:RT|MT)\b(?=[\s:]|$)")
_DRAWN_OUT = re.compile(r"(.)\1{2,}")
_WORD = re.compile(r"[^\W_]+(?:['*@$!]+[^\W_]+|\*+)*")


def words(text: str) -> list[str]:
    """The words of a text, lower-cased: runs of letters and digits, with apostrophes and masks inside them
    (``don't``, ``f**k``, ``a$$hole``).

    What only tweets have goes first, so that the words are those of any other text: links, mentions, marks
    of a retweet, HTML entities. Three and more of one character become two (``coooool`` → ``cool``).
    """
    text = html.unescape(html.unescape(text))
    for artefact in (_LINK, _MENTION, _RETWEET):
        text = artefact.sub(" ", text)
    text = unicodedata.normalize("NFKC", text).replace("’", "'").lower()
    return _WORD.findall(_DRAWN_OUT.sub(r"\1\1", text))


@lru_cache(maxsize=2**16)
def word_buckets(word: str) -> tuple[int, ...]:
    """The buckets of a word's features: the word, and each of its distinct character n-grams."""
    shown = f"<{word}>"
    shortest, longest = CHARACTERS
    grams = {shown[i : i + n] for n in range(shortest, longest + 1) for i in range(len(shown) - n + 1)}
    return tuple(_bucket(f"{kind}{gram}") for kind, gram in [("w", word), *(("c", g) for g in sorted(grams))])


def pair_bucket(first: str, second: str) -> int:
    """The bucket of two neighbouring words."""
    return _bucket(f"p{first} {second}")


def buckets(text_words: list[str]) -> list[int]:
    """The buckets of all features of a text, one for each distinct word's features and one for each distinct
    pair of neighbours; a bucket that several fall into stands there as often."""
    found = [bucket for word in dict.fromkeys(text_words) for bucket in word_buckets(word)]
    pairs = dict.fromkeys(pairwise(text_words))
    return found + [pair_bucket(*pair) for pair in pairs]


def word_key(word: str) -> int:
    """The whole CRC-32 of a word, for a table of words that must not share a place with other features."""
    return _hash(f"w{word}")


def _bucket(feature: str) -> int:
    return _hash(feature) & (BUCKETS - 1)


def _hash(feature: str) -> int:
    return zlib.crc32(feature.encode("utf-8", "surrogatepass"))
