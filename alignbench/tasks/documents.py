"""From a checked task file to documents: rows, fields, prompts, choices, few-shot exemplars."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignbench.errors import DataAbsentError, UsageError, nearest
from alignbench.sources import load_rows
from alignbench.sources.files import format_of
from alignbench.tasks.exemplars import with_exemplars
from alignbench.tasks.plugins import function
from alignbench.tasks.spec import TaskSpec
from alignbench.tasks.templates import expression, template
from alignbench.tasks.types import Document, Metric, Task

Fields = Mapping[str, Any]


def load_documents(
    spec: TaskSpec, path: Path, *, mirror: Path | None, seed: int, trusted: bool
) -> list[Document]:
    """Load the task's rows and turn each into a document, in file order.

    Raises:
        UsageError: no data, a template that fails on a row, two documents with one id, or a right choice
            that is none of the choices; each names the task file, the document and the key.
    """
    split = spec.data.split if spec.data else None
    build = Builder(spec, path, trusted=trusted)
    rows = _rows(spec, path, split, spec.data.files if spec.data else (), mirror, seed, trusted)
    documents = build.documents(rows)
    if not documents and spec.where is not None:
        raise UsageError(f"{path}: where: {spec.where!r} holds for no row; mend it")
    if not documents:
        raise UsageError(f"{path}: {spec.documents} gives no documents; mend it")
    _refuse_duplicates(documents, path)
    if spec.few_shot is not None:
        pool = _pool(spec, path, build, documents, mirror=mirror, seed=seed, trusted=trusted)
        try:
            documents = with_exemplars(documents, pool, spec.few_shot, spec.task)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
    if spec.instruction is not None:
        head = spec.instruction.strip() + "\n\n"
        documents = [replace(doc, prompt=head + doc.prompt) for doc in documents]
    return documents


def _pool(
    spec: TaskSpec,
    path: Path,
    build: Builder,
    documents: list[Document],
    *,
    mirror: Path | None,
    seed: int,
    trusted: bool,
) -> list[Document]:
    """The documents that exemplars are drawn from: the tested ones, or those of another split or of files."""
    shots, data = spec.few_shot, spec.data
    assert shots is not None  # the caller asks where there are exemplars
    if data is None or (not shots.files and shots.split in (None, data.split)):
        return documents
    try:
        rows = _rows(spec, path, shots.split or data.split, shots.files, mirror, seed, trusted)
    except UsageError as error:
        raise type(error)(f"{path}: few_shot: {error}") from None
    pool = build.documents(rows)
    asks = [(doc.prompt, doc.target, doc.choices) for doc in documents]
    if [(doc.prompt, doc.target, doc.choices) for doc in pool] == asks:
        what = f"split {shots.split!r}" if shots.split and not shots.files else "files"
        raise UsageError(
            f"{path}: few_shot: its {what} gives the tested documents themselves; name the exemplars' files "
            "with few_shot.files, or take both keys out"
        )
    if spec.doc_id is None and spec.cluster is None:  # ids by position say nothing across files
        pool = [replace(doc, cluster=f"exemplar {doc.cluster}") for doc in pool]
    return pool


class Builder:
    """Compiles a task file's templates once, and turns rows into documents, without exemplars."""

    def __init__(self, spec: TaskSpec, path: Path, *, trusted: bool) -> None:
        self.spec, self.path, self.trusted = spec, path, trusted
        self.prepare = function(spec.prepare, path, trusted=trusted) if spec.prepare else None
        self.prompt = template(spec.prompt, f"{path}: prompt")
        self.doc_id = self._text("doc_id")
        self.cluster = self._text("cluster")
        self.target = self._text("target")
        self.choices = self._list("choices")
        self.correct = self._list("correct")
        self.references = self._list("references")
        self.delimiter = spec.delimiter if spec.delimiter is not None else " "
        self.where = expression(spec.where, f"{path}: where") if spec.where is not None else None

    def documents(self, rows: Iterable[Fields]) -> list[Document]:
        """The documents of the rows that ``where`` keeps, in order."""
        made = ((position, self._fields(position, row)) for position, row in enumerate(rows))
        kept = ((at, fields) for at, fields in made if self.where is None or self.where(fields))
        return [self._numbered(position, fields) for position, fields in kept]

    def _numbered(self, position: int, fields: Fields) -> Document:
        doc_id = str(fields.get("doc_id", f"{position:05d}")) if self.doc_id is None else self.doc_id(fields)
        try:
            return self._document(doc_id, fields)
        except UsageError as error:
            raise UsageError(f"{error} (document {doc_id})") from error

    def asks(self, fields: Fields, raw: bool) -> tuple[str, ...]:
        """What is asked of a row, without its id (``tasks.types.Task.asks``)."""
        if raw:
            rows = arranged(self.spec, self.path, [fields], trusted=self.trusted)
            if len(rows) != 1:
                raise UsageError(f"{self.path}: {self.spec.arrange} makes no single document of one row")
            fields = self._fields(0, rows[0])
        document = self._document("", fields)
        return (document.prompt, *document.choices, *document.references)

    def _document(self, doc_id: str, fields: Fields) -> Document:
        choices = tuple(str(choice) for choice in self._values(self.choices, fields, "choices"))
        correct = self._correct(choices, fields)
        references = tuple(str(text) for text in self._values(self.references, fields, "references"))
        prompt = self.prompt(fields)
        target = self.target(fields) if self.target else None
        if target is None:
            target = choices[correct[0]] if correct else references[0] if references else None
        self._refuse_two_spaces(prompt, (target or "",) if self.spec.kind == "loglikelihood" else choices)
        if not references and target is not None:
            references = (target,)
        return Document(
            doc_id=doc_id,
            fields=fields,
            prompt=prompt,
            target=target,
            choices=choices,
            cluster=self.cluster(fields) if self.cluster else doc_id,
            correct=correct,
            delimiter=self.delimiter,
            references=references,
        )

    def _refuse_two_spaces(self, prompt: str, texts: Sequence[str]) -> None:
        """``texts``: what stands behind the prompt, if anything. Before a whole document is no delimiter."""
        spaced = self.delimiter[:1].isspace() and (prompt or self.spec.kind != "loglikelihood")
        if texts and spaced and (prompt[-1:].isspace() or any(text[:1].isspace() for text in texts)):
            what = "the target" if self.spec.kind == "loglikelihood" else "a choice"
            raise UsageError(
                f"{self.path}: the prompt ends or {what} begins with a space and the delimiter adds "
                "another; write delimiter: ''"
            )

    def _correct(self, choices: Sequence[str], fields: Fields) -> tuple[int, ...]:
        if self.spec.kind == "preference":
            if len(choices) != 2:
                raise UsageError(f"{self.path}: choices: a preference has two, chosen and rejected")
            return (0,)
        if self.spec.kind != "multiple_choice":
            return ()
        if len(choices) < 2:
            raise UsageError(f"{self.path}: choices: found {len(choices)}, and a question needs two or more")
        correct = tuple(self._values(self.correct, fields, "correct"))
        if not correct or not all(type(index) is int and 0 <= index < len(choices) for index in correct):
            raise UsageError(
                f"{self.path}: correct: expected indices from 0 to {len(choices) - 1}, got {list(correct)}"
            )
        return correct

    def _fields(self, position: int, row: Fields) -> Fields:
        if self.prepare is None:
            return row
        try:
            fields = self.prepare(row)
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"{self.path}: {self.spec.prepare} fails on row {position} ({type(error).__name__}: {error})"
            ) from error
        if not isinstance(fields, Mapping):
            raise UsageError(f"{self.path}: {self.spec.prepare} must return a mapping of fields")
        return fields

    def _values(self, evaluate: Callable[[Fields], Any] | None, fields: Fields, key: str) -> list[Any]:
        if evaluate is None:
            return []
        value = evaluate(fields)
        if key == "correct" and isinstance(value, int):
            return [value]
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise UsageError(f"{self.path}: {key}: expected a list, got {value!r}")
        return list(value)

    def _text(self, key: str) -> Callable[[Fields], str] | None:
        source = getattr(self.spec, key)
        return template(source, f"{self.path}: {key}", field_or=True) if source is not None else None

    def _list(self, key: str) -> Callable[[Fields], Any] | None:
        source = getattr(self.spec, key)
        return expression(source, f"{self.path}: {key}") if source is not None else None


def metrics_with_levels(task: Task, documents: Sequence[Document]) -> tuple[Metric, ...]:
    """The task's metrics with the levels that follow from the documents: ``chance`` where the task file says
    ``uniform``, and ``majority`` for built-in metrics of choices.

    Uniform guessing: the mean over documents of the share of right choices. That is the expectation of
    accuracy and MC1 under a choice drawn at random, and of MC2 under equal likelihoods.
    """
    shares = [len(set(doc.correct)) / len(doc.choices) for doc in documents if doc.choices]
    mean = sum(shares) / len(shares) if shares else None
    majority = majority_level(documents) if task.kind == "multiple_choice" else None
    return tuple(
        replace(
            metric,
            chance=mean if metric.uniform_chance else metric.chance,
            majority=majority if metric.built_in else metric.majority,
        )
        for metric in task.metrics
    )


def majority_level(documents: Sequence[Document]) -> float | None:
    """Share of the documents on which the choice that is right most often is right.

    That is what a policy scores which always gives this one answer. None where the documents do not all have
    the same choices (then there is no such answer), or there are no choices.
    """
    if not documents or not documents[0].choices or len({frozenset(doc.choices) for doc in documents}) > 1:
        return None
    right = Counter(text for doc in documents for text in {doc.choices[index] for index in doc.correct})
    return max(right.values()) / len(documents)


def documents_fingerprint(documents: Sequence[Document]) -> str:
    """64 hexadecimal digits of the SHA-256 of what a model is asked and what counts as right, in order."""
    import hashlib
    import json

    total = hashlib.sha256()
    for doc in documents:
        parts = [doc.doc_id, doc.prompt, doc.choices, doc.correct, doc.references, doc.cluster]
        total.update(json.dumps(parts, ensure_ascii=False).encode() + b"\n")
    return total.hexdigest()


def _rows(
    spec: TaskSpec,
    path: Path,
    split: str | None,
    files: Sequence[str],
    mirror: Path | None,
    seed: int,
    trusted: bool,
) -> list[Fields]:
    if spec.data is not None:
        data = spec.data
        beside = path.parent / data.hub
        if not os.path.isfile(beside):  # unlike Path.is_file, False where the name can be no path
            source = data.hub
        else:  # globs are of the folder where the file lies
            source = str(beside.parent if files else beside)
        try:
            rows: Iterable[Any] = load_rows(
                source, split=split, config=data.config, revision=data.revision, mirror=mirror, files=files
            )
        except DataAbsentError:
            if format_of(beside) is None:
                raise
            raise DataAbsentError(f"{path}: data.hub: {no_file_beside(beside)}, or give --data DIR") from None
    else:
        assert spec.documents is not None  # the schema asks for one of the two
        make = function(spec.documents, path, trusted=trusted)
        try:
            rows = list(make(seed))
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(f"{path}: {spec.documents} fails ({type(error).__name__}: {error})") from error
    checked = list(rows)
    if not all(isinstance(row, Mapping) for row in checked):
        raise UsageError(f"{path}: {spec.documents} must give one mapping of fields a document")
    return arranged(spec, path, checked, trusted=trusted)


def no_file_beside(path: Path) -> str:
    """What is wrong where a task's data are no data set but a file, and that is not there."""
    others = [each.name for each in path.parent.iterdir() if format_of(each) is not None]
    near = nearest(path.name, others)
    return f"there is no file {path.name} beside the task file{near}; mend the name, put it there"


def arranged(spec: TaskSpec, path: Path, rows: list[Fields], *, trusted: bool) -> list[Fields]:
    """The rows that documents are made of: what the task file's ``arrange`` makes of the data's rows."""
    if spec.arrange is None:
        return rows
    make = function(spec.arrange, path, trusted=trusted)
    try:
        found = list(make(rows))
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{path}: {spec.arrange} fails on the data's rows ({type(error).__name__}: {error})"
        ) from error
    if not found or not all(isinstance(row, Mapping) for row in found):
        raise UsageError(f"{path}: {spec.arrange} must give a list of mappings of fields, one a document")
    return found


def _refuse_duplicates(documents: Sequence[Document], path: Path) -> None:
    seen: set[str] = set()
    for doc in documents:
        if doc.doc_id in seen:
            raise UsageError(f"{path}: doc_id: two documents have the id {doc.doc_id!r}; make it unique")
        seen.add(doc.doc_id)
