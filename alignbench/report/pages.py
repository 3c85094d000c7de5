"""Samples in pages: a document a card, the policies' outputs side by side; texts are read for one page."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from alignbench.compare.results import TaskResult
from alignbench.report.run import Run
from alignbench.report.samples import (
    NEEDED,
    Card,
    Light,
    column_names,
    column_of,
    judgements,
    output_of,
    texts_of,
)
from alignbench.report.text import MINUS

PER_PAGE = 25
LONGEST = 20_000
"""Characters of one text that a page shows."""

Key = tuple[str, str]
"""(task, doc_id)"""
ALWAYS = {
    "": "all documents",
    "differ": "scores differ",
    "outputs": "outputs differ",
    "right": "right",
    "wrong": "less than right",
    "missing": "not measured",
}
"""What can be asked for of any policies; ``choices`` adds what can be asked of two."""


@dataclass(frozen=True)
class Ask:
    """What is asked of the samples; the address holds all of it, under these names.

    ``policy`` alone: its outputs; with ``beside``: both side by side; neither: every policy. ``q`` is looked
    for, whatever its case, in prompts and in the outputs that are shown.
    """

    task: str = ""
    policy: str = ""
    beside: str = ""
    show: str = ""
    judge: str = ""
    q: str = ""
    doc: str = ""
    page: int = 1

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Ask:
        """Of an address; what it does not know is ignored, and an absurd page is the first."""
        texts = {key: query.get(key, "") for key in asdict(cls()) if key != "page"}
        number_ = query.get("page", "")
        if texts["beside"] == texts["policy"]:
            texts["beside"] = ""
        return cls(**texts, page=max(1, int(number_)) if number_.isdecimal() and len(number_) < 10 else 1)

    def address(self, **changes: Any) -> str:
        """The query of this page with ``changes``."""
        held = asdict(replace(self, **changes))
        return "?" + urlencode({key: value for key, value in held.items() if value not in ("", 1)})

    @property
    def pair(self) -> bool:
        return bool(self.policy and self.beside)


@dataclass(frozen=True)
class Said:
    """What a judge said of the two policies: who is preferred (None: neither), and its scores as text."""

    judge: str
    winner: str | None
    word: str
    scores: str


@dataclass(frozen=True)
class Document:
    task: str
    card: Card
    said: list[Said]


@dataclass(frozen=True)
class SamplePage:
    """Page ``number`` (from 1) of the ``total`` documents that match, out of all in ``among``."""

    number: int
    pages: int
    total: int
    among: int
    documents: list[Document]
    tasks: list[str]


Values = dict[str, tuple[float | None, int]]
"""Policy → the headline metric of its output, and a hash of the output (of all that were drawn)."""


def choices(run: Run, ask: Ask) -> list[tuple[str, str]]:
    """(value, words) of what may be shown, given which policies are chosen."""
    of = f"{ask.policy}: " if ask.policy else "any policy: "
    words = [
        (key, of + text if key in ("right", "wrong", "missing") else text) for key, text in ALWAYS.items()
    ]
    if ask.pair:
        a, b = ask.policy, ask.beside
        words += [("better", f"{a} scores better than {b}"), ("worse", f"{a} scores worse than {b}")]
        if run.judge_names:
            words += [("preferred", f"{a} preferred to {b}"), ("lost", f"{b} preferred to {a}")]
    return words


def read_page(run: Run, ask: Ask) -> SamplePage:
    """The documents that match, and the texts of one page of them.

    Raises:
        UsageError: samples or preferences cannot be read.
    """
    path = run.folder / "samples.parquet"
    if not path.is_file():
        return SamplePage(1, 1, 0, 0, [], [])
    heads = {row.task: row for row in run.results.tasks if row.headline}
    columns = tuple((task, column_of(row.metric)) for task, row in heads.items())
    index = _read_index(path, path.stat().st_mtime_ns, columns)
    keys = [key for key, values in index.items() if _wanted(heads.get(key[0]), ask, key, values)]
    if ask.pair and ask.show in ("preferred", "lost"):
        liked = _preferences(run, ask)
        keys = [key for key in keys if liked.get(key) == (ask.show == "preferred")]
    if ask.q:
        hits = _mentions(path, ask)
        keys = [key for key in keys if key in hits]
    pages = max(1, -(-len(keys) // PER_PAGE))
    at = min(ask.page, pages)
    documents = _documents(run, ask, keys[(at - 1) * PER_PAGE : at * PER_PAGE])
    tasks = sorted({task for task, _ in index})
    return SamplePage(at, pages, len(keys), len(index), documents, tasks)


@lru_cache(maxsize=4)
def _read_index(path: Path, changed: int, columns: tuple[tuple[str, str], ...]) -> dict[Key, Values]:
    """``columns``: (task, column of its headline metric); ``changed`` makes a new file be read anew."""
    import pyarrow.parquet as pq

    names = column_names(path, NEEDED)
    column = {task: name for task, name in columns if name in names}
    held: dict[Key, Values] = {}
    with pq.ParquetFile(path) as file:
        several = [name for name in ("outputs",) if name in names]
        wanted = ["policy", "task", "doc_id", "output", *several, *dict.fromkeys(column.values())]
        for batch in file.iter_batches(columns=wanted):
            parts = {name: batch.column(name).to_pylist() for name in wanted}
            rows = zip(parts["policy"], parts["task"], parts["doc_id"], parts["output"])
            for i, (policy, task, doc, output) in enumerate(rows):
                value = parts[column[task]][i] if task in column else None
                every = tuple(parts["outputs"][i] or ()) if several else ()
                held.setdefault((task, doc), {})[policy] = value, hash((output, every))
    return held


def _wanted(head: TaskResult | None, ask: Ask, key: Key, values: Values) -> bool:
    """Whether a document is asked for, as far as its scores tell. ``head``: its task's headline metric."""
    if (ask.task and key[0] != ask.task) or (ask.doc and key[1] != ask.doc):
        return False
    chosen = [name for name in (ask.policy, ask.beside) if name] or list(values)
    if not all(name in values for name in chosen):
        return False
    if ask.show == "outputs":
        return len({values[name][1] for name in chosen}) > 1
    if ask.show not in _SCORED:
        return True
    own = ask.show in ("right", "wrong", "missing") and ask.policy
    measured = [values[name][0] for name in (chosen[:1] if own else chosen)]
    return head is not None and _SCORED[ask.show](head, measured)


def _is_right(head: TaskResult, value: float | None) -> bool | None:
    """Full marks or less; None where it was not measured, or no value is right."""
    if value is None or head.higher_is_better is None or head.ideal is not None or head.unit != "rate":
        return None
    return value == (1.0 if head.higher_is_better else 0.0)


def _beats(head: TaskResult, values: Iterable[float | None], than: Callable[[float, float], bool]) -> bool:
    known = [value for value in values if value is not None]
    if len(known) != 2 or head.higher_is_better is None or head.ideal is not None:
        return False
    sign = 1 if head.higher_is_better else -1
    return than(sign * known[0], sign * known[1])


_SCORED: dict[str, Callable[[TaskResult, list[float | None]], bool]] = {
    "differ": lambda head, values: len(set(values)) > 1,
    "right": lambda head, values: any(_is_right(head, value) is True for value in values),
    "wrong": lambda head, values: any(_is_right(head, value) is False for value in values),
    "missing": lambda head, values: any(value is None for value in values),
    "better": lambda head, values: _beats(head, values, operator.gt),
    "worse": lambda head, values: _beats(head, values, operator.lt),
}


def _mentions(path: Path, ask: Ask) -> set[Key]:
    """Documents whose prompt, or an output that is shown, holds the text."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    hits = [pc.match_substring(ds.field(name), ask.q, ignore_case=True) for name in ("prompt", "output")]
    wanted = hits[0] | hits[1]
    if "outputs" in column_names(path, NEEDED):
        joined = pc.binary_join(ds.field("outputs"), "\n")
        wanted = wanted | pc.coalesce(pc.match_substring(joined, ask.q, ignore_case=True), False)
    for name, values in (("policy", [ask.policy, ask.beside]), ("task", [ask.task])):
        if any(values):
            wanted = wanted & ds.field(name).isin([value for value in values if value])
    rows = ds.dataset(path).to_table(columns=["task", "doc_id"], filter=wanted)
    return set(zip(rows["task"].to_pylist(), rows["doc_id"].to_pylist()))


def _documents(run: Run, ask: Ask, keys: list[Key]) -> list[Document]:
    import pyarrow.parquet as pq

    docs = sorted({doc for _, doc in keys})
    if not docs:
        return []
    rows: dict[Key, dict[str, Light]] = {key: {} for key in keys}
    for row in pq.read_table(run.folder / "samples.parquet", filters=[("doc_id", "in", docs)]).to_pylist():
        if (row["task"], row["doc_id"]) in rows:
            rows[row["task"], row["doc_id"]][row["policy"]] = row
    judged = judgements(run.folder / "preferences.parquet", run.results.win_reference, docs)
    said = _said(run, ask, docs) if ask.pair else {}
    chosen = [name for name in (ask.policy, ask.beside) if name] or [p.name for p in run.results.policies]
    return [
        Document(
            key[0], _card(run, key, [held[p] for p in chosen if p in held], ask, judged), said.get(key, [])
        )
        for key, held in rows.items()
    ]


def _card(
    run: Run,
    key: Key,
    rows: list[Light],
    ask: Ask,
    judged: Mapping[tuple[str, str, str], list[tuple[str, str]]],
) -> Card:
    metrics = [metric for metric in run.results.tasks if metric.task == key[0]]
    outputs = [
        output_of(
            run,
            row,
            texts_of(row, LONGEST),
            metrics,
            [] if ask.pair else judged.get((*key, row["policy"]), []),
        )
        for row in rows
    ]
    first = texts_of(rows[0], LONGEST)
    return Card(key[1], "", first.prompt, first.target, outputs)


def _pair_rows(run: Run, ask: Ask, docs: list[str] | None = None) -> list[Light]:
    """Judgements of the two policies, seen from the first: preference and scores turned where need be."""
    import pyarrow.parquet as pq

    path = run.folder / "preferences.parquet"
    if not path.is_file():
        return []
    column_names(path, ("judge", "task", "doc_id", "a", "b", "preference"))
    both = [ask.policy, ask.beside]
    filters: list[tuple[str, str, Any]] = [("a", "in", both), ("b", "in", both)]
    if docs is not None:
        filters.append(("doc_id", "in", docs))
    rows: list[Light] = pq.read_table(path, filters=filters).to_pylist()
    for row in rows:
        if row["a"] != ask.policy:
            row["score_a"], row["score_b"] = row.get("score_b"), row.get("score_a")
            row["preference"] = None if row["preference"] is None else 1 - row["preference"]
    return rows


def _preferences(run: Run, ask: Ask) -> dict[Key, bool | None]:
    """Whether the judge (the one asked for, else the first) prefers the first policy; None: neither."""
    judge = ask.judge or next(iter(run.judge_names), "")
    return {
        (row["task"], row["doc_id"]): None if row["preference"] in (None, 0.5) else row["preference"] > 0.5
        for row in _pair_rows(run, ask)
        if row["judge"] == judge
    }


def _said(run: Run, ask: Ask, docs: list[str]) -> dict[Key, list[Said]]:
    found: dict[Key, list[Said]] = {}
    for row in _pair_rows(run, ask, docs):
        preference, scores = row["preference"], (row.get("score_a"), row.get("score_b"))
        winner = None if preference in (None, 0.5) else ask.policy if preference > 0.5 else ask.beside
        word = "prefers" if winner else "gave no judgement" if preference is None else "calls it a tie"
        if winner == ask.beside:
            scores = scores[::-1]
        shown = "" if None in scores else f"{scores[0]:.3g} against {scores[1]:.3g}".replace("-", MINUS)
        found.setdefault((row["task"], row["doc_id"]), []).append(Said(row["judge"], winner, word, shown))
    return found
