"""What lm-evaluation-harness logs with ``--log_samples``, as the outputs of a policy.

A folder that it wrote, or one of its ``samples_TASK_DATE.jsonl`` (0.4.x). A row is joined to a document by
what was asked, to the letter: the prompt, with the continuations where those were scored (``prompt``). Where
that is another, by the row of the data: what the task's own file makes of lm-eval's ``doc`` must be what it
makes of the document's (``doc``). Choices are then told by their text. Texts are taken from ``resps``, before
lm-eval's filters, because tasks find the answer in the text by themselves.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.engines.policy import Policy
from alignbench.engines.recorded import Answer, Asked, Join, chosen_sample, identity_of, with_option
from alignbench.engines.recorded_rows import clip, shorten
from alignbench.engines.types import Scored
from alignbench.errors import UsageError, nearest
from alignbench.sources import read_rows

NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl(\.gz)?$")
SHOTS = re.compile(r"_(\d+)shot$")
ALSO = {"lambada": "lambada_openai"}
"""Our task → lm-eval's name of the same data, where the two differ by more than signs between words."""
KINDS = ("generate", "multiple_choice", "loglikelihood")
"""The kinds of task that such a log can answer."""
Asks = Callable[[Mapping[str, Any]], Sequence[str] | None]
"""What a task's own file makes of a row of its data; None where it can make nothing of it."""


@dataclass(frozen=True)
class Logged:
    """One row: ``task`` as lm-eval calls it, ``doc_id`` its index in lm-eval's data, ``prompt`` and the
    ``doc`` asked about. ``texts``: what was generated, several where lm-eval repeated; else ``scored``:
    continuation → its log-likelihood. ``number`` counts the rows of all files from 1."""

    number: int
    task: str
    doc_id: int
    doc: Mapping[str, Any]
    prompt: str
    texts: tuple[str, ...]
    scored: Mapping[str, Scored]

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"doc_id {self.doc_id} of {self.task}"


@dataclass(frozen=True)
class SampleLog:
    """What lm-eval logged of one policy. ``shots``: its task → number of exemplars, where a results file says
    it; ``identity``: the hash of the files' content, and the model's folder where there are several."""

    policy: Policy
    records: tuple[Logged, ...]
    shots: Mapping[str, int]
    identity: Mapping[str, Any]

    @property
    def named(self) -> list[str]:
        """lm-eval's tasks, in the files' order."""
        return list(dict.fromkeys(record.task for record in self.records))

    def of_task(self, task: str) -> str | None:
        """lm-eval's name for a task of ours; None where the log has none that differs only by convention: in
        case and signs, by ``_openai``, or by the number of exemplars, which lm-eval keeps elsewhere."""
        wanted = self.policy.options.get("task")
        names = [wanted] if wanted is not None else self.named
        if wanted is not None:
            return wanted
        bare, shots = SHOTS.sub("", task), SHOTS.search(task)
        for name in names:
            if _plain(name) in (_plain(task), _plain(ALSO.get(task, task))):
                return name
            same = _plain(name) in (_plain(bare), _plain(ALSO.get(bare, bare)))
            if shots is not None and same and self.shots.get(name) == int(shots[1]):
                return name
        return None

    def join(
        self, task: str, documents: Sequence[Asked], *, kind: str, asks: Asks | None, only: bool
    ) -> Join:
        """Find the rows of each document.

        Args:
            task: its name.
            documents: all documents of the task.
            kind: the task's.
            asks: see ``Asks``; None where the task has no file of its own.
            only: no other task is asked.

        Raises:
            UsageError: the log has no such task, was made by another kind of request or with other choices,
                no row matches, or a document has several outputs and none was chosen.
        """
        theirs = self._theirs(task, only)
        mine = [record for record in self.records if record.task == theirs]
        self._check_kind(task, kind, mine)
        found = _Found(self, task, kind, documents, asks)
        for record in mine:
            found.add(record)
        if not found.answers:
            raise UsageError(self._nothing(task, documents, mine))
        return Join(
            by=tuple(dict.fromkeys(found.by.values())),
            outputs=found.answers,
            missing=tuple(d.doc_id for d in documents if d.doc_id not in found.answers),
            used=frozenset(found.used),
            prompts=found.prompts,
        )

    def _theirs(self, task: str, only: bool) -> str:
        listed = ", ".join(self.named)
        theirs = self.of_task(task)
        if theirs is None:
            say = with_option(self.policy, "task=NAME")
            raise UsageError(
                f"policy {self.policy.spec!r}: lm-eval logged nothing called {task}; it holds {listed}; "
                f"where one of them asks about the same data, say which: {say}"
            )
        if theirs not in self.named:
            near = nearest(theirs, self.named)
            raise UsageError(f"policy {self.policy.spec!r}: no task {theirs!r}{near}; the log holds {listed}")
        if "task" in self.policy.options and not only:
            raise UsageError(
                f"policy {self.policy.spec!r}: task={theirs} is for one task, and several were asked for; "
                "name one task"
            )
        return theirs

    def _check_kind(self, task: str, kind: str, mine: Sequence[Logged]) -> None:
        texts = any(record.texts for record in mine)
        if texts != (kind == "generate"):
            has, wants = ("texts", "log-likelihoods") if texts else ("log-likelihoods", "a text")
            raise UsageError(
                f"policy {self.policy.spec!r}: lm-eval's {mine[0].task} holds {has}, and the task {task} "
                f"asks for {wants}; leave the task or the policy out"
            )

    def _nothing(self, task: str, documents: Sequence[Asked], mine: Sequence[Logged]) -> str:
        what = f"policy {self.policy.spec!r}"
        n, chosen = max(len(record.texts) for record in mine), chosen_sample(self.policy)
        if chosen is not None and 0 < n < chosen:
            return f"{what}: no document of {task} has more than {n} outputs; choose another ?sample="
        return (
            f"{what}: none of the {len(mine)} rows of lm-eval's {mine[0].task} matches a document of {task}; "
            f"joins are exact, by the prompt or the row of the data, and the first prompt there ends in "
            f"{mine[0].prompt[-60:]!r} where the first document's ends in {documents[0].prompt[-60:]!r}"
        )


class _Found:
    """The answers of one task's documents, row by row. ``by``: doc_id → what joined it."""

    def __init__(
        self, log: SampleLog, task: str, kind: str, documents: Sequence[Asked], asks: Asks | None
    ) -> None:
        self.log, self.task, self.kind, self._asks = log, task, kind, asks
        self.answers: dict[str, Answer] = {}
        self.prompts: dict[str, str] = {}
        self.by: dict[str, str] = {}
        self.used: set[int] = set()
        self._rows: dict[str, int] = {}
        self._by_prompt: dict[str, list[Asked]] = defaultdict(list)
        self._by_doc: dict[tuple[str, ...], list[Asked]] = defaultdict(list)
        for document in documents:
            self._by_prompt[document.prompt].append(document)
            if document.asks:
                self._by_doc[document.asks].append(document)

    def add(self, record: Logged) -> None:
        """Join one row; a row of another of lm-eval's filters over the same answers adds nothing."""
        by, same = self._find(record)
        if not same:
            return
        self.used.add(record.number)
        if any(self._rows.get(document.doc_id) == record.doc_id for document in same):
            return
        # the data may hold a row twice: the first without an answer takes this one
        document = next((each for each in same if each.doc_id not in self.by), None)
        if document is None:
            raise UsageError(
                f"policy {self.log.policy.spec!r}: {record.label} and doc_id {self._rows[same[0].doc_id]} "
                f"both answer the document {same[0].doc_id} of {self.task}; keep one"
            )
        self.by[document.doc_id], self._rows[document.doc_id] = by, record.doc_id
        answer = self._text(record, document) if self.kind == "generate" else self._scores(record, document)
        if answer is None:
            return
        self.answers[document.doc_id] = answer
        if record.prompt != document.prompt:
            self.prompts[document.doc_id] = record.prompt

    def _find(self, record: Logged) -> tuple[str, list[Asked]]:
        same = [
            document
            for document in self._by_prompt.get(record.prompt, ())
            if all(text in record.scored for text in document.continuations)
        ]
        if same:
            return "prompt", same
        made = self._asks(record.doc) if self._asks is not None else None
        return "doc", self._by_doc.get(tuple(made), []) if made else []

    def _text(self, record: Logged, document: Asked) -> str | None:
        chosen = chosen_sample(self.log.policy)
        if chosen is not None:
            return record.texts[chosen - 1] if chosen <= len(record.texts) else None
        if len(set(record.texts)) > 1:
            say = with_option(self.log.policy, "sample=1")
            raise UsageError(
                f"policy {self.log.policy.spec!r}: {record.label} has {len(record.texts)} outputs, and the "
                f"task {self.task} takes one; choose by their order: {say}"
            )
        return record.texts[0] if record.texts else None

    def _scores(self, record: Logged, document: Asked) -> tuple[Scored, ...]:
        if all(text in record.scored for text in document.continuations):
            return tuple(record.scored[text] for text in document.continuations)
        bare = {text.strip(): scored for text, scored in record.scored.items()}
        wanted = [text.strip() for text in document.continuations]
        if any(text not in bare for text in wanted):
            raise UsageError(
                f"policy {self.log.policy.spec!r}: {record.label} scored {_shown(record.scored)} where the "
                f"document {document.doc_id} of {self.task} asks for {_shown(document.continuations)}; "
                "log a task with the same choices"
            )
        return tuple(bare[text] for text in wanted)


# --- reading -----------------------------------------------------------------------------------------------


def is_logged(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of lm-eval's samples."""
    return {"doc", "arguments", "resps"} <= row.keys()


def open_log(policy: Policy, path: Path) -> SampleLog:
    """Read a log of samples: one file, or all below a folder.

    Raises:
        UsageError: a folder without such files, with two runs of a task, or with several models and none (or
            none of them) named by ``?generator=``; a file whose rows are not as lm-eval writes them.
    """
    generator, files = (None, [path]) if path.is_file() else _files(policy, path)
    records: list[Logged] = []
    digest = hashlib.sha256()
    for file in files:
        task = _task_of(file) or file.name.partition(".")[0].removeprefix("samples_")
        rows = read_rows(file)
        records += (
            _logged(policy, file, number, task, row)
            for number, row in enumerate(rows, start=len(records) + 1)
        )
        digest.update(task.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    shots = _shots({file.parent for file in files})
    return SampleLog(policy, tuple(records), shots, identity_of(policy, digest.hexdigest(), generator))


def _files(policy: Policy, folder: Path) -> tuple[str | None, list[Path]]:
    """A folder's logs, one a task, of one model: lm-eval gives each model a folder of its own."""
    what = f"policy {policy.spec!r}"
    found = sorted(path for path in folder.rglob("samples_*.jsonl*") if _task_of(path))
    if not found:
        raise UsageError(
            f"{what}: {folder} is a folder without lm-eval's samples_TASK_DATE.jsonl; name the file of "
            "outputs in it"
        )
    models = sorted({path.parent for path in found})
    wanted = policy.options.get("generator")
    names = list(dict.fromkeys(model.name for model in models))
    if wanted is not None and wanted not in names:
        raise UsageError(
            f"{what}: no model {wanted!r}{nearest(wanted, names)}; the folder has {shorten(names)}"
        )
    if wanted is None and len(models) > 1:
        raise UsageError(
            f"{what}: the folder holds samples of {shorten(names)}; choose one with ?generator=NAME"
        )
    generator = wanted or names[0]
    kept: dict[str, Path] = {}
    for path in found:
        if path.parent.name != generator:
            continue
        task = _task_of(path) or ""
        if task in kept:
            raise UsageError(
                f"{what}: {kept[task].name} and {path.name} are two runs of {task}; name one of the files"
            )
        kept[task] = path
    return generator, list(kept.values())


def _task_of(path: Path) -> str | None:
    """The task that a log's name says; None where it is not called as lm-eval calls it."""
    named = NAME.match(path.name)
    return named["task"] if named else None


def _logged(policy: Policy, file: Path, number: int, task: str, row: Mapping[str, Any]) -> Logged:
    try:
        asked = [list(each.values()) for each in row["arguments"].values()]
        answers = row["resps"]
        prompt = asked[0][0]
        scored: dict[str, Scored] = {}
        texts: tuple[str, ...] = ()
        if len(asked[0]) == 1:  # a whole document: nothing stands before it
            prompt, scored = "", {str(asked[0][0]): Scored(float(answers[0][0]), 0, False)}
        elif isinstance(asked[0][1], str):
            for (context, continuation), (answer, *_) in zip(asked, answers, strict=True):
                if context == prompt:  # others are asked for metrics of lm-eval's
                    told = Scored(float(answer[0]), 0, str(answer[1]) == "True")
                    scored.setdefault(str(continuation), told)
        else:
            texts = tuple(str(text) for text in answers[0])
        doc = row["doc"] if isinstance(row["doc"], dict) else {}
        return Logged(number, task, int(row["doc_id"]), doc, str(prompt), texts, scored)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"policy {policy.spec!r}: {file.name}, doc_id {row.get('doc_id')!r}: not as lm-eval 0.4 logs a "
            f"sample ({type(error).__name__}: {error}); log it again"
        ) from error


def _shots(folders: set[Path]) -> dict[str, int]:
    """lm-eval's task → how many exemplars it had, as the results beside the logs say."""
    shots: dict[str, int] = {}
    for path in sorted(path for folder in folders for path in folder.glob("results_*.json")):
        try:
            told = json.loads(path.read_text(encoding="utf-8")).get("n-shot", {})
            shots |= {str(task): int(n) for task, n in told.items() if isinstance(n, int)}
        except (OSError, ValueError, AttributeError):
            continue  # only names hang on it
    return shots


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.removeprefix("lm_eval:").lower())


def _shown(texts: Sequence[str] | Mapping[str, Scored]) -> str:
    listed = [repr(clip(text, 24)) for text in texts]
    return ", ".join(listed[:4]) + (", …" if len(listed) > 4 else "")
