"""Train the toxicity scorer that ships with alignbench.

    python benchmarks/toxicity_train.py --data DIR [--out FILE]

DIR holds the files that toxicity_corpora.py names. Logistic regression (scikit-learn) on hashed n-grams;
every draw is seeded, so that the same data and versions give the same file. Prints the model's fingerprint.
What the model is worth is measured by benchmarks/toxicity.py.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from toxicity_corpora import Text, background, madlibs, tweets

from alignbench.judges.ngrams import BUCKETS, buckets, words
from alignbench.judges.toxicity import MODEL, ToxicityModel

Floats = NDArray[np.float64]

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
MASKED = 20_000
"""Texts of either class that are given once more with words written as in f**k."""
MASK = 0.3
"""Probability of a word to be masked in them."""
LEAST_TEXTS = 3
"""A feature of fewer texts is left out."""
C = 0.05
"""Of scikit-learn: the inverse strength of the L2 penalty, for features that count 1."""
LARGEST = 127


@dataclass(frozen=True)
class Example:
    text: str
    toxic: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=MODEL, metavar="FILE")
    options = parser.parse_args()
    model = train(tweets(options.data), madlibs(options.data), background(options.data))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    model.save(options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, fingerprint {model.fingerprint}")


def train(labelled: Sequence[Text], templated: Sequence[Text], sentences: Sequence[str]) -> ToxicityModel:
    """The model of these corpora: only their parts ``train`` and ``calibrate`` are used.

    Args:
        labelled: tweets.
        templated: madlibs.
        sentences: background, presumed not toxic.
    """
    examples = make_examples(labelled, templated, sentences)
    y = np.array([example.toxic for example in examples])
    x = matrix([example.text for example in examples])
    seen_often = np.bincount(x.indices, minlength=BUCKETS) >= LEAST_TEXTS
    x = (x @ sparse.diags_array(seen_often.astype(np.float64))).tocsr()
    fitted = LogisticRegression(C=C, max_iter=300).fit(x, y, sample_weight=even(y))
    held_out = calibration(labelled, sentences)
    z = fitted.decision_function(matrix([each.text for each in held_out]))
    slope, intercept = calibrate(z, np.array([each.toxic for each in held_out]))
    return quantise(slope * fitted.coef_[0], slope * fitted.intercept_[0] + intercept)


def make_examples(
    labelled: Sequence[Text], templated: Sequence[Text], sentences: Sequence[str]
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
    calm = draw.sample(sentences, min(SENTENCES, len(sentences)))
    examples = kept + drawn + [Example(sentence, False) for sentence in calm]
    for toxic in (True, False):
        said, made = ([each.text for each in of if each.toxic == toxic] for of in (kept, drawn))
        for _ in range(MIXED):
            core = draw.choice(said if draw.random() < FROM_TWEETS else made)
            examples.append(Example(_beside(core, draw.choice(calm), draw), toxic))
    chosen = draw.sample(examples, min(MASKED, len(examples)))
    return examples + [Example(masked(each.text, draw), each.toxic) for each in chosen]


def calibration(labelled: Sequence[Text], sentences: Sequence[str]) -> list[Example]:
    """Tweets that were not fitted, each beside a stretch of background, as they would stand in other text."""
    draw = random.Random(SEED + 1)
    held_out = [each for each in labelled if each.part == "calibrate"]
    return [Example(_beside(each.text, draw.choice(sentences), draw), each.toxic) for each in held_out]


def _beside(core: str, sentence: str, draw: random.Random) -> str:
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


def matrix(texts: Sequence[str], read: Callable[[str], list[str]] = words) -> sparse.csr_array:
    """Counts of features, texts × ``BUCKETS``."""
    ends, found = [0], []
    for text in texts:
        found += buckets(read(text))
        ends.append(len(found))
    counts = sparse.csr_array((np.ones(len(found)), found, ends), shape=(len(texts), BUCKETS))
    counts.sum_duplicates()
    return counts


def even(toxic: NDArray[np.bool_]) -> Floats:
    """Weights under which both classes are as frequent as each other; their mean is 1."""
    share = toxic.mean()
    return np.where(toxic, 0.5 / share, 0.5 / (1 - share))


def calibrate(z: Floats, toxic: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept for z (Platt 1999), at even classes: that 83 % of the tweets are toxic comes from
    how they were collected, and says nothing about other texts."""
    fitted = LogisticRegression(C=np.inf).fit(z[:, None], toxic, sample_weight=even(toxic))
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def quantise(weights: Floats, intercept: float) -> ToxicityModel:
    """To int8 by square roots: see ``ToxicityModel``."""
    scale = float(np.abs(weights).max()) / LARGEST**2
    roots = np.rint(np.sqrt(np.abs(weights) / scale)) * np.sign(weights)
    return ToxicityModel(roots.astype(np.int8), scale, float(intercept))


if __name__ == "__main__":
    main()
