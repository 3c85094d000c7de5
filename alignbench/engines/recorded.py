"""Recorded policies: outputs that exist already, read from a file and joined to a task's documents.

Every row holds an output (``output`` or ``response``) and says what it answers, by the first of these columns
that it has: ``doc_id`` (with ``task``), ``prompt``, ``instruction`` (with ``input``, where the document has
one). Joins are exact. ``generator`` (or ``policy``) says who wrote the row, where a file holds the outputs of
several. So these are read: rows of one's own, the ``samples.parquet`` of a run, AlpacaEval's model outputs
and annotations, Self-Instruct's predictions. ``logged`` reads what lm-evaluation-harness logs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench.engines.policy import Policy, require_options
from alignbench.engines.recorded_rows import (
    KEYS,
    Record,
    Scores,
    clip,
    of_generator,
    parted,
    read_record,
)
from alignbench.engines.types import Scored
from alignbench.errors import UsageError, nearest
from alignbench.sources import read_rows

if TYPE_CHECKING:
    from alignbench.engines.logged import SampleLog

TEXT_ONLY = "these recorded outputs can only be scored as text"

Answer = str | tuple[str, ...] | tuple[Scored, ...]
"""What was recorded for a document: a text, the texts drawn for its prompt, or a log-likelihood for each of
its choices (or its target)."""


@dataclass(frozen=True)
class Asked:
    """What of a document a record may be joined to. ``input``: what belongs to its instruction, stripped;
    ``continuations``: what is scored behind the prompt, if anything; ``asks``: what the task's own file makes
    of the document's row (``tasks.types.Task.asks``)."""

    doc_id: str
    prompt: str
    instruction: str
    input: str = ""
    continuations: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Join:
    """Records of one task's documents. ``by``: the columns that joined; ``outputs``: doc_id → what was
    recorded; ``missing``: documents without; ``used``: numbers of the rows that belong to a document;
    ``prompts``: doc_id → what was asked, where it was not the document's prompt; ``scores``: doc_id → scorer
    → a score for each of its outputs."""

    by: tuple[str, ...]
    outputs: Mapping[str, Answer]
    missing: tuple[str, ...]
    used: frozenset[int]
    prompts: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Sequence[float | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """One output of a document, the number of its row, and the row's scores of it."""

    text: str
    number: int
    scores: Scores


@dataclass(frozen=True)
class Recording:
    """What a file holds of one policy. ``identity``: see ``identity_of``."""

    policy: Policy
    records: tuple[Record, ...]
    identity: Mapping[str, Any]

    @property
    def tasks(self) -> list[str] | None:
        """The tasks that the rows name, in the file's order; None where a row names none."""
        named = [record.task for record in self.records]
        return list(dict.fromkeys(t for t in named if t is not None)) if None not in named else None

    def join(self, task: str, documents: Sequence[Asked], *, only: bool, several: bool = False) -> Join:
        """Find the record of each document.

        Args:
            task: its name; rows that name another are not looked at.
            documents: all documents of the task, so that a subset of them leaves no row over.
            only: no other task is asked, so a row with a ``doc_id`` need not name its task.
            several: the task draws several outputs for a prompt; all that were recorded count.

        Raises:
            UsageError: no record matches; two rows give one document different outputs; an instruction that
                several documents share, or whose input is another; a ``doc_id`` whose prompt is another; a
                ``doc_id`` without a task.
        """
        index = _Index(documents)
        held: dict[str, list[Held]] = {}
        mine = [record for record in self.records if record.task in (None, task)]
        used, by = set(), []
        for record in mine:
            if record.by == "doc_id" and record.task is None and not only:
                raise UsageError(
                    f"{self._row(record)} has a doc_id but no task, and several tasks were asked for; add "
                    "the column 'task', or name one task"
                )
            found = index.find(record)
            self._check(record, found, task)
            if not found:
                continue
            used.add(record.number)
            by.append(record.by)
            for document in found:
                held.setdefault(document.doc_id, []).extend(
                    Held(text, record.number, scores) for text, scores in zip(record.outputs, record.scores)
                )
        choose = self._all if several else self._one
        outputs = {doc_id: chosen for doc_id, some in held.items() if (chosen := choose(some, doc_id, task))}
        if not outputs:
            raise UsageError(self._nothing(task, documents, mine, held))
        return Join(
            by=tuple(dict.fromkeys(by)),
            outputs={
                doc_id: tuple(each.text for each in some) if several else some[0].text
                for doc_id, some in outputs.items()
            },
            missing=tuple(d.doc_id for d in documents if d.doc_id not in outputs),
            used=frozenset(used),
            scores={doc_id: _by_scorer(some) for doc_id, some in outputs.items()},
        )

    def _one(self, some: Sequence[Held], doc_id: str, task: str) -> list[Held]:
        """Of a document's outputs the one that counts; empty where there is none."""
        chosen = chosen_sample(self.policy)
        if chosen is not None:
            return [some[chosen - 1]] if chosen <= len(some) else []
        other = next((each for each in some if each.text != some[0].text), None)
        if other is not None:
            first, second = some[0].number, other.number
            rows = f"rows {first} and {second} give" if first != second else f"row {first} gives"
            raise UsageError(
                f"policy {self.policy.spec!r}: {rows} different outputs for the document {doc_id} of {task}, "
                f"which takes one; keep one, or choose by their order: {with_option(self.policy, 'sample=1')}"
            )
        other = next((each for each in some if each.scores != some[0].scores), None)
        if other is not None:
            raise UsageError(
                f"policy {self.policy.spec!r}: rows {some[0].number} and {other.number} give different "
                f"scores for the same output to the document {doc_id} of {task}; keep one"
            )
        return [*some[:1]]

    def _all(self, some: Sequence[Held], doc_id: str, task: str) -> list[Held]:
        """All outputs of a document, or the one that ``?sample=`` names."""
        return self._one(some, doc_id, task) if chosen_sample(self.policy) is not None else [*some]

    def _check(self, record: Record, found: Sequence[Asked], task: str) -> None:
        """Refuse a join that would put an output to a document that it does not answer."""
        if record.by == "instruction" and len({document.prompt for document in found}) > 1:
            has, mend = "", "their 'input', their " if record.input is None else "their "
            if record.input is not None and all(document.input != record.input for document in found):
                has = f", and none the input {clip(record.input)!r}"
            raise UsageError(
                f"{self._row(record)}: {len(found)} documents of {task} have the instruction "
                f"{clip(record.key)!r}{has}; give {mend}whole 'prompt', or 'doc_id'"
            )
        if record.by == "instruction":
            other = next((document for document in found if document.input != (record.input or "")), None)
            if other is not None:
                has = "it has no input" if record.input is None else f"its input is {clip(record.input)!r}"
                raise UsageError(
                    f"{self._row(record)}: {has} where the document {other.doc_id} of {task}, of the same "
                    f"instruction, has {clip(other.input)!r}; join by the whole 'prompt' instead"
                )
        if record.by == "doc_id" and record.prompt is not None:
            other = next((document for document in found if document.prompt != record.prompt), None)
            if other is not None:
                raise UsageError(
                    f"{self._row(record)}: its prompt is not that of the document {other.doc_id} of {task}; "
                    "give outputs to this prompt, or leave the column 'prompt' out to join by doc_id alone"
                )

    def _row(self, record: Record) -> str:
        return f"policy {self.policy.spec!r}: row {record.number}"

    def _nothing(
        self,
        task: str,
        documents: Sequence[Asked],
        mine: Sequence[Record],
        held: Mapping[str, Sequence[object]],
    ) -> str:
        what = f"policy {self.policy.spec!r}"
        if not mine:
            named = ", ".join(self.tasks or [])
            return f"{what} holds nothing for the task {task}, only for {named}; name tasks that it has"
        record, document = mine[0], documents[0]
        if not any(each.outputs for each in mine):
            return f"{what}: every output for {task} is null; give rows with text in 'output'"
        if most := max(map(len, held.values()), default=0):
            return f"{what}: no document of {task} has more than {most} outputs; choose another ?sample="
        shown = "" if ":" in task else f" (all: alignbench tasks show {task} --docs)"
        return (
            f"{what}: none of its {len(mine)} rows matches a document of {task}; joins are exact, and row "
            f"{record.number} has the {record.by} {clip(record.key)!r} where the first document has "
            f"{clip(getattr(document, record.by))!r}{shown}"
        )


class _Index:
    """Documents by each column that may join them."""

    def __init__(self, documents: Sequence[Asked]) -> None:
        self._held: dict[tuple[str, str], list[Asked]] = {}
        for document in documents:
            for by in KEYS:
                self._held.setdefault((by, getattr(document, by)), []).append(document)

    def find(self, record: Record) -> list[Asked]:
        """The documents that a row names; of those that share an instruction, the ones with its input."""
        found = self._held.get((record.by, record.key), [])
        if record.by == "instruction" and len(found) > 1 and record.input is not None:
            return [document for document in found if document.input == record.input] or found
        return found


def open_recording(policy: Policy) -> Recording | SampleLog:
    """Read the file of a policy of kind ``recorded``: JSON, JSONL, CSV, TSV or Parquet, also gzipped; or what
    lm-evaluation-harness logged, a file or a folder of it (``logged``).

    Raises:
        UsageError: no such file, a folder of something else, an option that only a model has, a row without
            an output or without what it answers, or several generators and none (or none of them) named by
            ``?generator=``.
    """
    from alignbench.engines.logged import is_logged, open_log

    what = f"policy {policy.spec!r}"
    require_options(policy, "recorded")
    chosen_sample(policy)
    path = Path(policy.target).expanduser()
    if path.is_dir():
        return open_log(policy, path)
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(f"{what}: no file {path}{nearest(path.name, siblings)}; check the path")
    read = read_rows(path)
    if is_logged(read[0]):
        return open_log(policy, path)
    if "task" in policy.options:
        raise UsageError(
            f"{what}: 'task' says which of lm-eval's tasks is meant, and this is no log of it; leave it out"
        )
    rows = [(number, each) for number, row in enumerate(read, start=1) for each in parted(row)]
    generator, rows = of_generator(rows, policy.options.get("generator"), what)
    records = tuple(read_record(number, row, what) for number, row in rows)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Recording(policy, records, identity_of(policy, digest, generator))


def identity_of(policy: Policy, digest: str, generator: str | None) -> dict[str, Any]:
    """Which outputs a policy's are: of which content, by whom, and which of several where it says so."""
    chosen = chosen_sample(policy)
    identity: dict[str, Any] = {"engine": "recorded", "file": digest, "generator": generator}
    return identity if chosen is None else identity | {"sample": chosen}


def chosen_sample(policy: Policy) -> int | None:
    """Which of a document's outputs counts, from 1, as the policy says; None where it does not.

    Raises:
        UsageError: it says no such number.
    """
    text = policy.options.get("sample")
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"policy {policy.spec!r}: sample={text}: write a number from 1, the first output")
    return int(text)


def with_option(policy: Policy, option: str) -> str:
    """A policy's specification with one more option, to be shown."""
    return f"{policy.spec}{'&' if '?' in policy.spec else '?'}{option}"


def _by_scorer(some: Sequence[Held]) -> dict[str, list[float | None]]:
    names = dict.fromkeys(name for each in some for name in each.scores)
    return {name: [each.scores.get(name) for each in some] for name in names}
