"""SQuAD 2.0: the questions on one paragraph, each with the questions and answers before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

NO_ANSWER = "Not in background."
"""What the prompt asks for where the paragraph holds no answer, in InstructGPT's words."""


def questions(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return {id, title, background, history, question, answer, references}, one a row.

    ``history`` holds the pairs [question, answer] that the data have before it on the same paragraph;
    ``answer`` is the first annotator's, or ``NO_ANSWER``. ``references`` are all of them, [""] for none.
    """
    found, asked = [], dict[tuple[str, str], list[list[str]]]()
    for row in rows:
        references = list(dict.fromkeys(row["answers"]["text"]))
        answer = references[0] if references else NO_ANSWER
        history = asked.setdefault((row["title"], row["context"]), [])
        question = row["question"].strip()
        found.append(
            {
                "id": row["id"],
                "title": row["title"].replace("_", " "),
                "background": row["context"].strip(),
                "history": list(history),
                "question": question,
                "answer": answer,
                "references": references or [""],
            }
        )
        history.append([question, answer])
    return found
