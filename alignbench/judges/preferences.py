"""From outputs to preferences, whatever kind of judge gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from alignbench.evaluation.types import Sample
from alignbench.judges.types import Documents, Judge, PairJudge, Preference, Rater
from alignbench.progress import Advance

Ratings = Mapping[tuple[str, str], float | None]


def preferences(
    judge: Judge,
    samples: Mapping[str, Sequence[Sample]],
    documents: Documents,
    pairs: Sequence[tuple[str, str]],
    on_done: Advance | None = None,
) -> list[Preference]:
    """Judge every pair of policies on the documents that both answered.

    A pointwise judge rates each policy's outputs once, however many pairs the policy is in, and the higher
    rating wins; equal ratings tie; where either rating is missing the preference is missing.

    Args:
        samples: policy name → its samples on the judged tasks.
        pairs: (a, b) names of policies.

    Raises:
        TypeError: the judge is neither a ``Rater`` nor a ``PairJudge``.
    """
    if isinstance(judge, Rater):
        ratings = {
            name: rate_by_document(judge, samples[name], documents, on_done)
            for name in dict.fromkeys(name for pair in pairs for name in pair)
        }
        return [
            row
            for a, b in pairs
            for row in _from_ratings(judge.name, samples[a], samples[b], ratings[a], ratings[b])
        ]
    if isinstance(judge, PairJudge):
        return [
            row for a, b in pairs for row in _from_pairs(judge, samples[a], samples[b], documents, on_done)
        ]
    raise TypeError(f"judge {judge.name!r} has neither rate() nor judge()")


def rate_by_document(
    judge: Rater, samples: Sequence[Sample], documents: Documents, on_done: Advance | None = None
) -> dict[tuple[str, str], float | None]:
    """Ratings of one policy's samples, keyed by (task, doc_id). A rating that is not finite is missing, and
    so is that of a sample without an output, which the judge is not asked about."""
    there = [sample for sample in samples if sample.output is not None]
    ratings: dict[tuple[str, str], float | None] = {(s.task, s.doc_id): None for s in samples}
    for sample, rating in zip(there, judge.rate(there, documents, on_done), strict=True):
        if rating is not None and math.isfinite(rating):
            ratings[sample.task, sample.doc_id] = rating
    return ratings


def _matched(a: Sequence[Sample], b: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    others = {(sample.task, sample.doc_id): sample for sample in b}
    return [
        (sample, others[sample.task, sample.doc_id]) for sample in a if (sample.task, sample.doc_id) in others
    ]


def _preference(
    name: str, a: Sample, b: Sample, value: float | None, ratings: tuple[float | None, float | None]
) -> Preference:
    return Preference(
        judge=name,
        task=a.task,
        doc_id=a.doc_id,
        a=a.policy,
        b=b.policy,
        preference=value,
        score_a=ratings[0],
        score_b=ratings[1],
        length_a=None if a.output is None else len(a.output),
        length_b=None if b.output is None else len(b.output),
        cluster=a.cluster,
    )


def _from_ratings(
    name: str, a: Sequence[Sample], b: Sequence[Sample], ratings_a: Ratings, ratings_b: Ratings
) -> list[Preference]:
    rows = []
    for left, right in _matched(a, b):
        x, y = ratings_a[left.task, left.doc_id], ratings_b[right.task, right.doc_id]
        value = None if x is None or y is None else 0.5 if x == y else float(x > y)
        rows.append(_preference(name, left, right, value, (x, y)))
    return rows


def _from_pairs(
    judge: PairJudge,
    a: Sequence[Sample],
    b: Sequence[Sample],
    documents: Documents,
    on_done: Advance | None,
) -> list[Preference]:
    matched = _matched(a, b)
    there = [pair for pair in matched if all(sample.output is not None for sample in pair)]
    values = {
        (left.task, left.doc_id): value
        for (left, _), value in zip(there, judge.judge(there, documents, on_done), strict=True)
    }
    return [
        _preference(judge.name, left, right, values.get((left.task, left.doc_id)), (None, None))
        for left, right in matched
    ]
