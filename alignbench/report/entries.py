"""What the index shows of one folder: a finished run, a training run, or why it cannot be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.compare.results import Comparison, Interval, Verdict
from alignbench.report.curves import KINDS
from alignbench.report.run import Run, oriented
from alignbench.report.text import count, interval, number, plural

RECORD, METRICS = "run.json", "metrics.jsonl"
TAIL = 1 << 16
"""Bytes of a training log's end in which its last step and last held-out measurement are looked for."""


@dataclass(frozen=True)
class Figure:
    """One key number with its interval, in the metric's own unit (``rate``: printed in percent, a signed one
    in points), what it is of (with its n), and its verdict. ``beside`` stands where there is no interval."""

    value: float | None
    ci: Interval | None
    about: str
    unit: str = "rate"
    sign: bool = False
    verdict: Verdict | None = None
    beside: str = ""

    @property
    def estimate(self) -> str:
        percent = self.unit == "rate" and not self.sign and self.value is not None
        return number(self.value, self.unit, sign=self.sign) + (" %" if percent else "")

    @property
    def bounds(self) -> str:
        return self.beside or interval(self.ci, self.unit, sign=self.sign)

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "ci": self.ci, "about": self.about, "verdict": self.verdict}


@dataclass(frozen=True)
class RunEntry:
    """A finished run. ``preferred``: the highest win-rate against the win reference by the first judge
    that is shown to beat a coin, else by the first;
    ``tax``: that policy's, else the heaviest; ``others``: the first headline tasks where there is neither."""

    key: str
    folder: Path
    date: str
    kind: str
    verdict: str
    policies: tuple[tuple[str, int], ...]
    judges: tuple[str, ...]
    tasks: tuple[str, ...]
    documents: int
    failures: int
    preferred: Figure | None
    tax: Figure | None
    others: tuple[Figure, ...]
    specs: tuple[str, ...]

    @property
    def words(self) -> str:
        """All that a search looks through."""
        names = (name for name, _ in self.policies)
        return " ".join(
            (self.key, self.kind, self.verdict, self.date, *names, *self.specs, *self.judges, *self.tasks)
        ).lower()

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.key,
            "date": self.date or None,
            "kind": self.kind,
            "verdict": self.verdict,
            "policies": [name for name, _ in self.policies],
            "judges": list(self.judges),
            "tasks": list(self.tasks),
            "documents": self.documents,
            "failures": self.failures,
            "preferred": self.preferred and self.preferred.as_json(),
            "tax": self.tax and self.tax.as_json(),
            "others": [figure.as_json() for figure in self.others],
        }


@dataclass(frozen=True)
class TrainingEntry:
    """A training run, by its run.json and the end of its log. ``measured``: the last held-out measurement,
    of PPO the last batch's reward. ``finished`` is False where it still runs or was stopped."""

    key: str
    folder: Path
    date: str
    kind: str
    model: str
    data: str
    seed: int | None
    step: int | None
    finished: bool
    measured: Figure | None
    record: dict[str, Any]

    @property
    def title(self) -> str:
        return KINDS.get(self.kind, self.kind)

    @property
    def words(self) -> str:
        state = "" if self.finished else "unfinished"
        return " ".join(
            (self.key, self.kind, self.title, self.model, self.data, self.date, state, "training")
        ).lower()

    def as_json(self) -> dict[str, Any]:
        held = {key: getattr(self, key) for key in ("kind", "model", "data", "seed", "step", "finished")}
        measured = self.measured and self.measured.as_json()
        return {"path": self.key, "date": self.date or None, **held, "measured": measured}


@dataclass(frozen=True)
class Unread:
    """A folder that holds a run which cannot be shown, and why."""

    key: str
    folder: Path
    error: str
    date: str = ""

    @property
    def words(self) -> str:
        return f"{self.key} {self.error}".lower()


Entry = RunEntry | TrainingEntry | Unread


def run_entry(key: str, run: Run, written: str = "") -> RunEntry:
    """What the index shows of a run; ``written`` is its date where none was recorded."""
    results = run.results
    preferred = _preferred(run)
    tax = _tax(results, preferred[0] if preferred else None)
    plain = preferred is None and tax is None
    return RunEntry(
        key=key,
        folder=run.folder,
        date=run.date or written,
        kind=results.kind,
        verdict=results.verdict,
        policies=tuple((policy.name, run.slot(policy.name)) for policy in results.policies),
        judges=tuple(run.judge_names),
        tasks=tuple(dict.fromkeys(row.task for row in results.tasks)),
        documents=run.documents,
        failures=len(results.failures),
        preferred=preferred[1] if preferred else None,
        tax=tax,
        others=tuple(_differences(results) or _scores(results)) if plain else (),
        specs=tuple(policy.spec for policy in results.policies),
    )


def _preferred(run: Run) -> tuple[str, Figure] | None:
    # a judge that is not shown to beat a coin speaks only where there is no other
    judge = next(iter(sorted(run.judge_names, key=lambda name: name in run.coins)), None)
    coin = judge in run.coins
    reference = run.results.win_reference
    rates = [
        oriented(rate, rate.a if rate.b == reference else rate.b)
        for rate in run.results.win_rates
        if rate.task is None and rate.judge == judge and reference in (rate.a, rate.b)
    ]
    known = [(rate.win_rate, rate) for rate in rates if rate.win_rate is not None]
    if not known:
        return None
    value, rate = max(known, key=lambda pair: pair[0])
    by = f"{rate.judge}, not shown to beat a coin" if coin else rate.judge
    about = f"{rate.a} over {rate.b} by {by}, n = {count(rate.n)}"
    return rate.a, Figure(value, rate.ci, about, verdict=None if coin else rate.verdict)


def _tax(results: Comparison, policy: str | None) -> Figure | None:
    known = [(row.mean_gain, row) for row in results.tax if row.mean_gain is not None]
    chosen = [pair for pair in known if pair[1].policy == policy] or known
    if not chosen:
        return None
    gain, row = min(chosen, key=lambda pair: pair[0])
    about = f"points, {row.policy} against {row.reference}, {plural(len(row.tasks), 'task')}"
    return Figure(gain, row.ci, about, sign=True, verdict=row.verdict)


def _differences(results: Comparison) -> list[Figure]:
    units = {(row.task, row.metric): row.unit for row in results.tasks}
    figures = []
    for row in [delta for delta in results.deltas if delta.headline and delta.diff is not None][:3]:
        unit = units.get((row.task, row.metric), "raw")
        points = "points, " if unit == "rate" else ""
        about = f"{points}{row.task} {row.metric}, {row.policy} − {row.reference}, n = {count(row.n)}"
        figures.append(Figure(row.diff, row.ci, about, unit, sign=True, verdict=row.verdict))
    return figures


def _scores(results: Comparison) -> list[Figure]:
    figures = []
    for row in [row for row in results.tasks if row.headline][:3]:
        for policy, score in list(row.scores.items())[:1]:
            about = f"{row.task} {row.metric}, {policy}, n = {count(score.n)}"
            figures.append(Figure(score.mean, score.ci, about, row.unit))
    return figures


def training_entry(key: str, folder: Path) -> TrainingEntry | Unread:
    """Read run.json and the end of metrics.jsonl."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        lines = _tail(folder / METRICS)
    except (OSError, ValueError, RecursionError) as error:
        return Unread(key, folder, f"{folder / RECORD} or {METRICS} cannot be read ({error})")
    config = record.get("config") if isinstance(record, dict) else None
    if not isinstance(config, dict):
        return Unread(key, folder, f"{folder / RECORD} is no record of a training run: it has no config")
    kind = str(record.get("kind"))
    stated = record.get("eval") or record.get("last")
    measured = stated if isinstance(stated, dict) else _last(lines, "eval") or _last(lines, "reward")
    seed, step = record.get("seed"), _last(lines, "step")
    return TrainingEntry(
        key=key,
        folder=folder,
        date=str(record.get("finished") or record.get("started") or "")[:16].replace("T", " "),
        kind=kind,
        model=str(config.get("model") or "–"),
        data=str(config.get("data") or "–"),
        seed=seed if isinstance(seed, int) else None,
        step=step if isinstance(step, int) else None,
        finished=record.get("finished") is not None,
        measured=_measured(measured) if isinstance(measured, dict) else None,
        record=record,
    )


def _tail(path: Path) -> list[bytes]:
    """The last lines of a log."""
    with path.open("rb") as file:
        start = max(0, path.stat().st_size - TAIL)
        file.seek(start)
        return file.read().splitlines()[1 if start else 0 :]


def _last(lines: Sequence[bytes], key: str) -> Any:
    """What the last line with ``key`` says: its value, of a batch's reward the whole line; None: no such
    line. One that a kill cut short is passed over."""
    for text in reversed(lines):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and key in line:
            return line if key == "reward" else line[key]
    return None


def _measured(found: dict[str, Any]) -> Figure | None:
    """``found``: the ``eval`` of SFT or a reward model, or the last logged batch of PPO."""

    def known(name: str) -> float | None:
        value = found.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    name = next((name for name in ("accuracy", "loss", "reward") if known(name) is not None), None)
    if name is None:
        return None
    n = known("n")
    size = f", n = {count(int(n))}" if n is not None else ""
    if name == "reward":
        error, kl = known("reward_se"), known("kl")
        about = f"reward of the last batch{size}" + ("" if kl is None else f", at KL {number(kl)} nats")
        beside = "" if error is None else f"SE {number(error)}"
        return Figure(known(name), None, about, "raw", beside=beside)
    ci = found.get("ci")
    pair = (float(ci[0]), float(ci[1])) if isinstance(ci, list) and len(ci) == 2 else None
    return Figure(known(name), pair, f"held-out {name}{size}", "rate" if name == "accuracy" else "raw")
