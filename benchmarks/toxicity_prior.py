"""Words that stand near the insults: a prior for words that the labelled corpora hardly hold.

Word vectors from unlabelled text (positive pointwise mutual information of neighbours, truncated SVD; Levy
and Goldberg 2014), and a direction in them towards words that the labels make toxic, as Hamilton et al.
(2016) spread a lexicon from seeds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd
from toxicity_corpora import Text

from alignbench.judges.ngrams import words

Floats = NDArray[np.float64]
Score = Callable[[str], float]

LEAST = 4
"""Occurrences of a word with a vector."""
WINDOW = 5
"""Words to either side; a neighbour d words away counts 1/d."""
SMOOTHING = 0.75
"""Exponent of a neighbour's frequency."""
DIMENSIONS = 100
SEEDS, SEEN = 100, 10
"""So many of the words that the labelled texts make most toxic are seeds too, where they occur so often."""
OTHERS, HARMLESS = 4_000, 1.0
"""Words of tweets that stand for neither; their fitted score is less than this."""
CALM_SHARE = 0.4
"""Weight of the calm seeds beside these."""
C = 0.1
FROM = 1.0
"""Standard deviations from the mean word at which the prior begins."""


def prior(
    labelled: Sequence[Text], others: Sequence[str], templated: Sequence[Text], fitted: Score, seed: int
) -> dict[str, float]:
    """Word → how far, in standard deviations beyond ``FROM``, it lies towards the toxic seeds; words that do
    not are left out.

    Args:
        labelled: tweets, read without their labels.
        others: other unlabelled text.
        templated: madlibs; see ``seeds``.
        fitted: what a word alone adds to z, as the labels have it.
        seed: of all draws.
    """
    tweeted = [words(each.text) for each in labelled]
    read = [*tweeted, *(words(text) for text in others)]
    counts = Counter(word for each in read for word in each)
    vocabulary = [word for word, count in counts.items() if count >= LEAST]
    place = {word: i for i, word in enumerate(vocabulary)}
    vectors = embed(read, place, seed)
    along = _along(vectors, *_examples(vocabulary, counts, tweeted, templated, fitted, seed))
    mean = np.average(along, weights=[counts[word] for word in vocabulary])
    distance = (along - mean) / along.std() - FROM
    return {word: float(d) for word, d in zip(vocabulary, distance, strict=True) if d > 0}


def _examples(
    vocabulary: Sequence[str],
    counts: Mapping[str, int],
    tweeted: Sequence[Sequence[str]],
    templated: Sequence[Text],
    fitted: Score,
    seed: int,
) -> tuple[list[int], list[int], list[int]]:
    """Places of the toxic seeds, the calm seeds, and words of tweets that stand for neither, lest the
    direction be that of the language of tweets."""
    place = {word: i for i, word in enumerate(vocabulary)}
    scores = np.array([fitted(word) for word in vocabulary])
    toxic, calm = ([place[word] for word in side if word in place] for side in seeds(templated))
    often = np.array([counts[word] >= SEEN for word in vocabulary])
    most = np.argsort(np.where(often, -scores, np.inf), kind="stable")[:SEEDS]
    toxic += [int(i) for i in most if i not in toxic]
    in_tweets = Counter(word for each in tweeted for word in each)
    root = np.sqrt([in_tweets[word] for word in vocabulary])
    root[scores >= HARMLESS] = 0
    size = min(OTHERS, int((root > 0).sum()))
    drawn = np.random.default_rng(seed).choice(len(root), size, replace=False, p=root / root.sum())
    return toxic, calm, [int(i) for i in drawn]


def _along(vectors: Floats, toxic: list[int], calm: list[int], neither: list[int]) -> Floats:
    """Each vector's place along the direction from the other words to the toxic ones."""
    sizes = [len(toxic), len(calm), len(neither)]
    shares = [1.0, CALM_SHARE, 1 - CALM_SHARE]
    weight = np.repeat([share / max(1, size) for share, size in zip(shares, sizes, strict=True)], sizes)
    y = np.arange(sum(sizes)) < len(toxic)
    fitted = LogisticRegression(C=C, max_iter=500).fit(
        vectors[[*toxic, *calm, *neither]], y, sample_weight=1000 * weight
    )
    found: Floats = fitted.decision_function(vectors)
    return found


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
