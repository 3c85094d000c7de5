"""Pure scoring functions, and the names by which a task file calls them.

Four families, by what comes back from a policy: an output text (``generate``), one log-likelihood a choice
(``multiple_choice``), that of one text (``loglikelihood``), a pair of rewards (``preference``). Each returns
a number, or None where the measurement itself failed (a log-likelihood or reward that is not a number). A
wrong answer is 0, not None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alignbench.metrics.choices import accuracy, accuracy_bytes, mc1, mc2
from alignbench.metrics.corpus import linearise
from alignbench.metrics.likelihood import bits_per_byte, bits_per_word, greedy_accuracy, log_likelihood
from alignbench.metrics.preferences import pair_accuracy, reward_margin
from alignbench.metrics.text import contains, exact_match, token_f1

BUILT_IN: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "generate": {"exact_match": exact_match, "contains": contains, "f1": token_f1},
    "multiple_choice": {"accuracy": accuracy, "accuracy_bytes": accuracy_bytes, "mc1": mc1, "mc2": mc2},
    "loglikelihood": {
        "accuracy": greedy_accuracy,
        "logprob": log_likelihood,
        "bits_per_byte": bits_per_byte,
        "bits_per_word": bits_per_word,
    },
    "preference": {"accuracy": pair_accuracy, "reward_margin": reward_margin},
}
"""Task kind → name in the task file → function."""
LOWER = frozenset({"bits_per_byte", "bits_per_word"})
"""The built-in metrics of which less is better."""
RAW = frozenset({"reward_margin", "logprob", *LOWER})
"""The built-in metrics whose values have no range; all others lie in 0…1."""

__all__ = [
    "BUILT_IN",
    "LOWER",
    "RAW",
    "accuracy",
    "accuracy_bytes",
    "bits_per_byte",
    "bits_per_word",
    "contains",
    "exact_match",
    "greedy_accuracy",
    "log_likelihood",
    "mc1",
    "mc2",
    "pair_accuracy",
    "reward_margin",
    "token_f1",
]
CORPUS = {}


def summarise_scores(scores, summary):
    if any(s is None for s in scores) or not scores:
        return None
    return {"mean": sum(scores) / len(scores), "max": max(scores), "any": float(max(scores) >= 0.5)}[summary]


CORPUS = {}


def summarise_scores(scores, summary):
    if any(s is None for s in scores) or not scores:
        return None
    return {"mean": sum(scores) / len(scores), "max": max(scores), "any": float(max(scores) >= 0.5)}[summary]


from alignbench.metrics.corpus import linearise
