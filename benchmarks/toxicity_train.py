"""Train the toxicity scorer that ships with alignbench.

    python benchmarks/toxicity_train.py --data DIR [--out FILE]

DIR holds the files that toxicity_corpora.py names. Logistic regression (scikit-learn) on hashed n-grams;
every draw is seeded, so that the same data and versions give the same file. Prints the model's fingerprint.
What the model is worth is measured by benchmarks/toxicity.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from toxicity_corpora import Text, background, madlibs, tweets, unlabelled
from toxicity_mixing import SEED, Example, calibration, make_examples
from toxicity_prior import prior

from alignbench.judges.ngrams import BUCKETS, buckets, word_buckets, words
from alignbench.judges.toxicity import MODEL, ToxicityModel

Floats = NDArray[np.float64]

LEAST_TEXTS = 3
"""A feature of fewer texts is left out."""
C = 0.05
"""Of scikit-learn: the inverse strength of the L2 penalty, for features that count 1."""
PRIOR = 0.5
"""Weight of the prior of a word beside what was fitted."""
LARGEST = 127


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=MODEL, metavar="FILE")
    options = parser.parse_args()
    model = train(
        tweets(options.data), madlibs(options.data), background(options.data), unlabelled(options.data)
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    model.save(options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, fingerprint {model.fingerprint}")


def train(
    labelled: Sequence[Text], templated: Sequence[Text], sentences: Sequence[str], others: Sequence[str]
) -> ToxicityModel:
    """The model of these corpora: only their parts ``train`` and ``calibrate`` are used.

    Args:
        labelled: tweets.
        templated: madlibs.
        sentences: background, presumed not toxic.
        others: unlabelled text, for word vectors.
    """
    weights, intercept = fit(make_examples(labelled, templated, sentences))
    read = [each.text for each in labelled if each.part == "train"]
    near = prior([*read, *others], [each for each in templated if each.part == "train"], SEED)
    for word, distance in near.items():
        weights[word_buckets(word)[0]] += PRIOR * distance
    model = quantise(weights, intercept)
    held_out = calibration(labelled, sentences)
    z = np.array([model.logit(each.text) for each in held_out])
    slope, intercept = calibrate(z, np.array([each.toxic for each in held_out]))
    return ToxicityModel(model.weights, slope * model.scale, slope * model.intercept + intercept)


def fit(examples: Sequence[Example]) -> tuple[Floats, float]:
    """Weights, one a bucket, and the intercept."""
    y = np.array([example.toxic for example in examples])
    x = matrix([example.text for example in examples])
    seen_often = np.bincount(x.indices, minlength=BUCKETS) >= LEAST_TEXTS
    x = (x @ sparse.diags_array(seen_often.astype(np.float64))).tocsr()
    fitted = LogisticRegression(C=C, max_iter=300).fit(x, y, sample_weight=even(y))
    return fitted.coef_[0].copy(), float(fitted.intercept_[0])


def matrix(texts: Sequence[str]) -> sparse.csr_array:
    """Counts of features, texts × ``BUCKETS``."""
    ends, found = [0], []
    for text in texts:
        found += buckets(words(text))
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
