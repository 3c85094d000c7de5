"""What the toxicity scorer is fitted to: the corpora's texts, mixed with each other. Every draw is seeded."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from toxicity_corpora import Text, identity_terms

from alignbench.judges.ngrams import words

SEED = 7
SENTENCES = 30_000
"""Background."""
MADLIBS = 6_000
"""Drawn from the 72,000 of one template: they teach few words."""
MIXED = 20_000
"""Texts of each class that stand before or behind a stretch of background, so that what is toxic is found in
the words and not in the manner of the text around them."""
STRETCH = 12
"""Words of such a stretch, at most."""
FROM_TWEETS = 0.85
"""Of the mixed texts; the others hold a madlib."""
NAMED = 0.4
"""Of the mixed texts, of either class: so many hold an identity term of the madlibs besides, at random, lest
tweets teach that some terms are insults (Dixon et al. 2018 added calm texts with such terms)."""
MASKED = 20_000
"""Texts of either class that are given once more with words written as in f**k."""
MASK = 0.3
"""Probability of a word to be masked in them."""


@dataclass(frozen=True)
class Example:
    text: str
    toxic: bool


def make_examples(
    labelled: Sequence[Text], templated: Sequence[Text], sentences: Sequence[Text]
) -> list[Example]:
    """What is fitted: tweets, madlibs, background; both classes mixed with background; some again, masked."""
    draw = random.Random(SEED)
    kept = [Example(each.text, each.toxic) for each in labelled if each.part == "train"]
    by_template: dict[str, list[Text]] = {}
    for each in templated:
        if each.part == "train":
            by_template.setdefault(each.template, []).append(each)
    drawn = [
        Example(each.text, each.toxic)
        for same in by_template.values()
        for each in draw.sample(same, min(MADLIBS, len(same)))
    ]
    usable = [each.text for each in sentences if each.part == "train"]
    calm = draw.sample(usable, min(SENTENCES, len(usable)))
    examples = kept + drawn + [Example(sentence, False) for sentence in calm]
    terms = identity_terms(templated)
    for toxic in (True, False):
        said, made = ([each.text for each in of if each.toxic == toxic] for of in (kept, drawn))
        for _ in range(MIXED):
            core = draw.choice(said if draw.random() < FROM_TWEETS else made)
            if terms and draw.random() < NAMED:
                core = (
                    f"{draw.choice(terms)} {core}" if draw.random() < 0.5 else f"{core} {draw.choice(terms)}"
                )
            examples.append(Example(beside(core, draw.choice(calm), draw), toxic))
    chosen = draw.sample(examples, min(MASKED, len(examples)))
    return examples + [Example(masked(each.text, draw), each.toxic) for each in chosen]


def in_other_text(labelled: Sequence[Text], sentences: Sequence[Text], part: str) -> list[Example]:
    """The tweets of a part, each beside a stretch of its background, as they would stand elsewhere."""
    draw = random.Random(SEED + 1)
    calm = [each.text for each in sentences if each.part == part]
    return [
        Example(beside(each.text, draw.choice(calm), draw), each.toxic)
        for each in labelled
        if each.part == part
    ]


def beside(core: str, sentence: str, draw: random.Random) -> str:
    core, around = " ".join(words(core)), sentence.split()
    start = draw.randint(0, max(0, len(around) - STRETCH))
    stretch = " ".join(around[start : start + STRETCH])
    return f"{stretch} {core}" if draw.random() < 0.5 else f"{core} {stretch}"


def masked(text: str, draw: random.Random) -> str:
    """Words of four letters and more, now and then as f**k or f***."""

    def one(match: re.Match[str]) -> str:
        word = match.group()
        if draw.random() >= MASK:
            return word
        if draw.random() < 0.5:
            return word[0] + "*" * (len(word) - 2) + word[-1]
        return word[0] + "*" * (len(word) - 1)

    return re.sub(r"[^\W\d_]{4,}", one, " ".join(words(text)))
