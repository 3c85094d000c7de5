"""Calibration: whether what a model holds for 80 % likely is so in 80 % of the cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from alignbench.metrics.corpus import Vector

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence: how many, their mean confidence, the share of them that were
    right."""

    n: int
    confidence: float
    accuracy: float


def brier(logprobs: Sequence[float], correct: Sequence[int], choices: Sequence[str] = ()) -> float | None:
    """Brier's score (1950, equation 2) of the choices' probabilities, halved: ½·Σ_c (p_c − o_c)², 0 best, 1
    worst.

    p_c is the choice's share of the probability of all choices, o_c is 1 for the right one (1/m each for m
    right ones) and 0 for the others. Halving makes it the usual (p − o)² where there are two choices. None
    where a log-likelihood is no number.
    """
    shares = _shares(logprobs)
    if shares is None:
        return None
    wanted = [1 / len(correct) if index in set(correct) else 0.0 for index in range(len(shares))]
    return math.fsum((share - one) ** 2 for share, one in zip(shares, wanted, strict=True)) / 2


def binary_brier(probability: float, outcome: bool) -> float | None:
    """(p − o)² of one yes-or-no prediction. None where ``probability`` is none."""
    return (probability - outcome) ** 2 if 0 <= probability <= 1 else None


def confidence_and_hit(logprobs: Sequence[float], correct: Sequence[int]) -> tuple[float, float] | None:
    """The likeliest choice's share of the probability, and 1 if it is a right one (a tie with a wrong one is
    0).

    What ``ece`` wants of each document. None where a log-likelihood is no number.
    """
    shares = _shares(logprobs)
    if shares is None:
        return None
    best = max(shares)
    wrong = any(share == best for index, share in enumerate(shares) if index not in set(correct))
    return best, float(not wrong)


def ece(
    pairs: Sequence[tuple[float, float]], bins: int = BINS, kind: Literal["width", "mass"] = "width"
) -> float | None:
    """Expected calibration error: Σ_b n_b/n·|accuracy_b − confidence_b| (Naeini et al. 2015; Guo et al.
    2017).

    **Biased upward:** each bin's accuracy is noisy and its absolute value is taken, so a perfectly calibrated
    model has an ECE above 0, the more so the fewer documents a bin has. Compare models on the same documents
    with the same bins; its sampling error is not that of a mean, and ``linearise`` is not for it with "mass".

    Args:
        pairs: (confidence in [0, 1], 1 if right else 0), as ``confidence_and_hit`` gives them.
        bins: how many.
        kind: "width": bins of equal width, a confidence on an edge in the lower one, as in Guo et al.;
            "mass": *adaptive* bins that hold equally many predictions (to one), equal confidences in the
            order given.

    Returns:
        A number in [0, 1]; None without any pair.
    """
    return _error(reliability(pairs, bins, kind), len(pairs))


def reliability(
    pairs: Sequence[tuple[float, float]], bins: int = BINS, kind: Literal["width", "mass"] = "width"
) -> list[Bin]:
    """The bins of a reliability diagram, lowest confidence first, empty ones left out. Arguments as in
    ``ece``."""
    groups: list[list[tuple[float, float]]] = [[] for _ in range(bins)]
    if kind == "width":
        for pair in pairs:
            groups[_place(pair[0], bins)].append(pair)
    else:
        ordered = sorted(pairs, key=lambda pair: pair[0])
        edges = [round(len(ordered) * index / bins) for index in range(bins + 1)]
        groups = [ordered[edges[index] : edges[index + 1]] for index in range(bins)]
    return [
        Bin(len(group), _mean([pair[0] for pair in group]), _mean([pair[1] for pair in group]))
        for group in groups
        if group
    ]


def ece_statistics(confidence: float, hit: float, bins: int = BINS) -> tuple[float, ...]:
    """One document as (n, Σ confidence, Σ hits) of each equal-width bin: 3·``bins`` numbers, for
    ``ece_of``."""
    vector = [0.0] * (3 * bins)
    place = 3 * _place(confidence, bins)
    vector[place : place + 3] = [1.0, confidence, hit]
    return tuple(vector)


def choice_ece_statistics(
    logprobs: Sequence[float], correct: Sequence[int], choices: Sequence[str] = ()
) -> tuple[float, ...] | None:
    """``ece_statistics`` of a question's choices. None where a log-likelihood is no number."""
    pair = confidence_and_hit(logprobs, correct)
    return None if pair is None else ece_statistics(*pair)


def ece_of(sums: Vector) -> float | None:
    """ECE with equal-width bins from the sums of ``ece_statistics``; its bias is that of ``ece``."""
    thirds = [sums[index : index + 3] for index in range(0, len(sums), 3)]
    filled = [Bin(round(n), said / n, hits / n) for n, said, hits in thirds if n]
    return _error(filled, sum(part.n for part in filled))


def _error(filled: Sequence[Bin], n: int) -> float | None:
    return math.fsum(part.n * abs(part.accuracy - part.confidence) for part in filled) / n if n else None


def _place(confidence: float, bins: int) -> int:
    """The equal-width bin of a confidence: bin i holds i/bins < confidence ≤ (i + 1)/bins, the first also
    0."""
    return min(bins - 1, max(0, math.ceil(confidence * bins) - 1))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _shares(logprobs: Sequence[float]) -> list[float] | None:
    """The choices' shares of their probability; from differences to the highest, so that none underflows."""
    highest = max(logprobs, default=-math.inf)
    if not math.isfinite(highest) or any(map(math.isnan, logprobs)):
        return None
    mass = [math.exp(value - highest) for value in logprobs]
    whole = math.fsum(mass)
    return [one / whole for one in mass]
