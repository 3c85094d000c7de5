"""Words that stand near the insults: a prior for words that the labelled corpora hardly hold.

Word vectors from unlabelled text (positive pointwise mutual information of neighbours, truncated SVD; Levy and
Goldberg 2014), and a direction in them from the words that make a madlib toxic or not, as Hamilton et al. (2016)
spread a lexicon from seeds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd
from toxicity_corpora import Text

from alignbench.judges.ngrams import words

Floats = NDArray[np.float64]

LEAST = 4
"""Occurrences of a word with a vector."""
WINDOW = 5
"""Words to either side; a neighbour d words away counts 1/d."""
SMOOTHING = 0.75
"""Exponent of a neighbour's frequency."""
DIMENSIONS = 100
OTHERS = 4_000
"""Words drawn as neither."""
C = 0.05
FROM = 1.0
"""Standard deviations from the mean word at which the prior begins."""


def prior(texts: Sequence[str], templated: Sequence[Text], seed: int) -> dict[str, float]:
    """Word → how far, in standard deviations beyond ``FROM``, it lies towards the toxic seeds; words that do
    not are left out.

    Args:
        texts: unlabelled.
        templated: madlibs that may be used; see ``seeds``.
        seed: of all draws.
    """
    read = [words(text) for text in texts]
    counts = Counter(word for each in read for word in each)
    vocabulary = [word for word, count in counts.items() if count >= LEAST]
    place = {word: i for i, word in enumerate(vocabulary)}
    vectors = embed(read, place, seed)
    toxic, calm = ([place[word] for word in side if word in place] for side in seeds(templated))
    others = np.random.default_rng(seed).choice(len(vocabulary), min(OTHERS, len(vocabulary)), replace=False)
    x = vectors[np.concatenate([toxic, calm, others]).astype(int)]
    y = np.arange(len(x)) < len(toxic)
    calm_weight, other_weight = 0.5 / max(1, len(calm)), 0.5 / len(others)
    weight = np.repeat([1 / len(toxic), calm_weight, other_weight], [len(toxic), len(calm), len(others)])
    fitted = LogisticRegression(C=C, max_iter=500).fit(x, y, sample_weight=1000 * weight)
    along = fitted.decision_function(vectors)
    mean = np.average(along, weights=[counts[word] for word in vocabulary])
    distance = (along - mean) / along.std() - FROM
    return {word: float(d) for word, d in zip(vocabulary, distance, strict=True) if d > 0}


def seeds(templated: Sequence[Text]) -> tuple[list[str], list[str]]:
    """Words that stand in toxic madlibs only, and in calm ones only."""
    sides: list[set[str]] = [set(), set()]
    for each in templated:
        sides[each.toxic].update(re.findall(r"\w+", each.text.lower()))
    calm, toxic = sides
    return sorted(toxic - calm), sorted(calm - toxic)


def embed(read: Sequence[Sequence[str]], place: dict[str, int], seed: int) -> Floats:
    """Unit vectors of the words in ``place``, words × ``DIMENSIONS``."""
    size = len(place)
    near = sparse.csr_array((size, size))
    ids = [np.array([place.get(word, -1) for word in each], dtype=np.int64) for each in read]
    for gap in range(1, WINDOW + 1):
        left = np.concatenate([each[:-gap] for each in ids])
        right = np.concatenate([each[gap:] for each in ids])
        known = (left >= 0) & (right >= 0)
        ones = np.full(int(known.sum()), 1 / gap)
        near = near + sparse.coo_array((ones, (left[known], right[known])), shape=(size, size)).tocsr()
    counts = (near + near.T).tocoo()
    total = np.bincount(counts.row, weights=counts.data, minlength=size)
    smooth = total**SMOOTHING / np.sum(total**SMOOTHING)
    information = np.log(counts.data / (total[counts.row] * smooth[counts.col]))
    kept = information > 0
    matrix = sparse.csr_array((information[kept], (counts.row[kept], counts.col[kept])), shape=(size, size))
    left_vectors, values, _ = randomized_svd(
        sparse.csr_matrix(matrix), DIMENSIONS, n_iter=3, random_state=seed
    )
    vectors: Floats = left_vectors * np.sqrt(values)
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9)
