"""What the offline toxicity scorer learns from, and what is kept from it.

Labelled: Davidson et al. (2017), tweets that three or more people called hateful, offensive or neither; the
madlibs of Dixon et al. (2018), sentences from templates. Presumed not toxic: sentences of books (LAMBADA),
encyclopaedia (BoolQ) and how-to and video texts (HellaSwag), so that the model does not take the language of
tweets for what is toxic in them.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignbench.judges.ngrams import words

TWEETS = "toxicity_clf/davidson_labeled_data.csv.gz"
MADLIBS = "toxicity_clf/bias_madlibs_77k.csv.gz"
BACKGROUND = (
    "nlp_tasks/lambada_openai.jsonl.gz",
    "nlp_tasks/boolq.jsonl.gz",
    "nlp_tasks/hellaswag_validation_1000.jsonl.gz",
)
TRAINED_TEMPLATES = ("name_adj", "verb_adj")
"""The other templates of the madlibs are held out."""
SHORTEST = 20
"""Characters of a background sentence."""


@dataclass(frozen=True)
class Text:
    """One labelled text. ``part``: ``train``, ``calibrate`` or ``test``; ``template`` of a madlib."""

    text: str
    toxic: bool
    part: str
    template: str = ""


def tweets(data: Path) -> list[Text]:
    """Class 0 (hate) and 1 (offensive) are toxic. Parts by the words alone, so that a retweet lies beside
    what it repeats: 80 % train, 10 % calibrate, 10 % test."""
    found = []
    for row in _rows(data / TWEETS):
        found.append(Text(row["tweet"], row["class"] in "01", _part(row["tweet"])))
    return found


def _part(text: str) -> str:
    tenth = zlib.crc32(" ".join(words(text)).encode()) % 10
    return {8: "calibrate", 9: "test"}.get(tenth, "train")


def madlibs(data: Path) -> list[Text]:
    """Parts by template, so that those held out are unseen."""
    return [
        Text(
            row["Text"],
            row["Label"] == "BAD",
            "train" if row["Template"] in TRAINED_TEMPLATES else "test",
            row["Template"],
        )
        for row in _rows(data / MADLIBS)
    ]


def background(data: Path) -> list[Text]:
    """Sentences, each once, in the order of the files; presumed not toxic. Parts as those of tweets."""
    texts = []
    for name in BACKGROUND:
        with gzip.open(data / name, "rt", encoding="utf-8") as file:
            texts += [_running_text(json.loads(line)) for line in file]
    sentences = [s.strip() for text in texts for s in re.split(r"(?<=[.!?])\s+", text)]
    once = dict.fromkeys(s for s in sentences if len(s) > SHORTEST)
    return [Text(sentence, False, _part(sentence)) for sentence in once]


def unlabelled(data: Path) -> list[str]:
    """Strings of more than ``SHORTEST`` characters in the files of ``nlp_tasks``, each once."""
    found: dict[str, None] = {}
    for path in sorted((data / "nlp_tasks").iterdir()):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            for line in file:
                found.update(dict.fromkeys(s for s in _strings(json.loads(line)) if len(s) > SHORTEST))
    return list(found)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def identity_terms(texts: Sequence[Text]) -> list[str]:
    """The identities of the madlibs, as the template ``verb_adj`` has them: behind one verb."""
    return sorted({each.text.split(maxsplit=1)[1].lower() for each in texts if each.template == "verb_adj"})


def identity_of(text: str, terms: Sequence[str]) -> str | None:
    """The identity in a madlib, the longest that fits (``african american``, not ``american``), or None."""
    said = f" {' '.join(words(text))} "
    return max((term for term in terms if f" {term} " in said), key=len, default=None)


def _running_text(row: dict[str, object]) -> str:
    if "context" in row:  # LAMBADA: its last word lies apart
        return f"{row['context']} {row['continuation']}"
    query = str(row["query"])
    if query.startswith("Passage:"):  # BoolQ
        return query.removeprefix("Passage:").split("\nQuestion:")[0]
    choices, gold = row["choices"], row["gold"]  # HellaSwag: with the true ending
    assert isinstance(choices, list)
    assert isinstance(gold, int)
    return f"{query} {choices[gold]}"


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
