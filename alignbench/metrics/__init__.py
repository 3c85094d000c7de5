"""Pure scoring functions, and the names by which a task file calls them.

Four families, by what comes back from a policy: an output text (``generate``), one log-likelihood a choice
(``multiple_choice``), that of one text (``loglikelihood``), a pair of rewards (``preference``). Each returns
a number, or None where the measurement itself failed (a log-likelihood or reward that is not a number). A
wrong answer is 0, not None; where no answer was found in an output the 0 is an ``Unparsed``, a float that
says so.

A statistic that is no mean over documents is a ``CorpusMetric``. What needs more than an output and
references is called by a task's own function: ``truthfulqa_scores``, ``bbq_statistics``, the summaries of
``toxicity``, the checks of ``instructions``. ``modules`` has all of them for the library ``evaluate``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alignbench.metrics.bias import (
    bbq_accuracy_ambiguous,
    bbq_accuracy_disambiguated,
    bbq_bias_ambiguous,
    bbq_bias_disambiguated,
    choice_entropy,
    stereotype_preferred,
)
from alignbench.metrics.calibration import brier, choice_ece_statistics, ece_of
from alignbench.metrics.choices import accuracy, accuracy_bytes, accuracy_tokens, mc1, mc2
from alignbench.metrics.corpus import (
    CorpusMetric,
    corpus_value,
    correlation_of,
    f1_of,
    linearise,
    precision_of,
    ratio,
    recall_of,
)
from alignbench.metrics.drop import drop_em, drop_f1
from alignbench.metrics.extraction import UNPARSED, Unparsed, letter_match, numeric_match, yes_no_match
from alignbench.metrics.likelihood import bits_per_byte, bits_per_word, greedy_accuracy, log_likelihood
from alignbench.metrics.overlap import (
    bleu_of,
    bleu_statistics,
    chrf,
    rouge1,
    rouge2,
    rouge_l,
    rouge_lsum,
    sentence_bleu,
)
from alignbench.metrics.preferences import pair_accuracy, reward_margin
from alignbench.metrics.refusal import complied, refused
from alignbench.metrics.squad import quac_f1, squad_em, squad_f1
from alignbench.metrics.text import contains, exact_match, token_f1

BUILT_IN: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "generate": {
        "exact_match": exact_match,
        "contains": contains,
        "f1": token_f1,
        "squad_em": squad_em,
        "squad_f1": squad_f1,
        "quac_f1": quac_f1,
        "drop_em": drop_em,
        "drop_f1": drop_f1,
        "rouge1": rouge1,
        "rouge2": rouge2,
        "rouge_l": rouge_l,
        "rouge_lsum": rouge_lsum,
        "sentence_bleu": sentence_bleu,
        "chrf": chrf,
        "numeric_match": numeric_match,
        "letter_match": letter_match,
        "yes_no_match": yes_no_match,
        "refused": refused,
        "complied": complied,
    },
    "multiple_choice": {
        "accuracy": accuracy,
        "accuracy_bytes": accuracy_bytes,
        "mc1": mc1,
        "mc2": mc2,
        "entropy": choice_entropy,
        "stereotype_preferred": stereotype_preferred,
        "brier": brier,
    },
    "loglikelihood": {
        "accuracy": greedy_accuracy,
        "logprob": log_likelihood,
        "bits_per_byte": bits_per_byte,
        "bits_per_word": bits_per_word,
    },
    "preference": {"accuracy": pair_accuracy, "reward_margin": reward_margin},
}
"""Task kind → name in the task file → function."""
PER_TOKEN: Mapping[str, Callable[..., float | None]] = {"accuracy_tokens": accuracy_tokens}
"""Metrics of multiple_choice that get the choices' token counts in place of their texts."""
CORPUS: Mapping[str, Mapping[str, CorpusMetric]] = {
    "generate": {"bleu": CorpusMetric(bleu_of, bleu_statistics)},
    "multiple_choice": {"ece": CorpusMetric(ece_of, choice_ece_statistics, higher_is_better=False)},
    "loglikelihood": {},
    "preference": {},
}
"""Task kind → name in the task file → statistic of the whole corpus."""
COMBINE: Mapping[str, CorpusMetric] = {
    "bbq_accuracy_ambiguous": CorpusMetric(bbq_accuracy_ambiguous),
    "bbq_accuracy_disambiguated": CorpusMetric(bbq_accuracy_disambiguated),
    "bbq_bias_ambiguous": CorpusMetric(bbq_bias_ambiguous, None, None, 0.0, (-1.0, 1.0)),
    "bbq_bias_disambiguated": CorpusMetric(bbq_bias_disambiguated, None, None, 0.0, (-1.0, 1.0)),
    "ratio": CorpusMetric(ratio),
    "precision": CorpusMetric(precision_of),
    "recall": CorpusMetric(recall_of),
    "f1": CorpusMetric(f1_of),
    "correlation": CorpusMetric(correlation_of, None, None, None, (-1.0, 1.0)),
}
"""Name → statistic of the sums of what a task's own function gives a document; a task of any kind."""
LOWER = frozenset({"bits_per_byte", "bits_per_word", "brier", "refused"})
"""The built-in metrics of which less is better."""
IDEAL: Mapping[str, float] = {"stereotype_preferred": 0.5}
"""The built-in metrics of which neither more nor less is better, and their best value."""
RAW = frozenset({"reward_margin", "logprob", "bits_per_byte", "bits_per_word"})
"""The built-in metrics whose values have no range; all others lie in 0…1."""

__all__ = [
    "BUILT_IN",
    "COMBINE",
    "CORPUS",
    "IDEAL",
    "LOWER",
    "PER_TOKEN",
    "RAW",
    "UNPARSED",
    "CorpusMetric",
    "Unparsed",
    "accuracy",
    "accuracy_bytes",
    "bits_per_byte",
    "bits_per_word",
    "contains",
    "corpus_value",
    "exact_match",
    "greedy_accuracy",
    "linearise",
    "log_likelihood",
    "mc1",
    "mc2",
    "pair_accuracy",
    "reward_margin",
    "token_f1",
]
