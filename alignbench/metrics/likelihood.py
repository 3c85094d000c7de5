"""Metrics on the log-likelihood of one given text.

Throughout, ``logprob`` is the summed log-likelihood of ``target`` (nats), ``greedy`` whether greedy decoding
would have produced exactly its tokens. None where the log-likelihood is no finite number.

All but accuracy are linear in the log-likelihood, so that means over documents, differences and their
intervals mean something: a perplexity is 2 to the power of the bits per word or byte. The mean over documents
gives every document the same weight, a corpus's perplexity every word or byte.
"""

from __future__ import annotations

import math
import re


def greedy_accuracy(logprob: float, greedy: bool, target: str = "") -> float | None:
    """1 if greedy decoding gives the target, else 0. (LAMBADA's accuracy; Paperno et al. 2016.)"""
    return None if math.isnan(logprob) else float(greedy)


def log_likelihood(logprob: float, greedy: bool = False, target: str = "") -> float | None:
    """The log-likelihood itself, in nats; exp(−mean) is the perplexity per target."""
    return logprob if math.isfinite(logprob) else None


def bits_per_byte(logprob: float, greedy: bool, target: str) -> float | None:
    """−log₂ P(target) / its UTF-8 bytes. None also for a target without any."""
    return _bits_per(len(target.encode()), logprob)


def bits_per_word(logprob: float, greedy: bool, target: str) -> float | None:
    """−log₂ P(target) / its words, which are what white space separates (``re.split(r"\\s+", target)``, as
    lm-evaluation-harness counts them: white space at an end has an empty word behind it)."""
    return _bits_per(len(re.split(r"\s+", target)), logprob)


def _bits_per(n: int, logprob: float) -> float | None:
    return -logprob / math.log(2) / n if n and math.isfinite(logprob) else None
