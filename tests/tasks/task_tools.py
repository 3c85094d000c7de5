"""Shipped tasks on a mirror of our own, and outputs scored by them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignbench.engines.policy import parse_policy
from alignbench.evaluation import score_outputs
from alignbench.evaluation.types import Sample
from alignbench.judges.scorers import RecordedScores
from alignbench.tasks.registry import find_tasks
from alignbench.tasks.scoring import with_scorers
from alignbench.tasks.types import Task

POLICY = parse_policy("somebody=recorded:nowhere.jsonl")


def shipped(name: str, data: Path) -> Task:
    return find_tasks([name], mirror=data)[0]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows as JSONL, in a folder that is made; returns the mirror's root, the second folder above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path.parents[1]


def scored(
    task: Task,
    outputs: Sequence[str | tuple[str, ...]],
    scores: Mapping[str, Sequence[float | Sequence[float | None] | None]] | None = None,
) -> list[Sample]:
    """The outputs of the task's documents, scored with ``scores`` (scorer → one a document, or one for each
    of its outputs) at hand."""
    documents = task.load()
    scores = scores or {}
    scorers = [
        RecordedScores(
            name,
            {
                document.doc_id: {name: list(value) if isinstance(value, Sequence) else [value]}
                for document, value in zip(documents, values, strict=True)
            },
        )
        for name, values in scores.items()
    ]
    return score_outputs(POLICY, with_scorers(task, set(scores)), documents, outputs, scorers)
