"""DROP's exact match and F1, by the rules of the official ``drop_eval.py`` (Dua et al. 2019, section 5.1).

An answer is one or more spans. Words are split at spaces and hyphens, lower-cased, freed of ASCII punctuation
and articles; a word that is a number becomes that number, so 4, 4.0 and "4," agree and 1,200 is 1200. F1 is
taken over *sets* of words, span by span: predicted and reference spans are aligned one to one so that the sum
is the highest, and a pair in which the reference has numbers and the prediction has none of them scores 0.
The mean goes over the larger number of spans; F1 is rounded to two decimals, as in the official script.
Several references: the best one counts.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

SPAN_SEPARATOR = "\n"
"""Between the spans of one reference where it is one string."""
Answer = str | Sequence[str]

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def drop_em(output: Answer, references: Sequence[Answer]) -> float:
    """1 if the normalised spans of the output are exactly those of a reference, in any order, else 0.

    ``output`` and ``references`` as in ``drop_f1``.
    """
    said = _spans(output)
    return float(any(_same(said, _spans(text)) for text in references if _has_text(text)))


def drop_f1(output: Answer, references: Sequence[Answer]) -> float:
    """The number-aware F1 over aligned spans, for the best reference, in [0, 1].

    Args:
        output: what the model said: one string (one span; several lines are several spans), or its spans.
        references: the accepted answers, each one string whose spans stand on lines of their own, or its
            spans. One whose first span is blank does not count, as in the official script.
    """
    said = _bags(_spans(output))
    return max((_aligned(said, _bags(_spans(text))) for text in references if _has_text(text)), default=0.0)


def drop_spans(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """The spans of an answer as the data set writes it: ``{number, spans, date: {day, month, year}}``.

    A number if it has one, else its spans, else the date as "day month year" with whatever of it is known.
    Join them with ``SPAN_SEPARATOR`` to make one reference.
    """
    number = str(answer.get("number") or "").strip()
    if number:
        return (number,)
    spans = tuple(str(span) for span in answer.get("spans") or ())
    if spans:
        return spans
    date = answer.get("date") or {}
    return (" ".join(str(date.get(part) or "") for part in ("day", "month", "year")).strip(),)


def drop_normalize(text: str) -> str:
    """DROP's normalisation of one span; its words are what F1 is taken over."""
    words = (_word(part) for part in re.split(" |-", text))
    return " ".join(" ".join(words).split())


def _word(part: str) -> str:
    lower = part.lower()
    plain = lower if _is_number(lower) else lower.translate(_PUNCTUATION)
    number = str(float(plain)) if _is_number(plain) else plain
    return re.sub(r"\b(a|an|the)\b", " ", number)


def _spans(answer: Answer) -> list[str]:
    parts = answer.strip().split(SPAN_SEPARATOR) if isinstance(answer, str) else answer
    return [drop_normalize(part) for part in parts if part.strip()] or [""]


def _has_text(answer: Answer) -> bool:
    first = answer if isinstance(answer, str) else next(iter(answer), "")
    return bool(first.strip())


def _same(said: list[str], wanted: list[str]) -> bool:
    return len(said) == len(wanted) and set(said) == set(wanted)


def _bags(spans: list[str]) -> list[frozenset[str]]:
    return [frozenset(span.split()) for span in spans]


def _aligned(said: list[frozenset[str]], wanted: list[frozenset[str]]) -> float:
    """Mean F1 over the best one-to-one alignment; spans left over on either side score 0."""
    scores = [[_f1(one, other) if _numbers_agree(one, other) else 0.0 for one in said] for other in wanted]
    if len(said) == 1 or len(wanted) == 1:
        best = max(max(row) for row in scores)
    else:
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(scores, maximize=True)
        best = math.fsum(scores[row][column] for row, column in zip(rows, columns, strict=True))
    return round(best / max(len(said), len(wanted)), 2)


def _f1(said: frozenset[str], wanted: frozenset[str]) -> float:
    """F1 of two sets of words. An empty prediction has precision 1, an empty reference recall 1."""
    shared = len(said & wanted)
    precision = shared / len(said) if said else 1.0
    recall = shared / len(wanted) if wanted else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _numbers_agree(said: frozenset[str], wanted: frozenset[str]) -> bool:
    numbers = {word for word in wanted if _is_number(word)}
    return not numbers or bool(numbers & said)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
