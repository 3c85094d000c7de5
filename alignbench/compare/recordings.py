"""Recorded policies in a comparison: their outputs are joined to the tasks' documents before work begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignbench.compare.results import RecordedOutputs
from alignbench.engines import RECORDED
from alignbench.engines.policy import Policy
from alignbench.engines.recorded import TEXT_ONLY, Asked, Join, Recording, open_recording, stripped
from alignbench.errors import UsageError
from alignbench.tasks.registry import list_entries
from alignbench.tasks.types import Document, Task

SHOWN = 5
"""So many ids of what found no partner are named."""


@dataclass(frozen=True)
class Recorded:
    """One recorded policy: task name → how its rows met the documents. ``unmatched``: numbers of the rows
    that answer no document of the tasks; ``others``: how many rows name another task."""

    recording: Recording
    joins: Mapping[str, Join]
    unmatched: tuple[int, ...]
    others: int


def read_recordings(policies: Sequence[Policy]) -> dict[str, Recording]:
    """The files of the policies that are recorded, by the policy's name.

    Raises:
        UsageError: see ``open_recording``.
    """
    return {policy.name: open_recording(policy) for policy in policies if policy.kind == RECORDED}


def tasks_named(
    recordings: Mapping[str, Recording], tasks_dirs: Sequence[Path] = ()
) -> tuple[list[str], str]:
    """The tasks that every recorded policy names in its rows, and the sentence that says so.

    Raises:
        UsageError: a file's rows name no tasks, or none that all have and that is known and scored as text.
    """
    named = {name: recording.tasks for name, recording in recordings.items()}
    silent = [name for name, tasks in named.items() if tasks is None]
    mend = "say which tasks the outputs answer with --tasks"
    if silent:
        raise UsageError(f"the rows of {', '.join(silent)} do not name their task; {mend}")
    scored = {e.name for e in list_entries(tasks_dirs) if e.spec is not None and e.spec.kind == "generate"}
    first = next(iter(named.values())) or []
    common = [task for task in first if all(task in (tasks or ()) for tasks in named.values())]
    kept = [task for task in common if task in scored]
    if not kept:
        raise UsageError(
            f"the recorded outputs name no known task in common that is scored as text "
            f"({', '.join(common) or 'none at all'}); {mend}"
        )
    return kept, f"tasks: {', '.join(kept)}, which the recorded outputs name"


def join_recordings(recordings: Mapping[str, Recording], tasks: Sequence[Task]) -> dict[str, Recorded]:
    """Join every recorded policy to every task.

    Raises:
        UsageError: a task that asks for more than text, or a join that fails (see ``Recording.join``).
    """
    if not recordings:
        return {}
    for task in tasks:
        if task.kind != "generate":
            raise UsageError(
                f"task {task.name} asks a model for {_ASKS[task.kind]}, and {next(iter(recordings))} is "
                f"recorded: {TEXT_ONLY}; leave the task or the policy out"
            )
    asked = {task.name: [_asked(document) for document in task.load()] for task in tasks}
    return {name: _join(recording, asked) for name, recording in recordings.items()}


_ASKS = {"multiple_choice": "log-likelihoods", "loglikelihood": "log-likelihoods", "preference": "rewards"}


def _asked(document: Document) -> Asked:
    instruction = document.fields.get("instruction")
    if not isinstance(instruction, str):  # the whole prompt is the instruction, and an input is within it
        return Asked(document.doc_id, document.prompt, document.prompt)
    return Asked(document.doc_id, document.prompt, instruction, stripped(document.fields.get("input")))


def _join(recording: Recording, asked: Mapping[str, Sequence[Asked]]) -> Recorded:
    only = len(asked) == 1
    joins = {task: recording.join(task, documents, only=only) for task, documents in asked.items()}
    used = {number for join in joins.values() for number in join.used}
    mine = [record for record in recording.records if record.task is None or record.task in asked]
    return Recorded(
        recording,
        joins,
        unmatched=tuple(record.number for record in mine if record.number not in used),
        others=len(recording.records) - len(mine),
    )


def rows(name: str, recorded: Recorded, documents: Mapping[str, Sequence[Document]]) -> list[RecordedOutputs]:
    """What ``results.json`` says of a recorded policy: for each task, what was asked and what is missing."""
    found = []
    for task, join in recorded.joins.items():
        asked = [document.doc_id for document in documents[task]]
        missing = [doc_id for doc_id in asked if doc_id not in join.outputs]
        found.append(
            RecordedOutputs(
                policy=name,
                task=task,
                joined_by=list(join.by),
                documents=len(asked),
                missing=len(missing),
                missing_ids=missing[:SHOWN],
                unmatched_rows=len(recorded.unmatched),
                unmatched_first=list(recorded.unmatched[:SHOWN]),
            )
        )
    return found


def notes(name: str, recorded: Recorded, documents: Mapping[str, Sequence[Document]]) -> list[str]:
    """For the terminal and the provenance: a line for the tasks that are complete, one for each that lacks
    outputs, and what the file has beyond them."""
    found = rows(name, recorded, documents)
    whole = [row for row in found if not row.missing]
    lines = []
    if whole:
        columns = dict.fromkeys(by for row in whole for by in row.joined_by)
        lines.append(
            f"{name}: recorded outputs of all {sum(row.documents for row in whole)} documents of "
            f"{', '.join(row.task for row in whole)}, joined by the exact {' and '.join(columns)}"
        )
    for row in found:
        if row.missing:
            lines.append(
                f"{name}: recorded outputs of {row.documents - row.missing} of {row.documents} documents of "
                f"{row.task}, joined by the exact {' and '.join(row.joined_by)}; without an output, so "
                f"missing: {_listed(row.missing_ids, row.missing)}"
            )
    if recorded.unmatched:
        shown = _listed([str(number) for number in recorded.unmatched[:SHOWN]], len(recorded.unmatched))
        lines.append(f"{name}: rows of the file that answer no document of these tasks: {shown}")
    if recorded.others:
        lines.append(f"{name}: {recorded.others} rows of the file are of other tasks")
    return lines


def _listed(first: Sequence[str], n: int) -> str:
    return ", ".join(first) + (f", … ({n} in all)" if n > len(first) else "")
