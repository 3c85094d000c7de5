"""Metrics on the log-likelihoods of a question's choices.

Throughout, ``logprobs`` holds one summed log-likelihood (nats) a choice, ``correct`` the indices of the right
choices. **Ties:** a right choice that only equals the best wrong one has not won; the score is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def accuracy(logprobs: Sequence[float], correct: Sequence[int], choices: Sequence[str] = ()) -> float | None:
    """1 if the likeliest choice is a right one, else 0. ``choices`` is not used."""
    return _wins(logprobs, correct)


def accuracy_bytes(logprobs: Sequence[float], correct: Sequence[int], choices: Sequence[str]) -> float | None:
    """Accuracy of the log-likelihood per UTF-8 byte of the choice's text, which favours no short choice.

    Counted without the delimiter before the choice. An empty choice counts as one byte.
    """
    rates = [value / max(1, len(text.encode())) for value, text in zip(logprobs, choices, strict=True)]
    return _wins(rates, correct)


def accuracy_tokens(
    logprobs: Sequence[float], correct: Sequence[int], n_tokens: Sequence[int]
) -> float | None:
    """Accuracy of the log-likelihood per token of the choice (Brown et al. 2020, section 2.4).

    It depends on the policy's tokenizer, which the one per byte does not. ``n_tokens``: those of each choice
    as scored. None where a count is not known (0 or less).
    """
    if any(n < 1 for n in n_tokens):
        return None
    return _wins([value / n for value, n in zip(logprobs, n_tokens, strict=True)], correct)


def mc1(logprobs: Sequence[float], correct: Sequence[int], choices: Sequence[str] = ()) -> float | None:
    """TruthfulQA MC1: 1 if the best answer is strictly likelier than every false one.

    Lin et al. (2022), section 3.2, and the authors' code ("1vFalse"). ``correct`` holds the one best answer.
    """
    return _wins(logprobs, correct)


def mc2(logprobs: Sequence[float], correct: Sequence[int], choices: Sequence[str] = ()) -> float | None:
    """TruthfulQA MC2: the true answers' share of the probability mass of all answers, in [0, 1].

    Lin et al. (2022), section 3.2. Computed from log-likelihoods less their maximum, so that long answers do
    not underflow; the normalised mass is the same. None when no answer has any mass.
    """
    highest = max(logprobs, default=-math.inf)
    if _unusable(logprobs) or highest == -math.inf:
        return None
    mass = [math.exp(value - highest) for value in logprobs]
    return math.fsum(mass[index] for index in correct) / math.fsum(mass)


def chosen(logprobs: Sequence[float]) -> int:
    """Index of the likeliest choice, the first of equals; a value that is not a number never wins."""
    return max(range(len(logprobs)), key=lambda i: -math.inf if math.isnan(logprobs[i]) else logprobs[i])


def _wins(values: Sequence[float], correct: Sequence[int]) -> float | None:
    if _unusable(values):
        return None
    right = set(correct)
    best = max(values[index] for index in right)
    wrong = [value for index, value in enumerate(values) if index not in right]
    return float(best > max(wrong, default=-math.inf))


def _unusable(values: Sequence[float]) -> bool:
    return any(math.isnan(value) or value == math.inf for value in values)
