"""Policies that are one model, and policies that answered alike: facts of a run, beside its statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignbench.evaluation.types import Sample
from alignbench.ledger import content_key
from alignbench.tasks.types import Task

ANSWERS = ("generate", "multiple_choice")
"""Kinds of task whose samples hold an answer: a text, or the choice that is the likeliest."""
COMPUTING = ("engine", "numerics")
"""Parts of a policy's identity that say what computes it, not what it is."""


@dataclass(frozen=True)
class OneModel:
    """Policies that are the same model: weights, dtype, tokenizer, template and prefix; and how many engines
    run them."""

    names: tuple[str, ...]
    engines: int = 1


@dataclass(frozen=True)
class SameAnswers:
    """Policies that gave the same answer to each of ``documents``, to the letter."""

    names: tuple[str, ...]
    documents: int


def one_model(identities: Mapping[str, Mapping[str, Any]]) -> list[OneModel]:
    """Groups of policies that are one model, by their engines' identities."""
    groups: dict[str, list[str]] = {}
    for name, identity in identities.items():
        model = {part: value for part, value in identity.items() if part not in COMPUTING}
        groups.setdefault(content_key(identity=model), []).append(name)
    return [
        OneModel(tuple(names), len({identities[name].get("engine") for name in names}))
        for names in groups.values()
        if len(names) > 1
    ]


def same_answers(
    tasks: Sequence[Task], samples: Mapping[str, Mapping[str, Sequence[Sample]]]
) -> list[SameAnswers]:
    """Groups of policies that answered every document alike, on all tasks that have answers. A policy that
    lacks one is in no group; nor is any where no task generates: choices alone agree soon.

    Args:
        samples: policy name → task name → its samples.
    """
    asked = [task.name for task in tasks if task.kind in ANSWERS]
    if not any(task.kind == "generate" for task in tasks):
        return []
    groups: dict[tuple[tuple[str, str, str], ...], list[str]] = {}
    for name, by_task in samples.items():
        rows = [(task, s.doc_id, s.output) for task in asked for s in by_task.get(task, ())]
        answers = tuple((task, doc_id, output) for task, doc_id, output in rows if output is not None)
        if len(answers) == len(rows) and all(task in by_task for task in asked):
            groups.setdefault(answers, []).append(name)
    return [SameAnswers(tuple(names), len(given)) for given, names in groups.items() if len(names) > 1]
