"""One shape for DROP's layouts: the authors' answers, the hub's columns of them, and spans alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignbench.metrics.drop import SPAN_SEPARATOR, drop_spans


def prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return section_id, query_id, passage, question and references, each with its spans on lines of their
    own; the question's own answer is the first.

    Answers are ``answer`` and ``validated_answers`` ({number, spans, date}, or a list or columns of them), or
    ``answers_spans`` ({spans, types}), of which each span is an answer: it does not say which belong
    together.

    Raises:
        KeyError: the row has none of these columns.
        ValueError: no answer.
    """
    if "answers_spans" in row:
        answers: list[Sequence[str]] = [(span,) for span in row["answers_spans"]["spans"]]
    else:
        answers = [drop_spans(answer) for answer in (row["answer"], *_listed(row["validated_answers"]))]
    references = [SPAN_SEPARATOR.join(answer) for answer in answers]
    references = list(dict.fromkeys(text for text in references if text.strip()))
    if not references:
        raise ValueError(f"question {row['query_id']} has no answer")
    return {
        "section_id": row["section_id"],
        "query_id": row["query_id"],
        "passage": row["passage"].strip(),
        "question": row["question"].strip(),
        "references": references,
    }


def _listed(answers: Any) -> list[Mapping[str, Any]]:
    """Answers as a list; the hub has them as columns."""
    if not isinstance(answers, Mapping):
        return list(answers or ())
    return [dict(zip(answers, values, strict=False)) for values in zip(*answers.values(), strict=False)]
