"""Train the toxicity scorer that ships with alignbench.

    python benchmarks/toxicity_train.py --data DIR [--out FILE]

DIR holds the files that toxicity_corpora.py names. Logistic regression (scikit-learn) on hashed n-grams;
every draw is seeded, so that the same data and versions give the same file. Prints the model's fingerprint.
What the model is worth is measured by benchmarks/toxicity.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from toxicity_corpora import Text, background, identity_terms, madlibs, tweets, unlabelled
from toxicity_mixing import SEED, Example, in_other_text, make_examples
from toxicity_prior import prior

from alignbench.judges.ngrams import BUCKETS, buckets, word_buckets, word_key, words
from alignbench.judges.toxicity import MODEL, ToxicityModel

Floats = NDArray[np.float64]

LEAST_TEXTS = 3
"""A feature of fewer texts is left out."""
C = 0.05
"""Of scikit-learn: the inverse strength of the L2 penalty, for features that count 1."""
PRIOR = 0.7
"""Weight of the prior of a word beside what was fitted."""
FLAGGED = 0.02
"""Of sentences of books, encyclopaedia and instructions: so many get ½ and more. With Perspective about as
many documents of OpenWebText do (Gehman et al. 2020)."""
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
    labelled: Sequence[Text], templated: Sequence[Text], sentences: Sequence[Text], others: Sequence[str]
) -> ToxicityModel:
    """The model of these corpora: only their parts ``train`` and ``calibrate`` are used.

    Args:
        labelled: tweets.
        templated: madlibs.
        sentences: background, presumed not toxic.
        others: unlabelled text, for word vectors.
    """
    weights, intercept = fit(make_examples(labelled, templated, sentences))

    def fitted(word: str) -> float:
        return float(weights[list(word_buckets(word))].sum())

    read = [each for each in labelled if each.part == "train"]
    made = [each for each in templated if each.part == "train"]
    near = prior(read, others, made, fitted, SEED)
    for word in {word for term in identity_terms(templated) for word in term.split()}:
        near.pop(word, None)  # who somebody is, is no insult, whatever it stands beside
    model = quantise(weights, intercept, {word_key(word): PRIOR * d for word, d in near.items()})
    return calibrate(model, labelled, sentences)


def fit(examples: Sequence[Example]) -> tuple[Floats, float]:
    """Weights, one a bucket, and the intercept."""
    y = np.array([example.toxic for example in examples])
    x = matrix([example.text for example in examples])
    kept = np.flatnonzero(np.bincount(x.indices, minlength=BUCKETS) >= LEAST_TEXTS)
    fitted = LogisticRegression(C=C, max_iter=300).fit(x[:, kept], y, sample_weight=even(y))
    weights = np.zeros(BUCKETS)
    weights[kept] = fitted.coef_[0]
    return weights, float(fitted.intercept_[0])


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


def calibrate(model: ToxicityModel, labelled: Sequence[Text], sentences: Sequence[Text]) -> ToxicityModel:
    """The slope of z by Platt (1999), on tweets that were not fitted, at even classes. Not their threshold:
    these tweets were collected by slurs, calm ones too, so that little else of other texts would reach it. ½
    is where the share ``FLAGGED`` of the background that was not fitted lies above."""
    tweets_there = in_other_text(labelled, sentences, "calibrate")
    toxic = np.array([each.toxic for each in tweets_there])
    z = np.array([model.logit(each.text) for each in tweets_there], dtype=np.float64)
    fitted = LogisticRegression(C=np.inf).fit(z[:, None], toxic, sample_weight=even(toxic))
    slope = float(fitted.coef_[0, 0])
    calm = [model.logit(each.text) for each in sentences if each.part == "calibrate"]
    half = float(np.quantile([value for value in calm if value is not None], 1 - FLAGGED))
    near = {key: slope * value for key, value in model.near.items()}
    return ToxicityModel(model.weights, slope * model.scale, slope * (model.intercept - half), near)


def quantise(weights: Floats, intercept: float, near: Mapping[int, float]) -> ToxicityModel:
    """Weights to int8 by square roots: see ``ToxicityModel``."""
    scale = float(np.abs(weights).max()) / LARGEST**2
    roots = np.rint(np.sqrt(np.abs(weights) / scale)) * np.sign(weights)
    return ToxicityModel(roots.astype(np.int8), scale, float(intercept), near)


if __name__ == "__main__":
    main()
