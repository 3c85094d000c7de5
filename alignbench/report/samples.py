"""Outputs side by side: which documents are shown, chosen by a stated rule, and what is known about each."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from pathlib import Path
from typing import Any

from alignbench.compare.results import TaskResult
from alignbench.errors import UsageError
from alignbench.report.run import Run
from alignbench.report.text import clip, clip_middle, number

TEXTS = ("prompt", "output", "target", "cluster", "outputs", "scores")
FIXED = ("policy", "task", "doc_id", *TEXTS, "n_tokens", "flags")
NEEDED = ("policy", "task", "doc_id", "prompt", "output", "target")
PER_TASK = (12, 8, 6, 4, 2)
LONGEST = 2400
"""Characters of one text that the page shows."""
BUDGET = 1_300_000
"""Characters of all texts together: keeps the file near 1 MB beside plotly."""

COMMON = 200
"""Characters from which on what all shown prompts of a task begin with (exemplars) is shown once, above
them."""

Light = dict[str, Any]
"""A sample without its texts."""


Scored = list[tuple[str, str]]
"""Scorer's name → its score of one output, as text."""


@dataclass(frozen=True)
class Drawn:
    """One of several outputs to a prompt, with what the scorers say of it."""

    text: str
    scores: Scored


@dataclass(frozen=True)
class Texts:
    """The texts of a sample, clipped; ``outputs``: all of them, where there are several."""

    prompt: str
    output: str
    target: str
    outputs: tuple[str, ...]
    scores: Mapping[str, Sequence[float | None]]

    @property
    def size(self) -> int:
        """Characters."""
        return len(self.prompt) + sum(map(len, self.outputs or (self.output,))) + len(self.target)


@dataclass(frozen=True)
class Output:
    """``scores``: what scorers say of a single output; ``drawn``: all outputs, where there are several."""

    policy: str
    slot: int
    text: str
    values: list[tuple[str, str]]
    flags: list[str]
    judged: list[tuple[str, str]]
    n_tokens: int | None
    scores: Scored
    drawn: list[Drawn]


@dataclass(frozen=True)
class Card:
    """One document and what every policy made of it; ``why``: ``differ`` or ``random``."""

    doc_id: str
    why: str
    prompt: str
    target: str
    outputs: list[Output]


@dataclass(frozen=True)
class TaskSamples:
    """``common``: what all prompts begin with, and the cards' lack; empty where that is short."""

    task: str
    area: str
    total: int
    cards: list[Card]
    common: str = ""


def side_by_side(run: Run, seed: int = 0) -> list[TaskSamples]:
    """Per task: half of the documents are those on which the headline metric differs most between policies,
    half are drawn at random with ``seed``; ties are broken at random. Fewer per task where texts are long."""
    path = run.folder / "samples.parquet"
    if not path.is_file():
        return []
    light = _read_light(path)
    judged = judgements(run.folder / "preferences.parquet", run.results.win_reference)
    for most in PER_TASK:
        chosen = {task: _choose(run, task, rows, most, seed) for task, rows in light.items()}
        texts, common = _read_texts(path, {doc for picks in chosen.values() for doc, _ in picks})
        used = {(t, d) for t, picks in chosen.items() for d, _ in picks}
        size = sum(row.size for key, row in texts.items() if key[:2] in used)
        if size <= BUDGET:
            break
    return [
        replace(
            _task(run, task, light[task], picks, texts, judged),
            common=clip_middle(common.get(task, ""), LONGEST),
        )
        for task, picks in chosen.items()
    ]


def column_names(path: Path, needed: Sequence[str]) -> list[str]:
    """The columns of a table.

    Raises:
        UsageError: it is not Parquet (cut short, overwritten), or lacks a column of ``needed``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    mend = "run the command that wrote it again"
    try:
        names: list[str] = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path} is not a readable Parquet file ({str(error)[:120]}); {mend}") from None
    lacking = [name for name in needed if name not in names]
    if lacking:
        raise UsageError(f"{path} has no column {', '.join(lacking)}; {mend}")
    return names


def _read_light(path: Path) -> dict[str, list[Light]]:
    import pyarrow.parquet as pq

    names = [name for name in column_names(path, NEEDED) if name not in TEXTS]
    by_task: dict[str, list[Light]] = {}
    for row in pq.read_table(path, columns=names).to_pylist():
        by_task.setdefault(row["task"], []).append(row)
    return by_task


def _read_texts(path: Path, documents: set[str]) -> tuple[dict[tuple[str, str, str], Texts], dict[str, str]]:
    """(task, doc_id, policy) → its texts, only of the documents that are shown; and task → what their prompts
    begin with, which is taken off them."""
    import pyarrow.parquet as pq

    known = column_names(path, NEEDED)
    columns = ["task", "doc_id", "policy", "prompt", "output", "target"]
    columns += [name for name in ("outputs", "scores") if name in known]
    table = pq.read_table(path, columns=columns, filters=[("doc_id", "in", sorted(documents) or [""])])
    rows = table.to_pylist()
    prompts: dict[str, set[str]] = {}
    for row in rows:
        prompts.setdefault(row["task"], set()).add(row["prompt"] or "")
    common = {task: common_beginning(held) for task, held in prompts.items()}
    for row in rows:
        row["prompt"] = (row["prompt"] or "").removeprefix(common[row["task"]])
    return {(row["task"], row["doc_id"], row["policy"]): texts_of(row, LONGEST) for row in rows}, common


def common_beginning(prompts: Collection[str]) -> str:
    """What all begin with, up to the last empty line in it; empty where that is under ``COMMON`` characters,
    or there is one prompt alone."""
    same = commonprefix(list(prompts)) if len(prompts) > 1 else ""  # noqa: RUF071
    head = same[: same.rfind("\n\n") + 2] if "\n\n" in same else ""
    return head if len(head) >= COMMON else ""


def texts_of(row: Light, longest: int) -> Texts:
    """The texts of a row of samples.parquet, each cut at ``longest`` characters."""
    prompt = clip_middle(row["prompt"] or "", longest)
    output, target = (clip(row[name] or "", longest) for name in ("output", "target"))
    outputs = row.get("outputs") or ()
    try:
        scores = json.loads(row.get("scores") or "{}")
    except ValueError:
        scores = {}
    if not isinstance(scores, dict) or not all(isinstance(held, list) for held in scores.values()):
        scores = {}
    return Texts(prompt, output, target, tuple(clip(text or "", longest) for text in outputs), scores)


def judgements(
    path: Path, reference: str | None, documents: Sequence[str] | None = None
) -> dict[tuple[str, str, str], list[tuple[str, str]]]:
    """(task, doc_id, policy) → what each judge said of it against ``reference``; of all or these documents.

    Raises:
        UsageError: the file cannot be read.
    """
    if not path.is_file() or reference is None:
        return {}
    import pyarrow.parquet as pq

    column_names(path, ("judge", "task", "doc_id", "a", "b", "preference"))
    said: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    filters = None if documents is None else [("doc_id", "in", list(documents))]
    for row in pq.read_table(path, filters=filters).to_pylist():
        if reference not in (row["a"], row["b"]):
            continue
        first = row["b"] == reference
        policy, preference = (row["a"] if first else row["b"]), row["preference"]
        if preference is None:
            word = "no judgement"
        elif preference == 0.5:
            word = f"a tie with {reference}"
        else:
            word = (
                f"better than {reference}" if (preference > 0.5) == first else f"not as good as {reference}"
            )
        score = row.get("score_a" if first else "score_b")
        said.setdefault((row["task"], row["doc_id"], policy), []).append(
            (row["judge"], word if score is None else f"{word} ({number(score)})")
        )
    return said


def _choose(run: Run, task: str, rows: Sequence[Light], most: int, seed: int) -> list[tuple[str, str]]:
    """(doc_id, why) of the documents to show."""
    heads = [column_of(row.metric) for row in run.results.tasks if row.task == task and row.headline]
    metric = heads[0] if heads else ""
    values: dict[str, list[float]] = {}
    for row in rows:
        held = values.setdefault(row["doc_id"], [])
        if isinstance(row.get(metric), float | int):
            held.append(float(row[metric]))
    shuffled = sorted(values)
    random.Random(f"{seed}:{task}").shuffle(shuffled)
    spread = {doc: max(held) - min(held) if len(held) > 1 else 0.0 for doc, held in values.items()}
    differ = [doc for doc in sorted(shuffled, key=lambda doc: -spread[doc]) if spread[doc] > 0][: most // 2]
    rest = [doc for doc in shuffled if doc not in differ][: most - len(differ)]
    return [(doc, "differ") for doc in differ] + [(doc, "random") for doc in rest]


def _task(
    run: Run,
    task: str,
    rows: Sequence[Light],
    picks: Sequence[tuple[str, str]],
    texts: Mapping[tuple[str, str, str], Texts],
    judged: Mapping[tuple[str, str, str], list[tuple[str, str]]],
) -> TaskSamples:
    metrics = [row for row in run.results.tasks if row.task == task]
    by_document: dict[str, dict[str, Light]] = {}
    for row in rows:
        by_document.setdefault(row["doc_id"], {})[row["policy"]] = row
    cards = []
    for doc, why in picks:
        outputs = []
        for policy in (policy.name for policy in run.results.policies):
            if (held := by_document[doc].get(policy)) is not None:
                said = judged.get((task, doc, policy), [])
                outputs.append(output_of(run, held, texts[task, doc, policy], metrics, said))
        first = next(texts[task, doc, policy] for policy in by_document[doc])
        cards.append(Card(doc, why, first.prompt, first.target, outputs))
    area = metrics[0].area if metrics else ""
    return TaskSamples(task, area, len(by_document), cards)


def output_of(
    run: Run, row: Light, texts: Texts, metrics: Sequence[TaskResult], judged: list[tuple[str, str]]
) -> Output:
    values = []
    for metric in metrics:
        column = column_of(metric.metric)
        if column in row:
            value = row[column]
            values.append((metric.metric, "missing" if value is None else f"{value:.3g}"))
    scored = [_scores_at(texts.scores, i) for i in range(max(1, len(texts.outputs)))]
    return Output(
        row["policy"],
        run.slot(row["policy"]),
        texts.output,
        values,
        flags(row.get("flags")),
        judged,
        row.get("n_tokens"),
        # a metric that is the score itself says it already
        [] if texts.outputs else [pair for pair in scored[0] if pair not in values],
        [Drawn(text, scores) for text, scores in zip(texts.outputs, scored)],
    )


def _scores_at(scores: Mapping[str, Sequence[float | None]], i: int) -> Scored:
    """What every scorer says of the output at ``i``."""
    held = {name: values[i] for name, values in scores.items() if i < len(values)}
    return [
        (name, f"{value:.3g}" if isinstance(value, int | float) else "missing")
        for name, value in held.items()
    ]


def column_of(metric: str) -> str:
    """The column of a metric: its name, with ``metric_`` before it where another column is called so."""
    return f"metric_{metric}" if metric in FIXED else metric


def flags(value: Any) -> list[str]:
    """Flags as a list, however the writer stored them (a list, or one string with separators)."""
    if value is None:
        return []
    if isinstance(value, str):
        return [part for part in value.replace(",", " ").split() if part]
    return [str(part) for part in value]
