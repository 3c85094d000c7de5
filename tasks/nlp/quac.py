"""QuAC: one document a question, with the dialogue before it, from rows that hold whole dialogues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alignbench.metrics.squad import CANNOTANSWER, quac_human_f1

AGREED = 0.4
"""Questions on whose answer people agree less than that are not asked, as in the official scorer."""
NO_ANSWER = "I don't know."
"""What the prompt asks for where the paragraph holds no answer, in InstructGPT's words."""


def questions(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return {turn_id, dialogue_id, title, paragraph, history, question, answer, references}, one a question.

    ``history`` holds the pairs [question, answer] before it, ``answer`` is that of the person who wrote the
    dialogue (``NO_ANSWER`` where the text holds none), ``references`` are those of all annotators, with
    ``CANNOTANSWER`` as it stands in the data.
    """
    return [question for row in rows for question in _questions(row)]


def _questions(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    history: list[list[str]] = []
    asked = zip(
        row["turn_ids"], row["questions"], row["answers"]["texts"], row["orig_answers"]["texts"], strict=True
    )
    for turn, question, references, own in asked:
        answer = NO_ANSWER if own.strip() == CANNOTANSWER else own.strip()
        if (quac_human_f1(references) or 0.0) >= AGREED:
            yield {
                "turn_id": turn,
                "dialogue_id": row["dialogue_id"],
                "title": f"{row['wikipedia_page_title']}: {row['section_title']}",
                "paragraph": row["context"].strip().removesuffix(CANNOTANSWER).strip(),
                "history": list(history),
                "question": question.strip(),
                "answer": answer,
                "references": list(references),
            }
        history.append([question.strip(), answer])
