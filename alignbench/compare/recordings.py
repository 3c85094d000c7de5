"""Recorded policies in a comparison: their outputs are joined to the tasks' documents before work begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.compare.results import RecordedOutputs
from alignbench.engines import RECORDED, logged
from alignbench.engines.logged import Logged, SampleLog
from alignbench.engines.policy import Policy
from alignbench.engines.recorded import TEXT_ONLY, Asked, Join, Recording, open_recording
from alignbench.engines.recorded_rows import Record, stripped
from alignbench.engines.types import Score
from alignbench.errors import UsageError
from alignbench.evaluation.run import requests_of
from alignbench.judges.scorers import ScorerSpec
from alignbench.tasks.registry import Entry, list_entries
from alignbench.tasks.types import Document, Task

SHOWN = 5
"""So many ids of what found no partner are named."""


@dataclass(frozen=True)
class Recorded:
    """One recorded policy: task name → how its rows met the documents. ``unmatched``: the rows that answer no
    document of the tasks; ``others``: how many rows name another task."""

    recording: Recording | SampleLog
    joins: Mapping[str, Join]
    unmatched: tuple[Record | Logged, ...]
    others: int


def read_recordings(policies: Sequence[Policy]) -> dict[str, Recording | SampleLog]:
    """The files of the policies that are recorded, by the policy's name.

    Raises:
        UsageError: see ``open_recording``.
    """
    return {policy.name: open_recording(policy) for policy in policies if policy.kind == RECORDED}


def tasks_named(
    recordings: Mapping[str, Recording | SampleLog], tasks_dirs: Sequence[Path] = ()
) -> tuple[list[str], str]:
    """The tasks that every recorded policy names in its rows, and the sentence that says so.

    Raises:
        UsageError: a file's rows name no tasks, or none that all have and that is known and that they can
            answer.
    """
    entries = [entry for entry in list_entries(tasks_dirs) if entry.spec is not None]
    named = {name: _named(recording, entries) for name, recording in recordings.items()}
    silent = [name for name, tasks in named.items() if tasks is None]
    mend = "say which tasks the outputs answer with --tasks"
    if silent:
        raise UsageError(f"the rows of {', '.join(silent)} do not name their task; {mend}")
    kinds = logged.KINDS if all(isinstance(r, SampleLog) for r in recordings.values()) else ("generate",)
    scored = {entry.name for entry in entries if entry.spec is not None and entry.spec.kind in kinds}
    first = next(iter(named.values())) or []
    common = [task for task in first if all(task in (tasks or ()) for tasks in named.values())]
    kept = [task for task in common if task in scored]
    if not kept:
        theirs = [name for each in recordings.values() if isinstance(each, SampleLog) for name in each.named]
        raise UsageError(
            f"the recorded outputs name no known task in common that is scored as text "
            f"({', '.join(common or dict.fromkeys(theirs)) or 'none at all'}); {mend}"
        )
    return kept, f"tasks: {', '.join(kept)}, which the recorded outputs name"


def _named(recording: Recording | SampleLog, entries: Sequence[Entry]) -> list[str] | None:
    """Our names of the tasks that a recording names; None where a row names none."""
    if isinstance(recording, Recording):
        return recording.tasks
    if "task" in recording.policy.options:
        return []  # it says which rows are meant, not for which task of ours
    found = {entry.name: theirs for entry in entries if (theirs := recording.of_task(entry.name)) is not None}
    # with exemplars it answers the task that has as many, where there is one
    return [
        name for name, theirs in found.items() if f"{name}_{recording.shots.get(theirs)}shot" not in found
    ]


def join_recordings(
    recordings: Mapping[str, Recording | SampleLog], tasks: Sequence[Task]
) -> dict[str, Recorded]:
    """Join every recorded policy to every task.

    Raises:
        UsageError: a task that asks for what was not recorded, or a join that fails (see ``Recording.join``
            and ``SampleLog.join``).
    """
    for name, recording in recordings.items():
        kinds = logged.KINDS if isinstance(recording, SampleLog) else ("generate",)
        for task in tasks:
            if task.kind not in kinds:
                raise UsageError(
                    f"task {task.name} asks a model for {_ASKS[task.kind]}, and {name} is "
                    f"recorded: {TEXT_ONLY if len(kinds) == 1 else NO_REWARDS}; "
                    "leave the task or the policy out"
                )
    logs = any(isinstance(recording, SampleLog) for recording in recordings.values())
    asked = {task.name: _asked(task, logs) for task in tasks} if recordings else {}
    return {name: _join(recording, tasks, asked) for name, recording in recordings.items()}


_ASKS = {"multiple_choice": "log-likelihoods", "loglikelihood": "log-likelihoods", "preference": "rewards"}


NO_REWARDS = "lm-eval logs texts and log-likelihoods"


def _asked(task: Task, logs: bool) -> list[Asked]:
    """What of a task's documents records may be joined to; for ``logs`` also what is scored."""
    found = []
    for document in task.load():
        instruction, given = document.fields.get("instruction"), stripped(document.fields.get("input"))
        if not isinstance(instruction, str):  # the whole prompt is the instruction, and an input is within it
            instruction, given = document.prompt, ""
        requests = requests_of(task, document) if logs else []
        scored = tuple(request.continuation for request in requests if isinstance(request, Score))
        asks = task.asks(document.fields, False) if logs and task.asks is not None else ()
        found.append(Asked(document.doc_id, document.prompt, instruction, given, scored, asks))
    return found


def _join(
    recording: Recording | SampleLog, tasks: Sequence[Task], asked: Mapping[str, Sequence[Asked]]
) -> Recorded:
    only = len(tasks) == 1
    if isinstance(recording, SampleLog):
        joins = {
            task.name: recording.join(
                task.name, asked[task.name], kind=task.kind, asks=_of_raw(task), only=only
            )
            for task in tasks
        }
        named = {recording.of_task(task.name) for task in tasks}
    else:
        joins = {
            task.name: recording.join(task.name, asked[task.name], only=only, several=task.samples > 1)
            for task in tasks
        }
        named = {None, *asked}
    used = {number for join in joins.values() for number in join.used}
    mine: list[Record | Logged] = [record for record in recording.records if record.task in named]
    return Recorded(
        recording,
        joins,
        unmatched=tuple(record for record in mine if record.number not in used),
        others=len(recording.records) - len(mine),
    )


def _of_raw(task: Task) -> logged.Asks:
    """What the task makes of a row of its data."""

    def asks(row: Mapping[str, Any]) -> Sequence[str] | None:
        with suppress(UsageError):  # a row of another data set
            return task.asks(row, True) if task.asks is not None else None
        return None

    return asks


def check_scores(
    scorers: Sequence[ScorerSpec], policies: Sequence[Policy], recorded: Mapping[str, Recorded]
) -> None:
    """Scores that were recorded are there for every policy, or the comparison would be of two scorers.

    Raises:
        UsageError: a policy has none.
    """
    for scorer in scorers:
        if scorer.kind != RECORDED:
            continue
        for policy in policies:
            joins = recorded[policy.name].joins.values() if policy.name in recorded else ()
            if not any(scorer.name in scores for join in joins for scores in join.scores.values()):
                raise UsageError(
                    f"--scorer {scorer.name}=recorded: {policy.name} has no recorded scores of that name; "
                    f'give its rows "scores": {{"{scorer.name}": number}}, or choose another scorer'
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
                unmatched_first=[record.number for record in recorded.unmatched[:SHOWN]],
                other_prompts=sum(doc_id in join.prompts for doc_id in asked),
            )
        )
    return found


def notes(
    name: str, recorded: Recorded, documents: Mapping[str, Sequence[Document]], tasks: Sequence[Task]
) -> list[str]:
    """For the terminal and the provenance: a line for the tasks that are complete, one for each that lacks
    outputs, one for each that draws several and has another number of them, and what the file has beyond
    them."""
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
        if row.other_prompts:
            lines.append(
                f"{name}: of {row.task}, {row.other_prompts} outputs answer prompts that are not the task's "
                "own, about the same rows of the data; compare them with outputs to the same prompts"
            )
    for task in tasks:
        outputs = [recorded.joins[task.name].outputs.get(doc.doc_id) for doc in documents[task.name]]
        numbers = [1 if isinstance(each, str) else len(each) for each in outputs if each is not None]
        others = [n for n in numbers if n != task.samples]
        if task.samples > 1 and others:
            lines.append(
                f"{name}: {len(others)} documents of {task.name} have {min(others)} to {max(others)} outputs "
                f"where the task draws {task.samples}; a scorer's max and any, which grow with their number, "
                "are missing there"
            )
    if recorded.unmatched:
        shown = _listed([row.label for row in recorded.unmatched[:SHOWN]], len(recorded.unmatched))
        lines.append(f"{name}: rows of the file that answer no document of these tasks: {shown}")
    if recorded.others:
        lines.append(f"{name}: {recorded.others} rows of the file are of other tasks")
    return lines


def _listed(first: Sequence[str], n: int) -> str:
    return ", ".join(first) + (f", … ({n} in all)" if n > len(first) else "")
