"""From samples and preferences to the rows of ``results.json``. Every number comes from ``stats``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from alignbench import stats
from alignbench.compare.results import Delta, LengthControlled, Score, TaskResult, Tax, Verdict, WinRate
from alignbench.evaluation.samples import spread
from alignbench.evaluation.types import CUT, UNPARSED, Sample
from alignbench.judges.types import Preference
from alignbench.tasks.types import Metric, Task, Unit

Samples = Mapping[str, Mapping[str, Sequence[Sample]]]
"""Policy name → task name → its samples."""

WIN_MARGIN = 0.05
"""A win-rate within ½ ± this is an equivalence (fixed beforehand)."""


@dataclass(frozen=True)
class Column:
    """One metric of one task over all policies: what a row of the task table and its deltas are made of.
    ``sums``: of a statistic of sums, the documents' parts that ``values`` were made of."""

    task: Task
    metric: Metric
    values: Mapping[str, Mapping[str, float | None]]
    clusters: Mapping[str, str]
    unparsed: Mapping[str, int]
    cut: Mapping[str, int]
    sums: Mapping[str, Mapping[str, Sequence[float] | None]] = field(default_factory=dict)

    @property
    def headline(self) -> bool:
        return self.metric.name == self.task.headline

    @property
    def directed(self) -> bool:
        return self.metric.higher_is_better is not None or self.metric.ideal is not None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The metric's range; where its task says nothing of it, (0, 1) if every value lies there."""
        if self.metric.unit is not None:
            return self.metric.bounds
        seen = [v for values in self.values.values() for v in values.values() if v is not None]
        return (0.0, 1.0) if seen and all(0.0 <= v <= 1.0 for v in seen) else None

    @property
    def unit(self) -> Unit:
        return self.metric.unit or ("rate" if self.bounds else "raw")


def columns(tasks: Sequence[Task], samples: Samples) -> list[Column]:
    """One column a task and metric, headline first; tasks that no policy finished give none."""
    out = []
    for task in tasks:
        found = {policy: by_task[task.name] for policy, by_task in samples.items() if task.name in by_task}
        if not found:
            continue
        clusters = {s.doc_id: s.cluster for rows in found.values() for s in rows}
        unparsed, cut = (
            {policy: sum(flag in s.flags for s in rows) for policy, rows in found.items()}
            for flag in (UNPARSED, CUT)
        )
        for metric in sorted(task.metrics, key=lambda m: m.name != task.headline):
            values = {p: {s.doc_id: s.values.get(metric.name) for s in rows} for p, rows in found.items()}
            sums = {p: {s.doc_id: s.sums.get(metric.name) for s in rows} for p, rows in found.items()}
            out.append(Column(task, metric, values, clusters, unparsed, cut, sums))
    return out


def task_rows(table: Sequence[Column], level: float) -> list[TaskResult]:
    """The task table: mean and interval of every metric for every policy."""
    rows = []
    for column in table:
        task, metric = column.task, column.metric
        scores = {policy: _score(column, policy, level) for policy in column.values}
        rows.append(
            TaskResult(
                task=task.name,
                area=task.area,
                metric=metric.name,
                headline=column.headline,
                higher_is_better=metric.higher_is_better,
                ideal=metric.ideal,
                chance=metric.chance,
                n=len(column.clusters),
                scores=scores,
                unit=column.unit,
                margin=metric.margin,
                judged=task.judged,
                family=task.family,
                description=task.description,
                majority=metric.majority,
                scorers=list(metric.scorers),
                samples=task.samples,
            )
        )
    return rows


def _score(column: Column, policy: str, level: float) -> Score:
    values = column.values[policy]
    clusters = [column.clusters[doc_id] for doc_id in values]
    found = stats.mean_interval(list(values.values()), clusters, level, column.bounds)
    return Score(
        found.mean,
        found.stderr,
        stats.clip(found.ci, column.metric.limits) if found.ci else None,
        found.n,
        found.missing,
        column.unparsed[policy],
        found.method,
        found.missing_bounds,
        column.cut[policy],
    )


@dataclass(frozen=True)
class Contrast:
    """One column's difference between a policy and the reference, as ``stats`` sees it."""

    column: Column
    policy: str
    diff: stats.PairedDifference
    gain: stats.PairedDifference | None

    @property
    def oriented(self) -> stats.PairedDifference:
        return self.gain or self.diff


def contrasts(table: Sequence[Column], reference: str, level: float) -> list[Contrast]:
    """Paired differences of every policy from the reference, on every metric that both have."""
    out = []
    for column in table:
        if reference not in column.values:
            continue
        metric = column.metric
        for policy in column.values:
            if policy == reference:
                continue
            values, base = _paired_values(column, policy, reference)
            diff = stats.paired_difference(values, base, column.clusters, level, column.bounds)
            gain = stats.paired_gain(
                values,
                base,
                higher_is_better=metric.higher_is_better,
                ideal=metric.ideal,
                clusters=column.clusters,
                level=level,
                bounds=column.bounds,
            )
            out.append(Contrast(column, policy, diff, gain))
    return out


def _paired_values(
    column: Column, policy: str, reference: str
) -> tuple[Mapping[str, float | None], Mapping[str, float | None]]:
    """The values of both. A statistic of sums is spread anew over the documents that both have, where either
    lacks some: what stands for a document hangs on the others, so that two policies with the same outputs
    would differ."""
    mine, base = column.values[policy], column.values[reference]
    combine = column.task.combine.get(column.metric.name)
    measured = [{doc_id for doc_id, v in values.items() if v is not None} for values in (mine, base)]
    if combine is None or measured[0] == measured[1]:
        return mine, base
    common = sorted(measured[0] & measured[1])
    anew = []
    for name in (policy, reference):
        values: dict[str, float | None] = dict.fromkeys(column.values[name])
        try:
            found = spread([column.sums[name][doc_id] for doc_id in common], combine)
        except (Exception, SystemExit):  # a task's own code, which could make it of all documents
            found = [None] * len(common)
        anew.append({**values, **dict(zip(common, found, strict=True))})
    return anew[0], anew[1]


def deltas(found: Sequence[Contrast], reference: str, level: float) -> list[Delta]:
    """Differences with verdicts. The headline metrics with a direction form one family, each other metric
    stands alone: one that can be neither better nor worse would only cost the others power."""
    family = [c for c in found if c.column.headline and c.column.directed]
    decisions = _decide(family, level)
    m = sum(decision.p_adjusted is not None for decision in decisions)
    rows = {id(c): _delta(c, d, reference, level, m) for c, d in zip(family, decisions, strict=True)}
    for contrast in found:
        if id(contrast) not in rows:
            alone = _decide([contrast], level)[0]
            rows[id(contrast)] = _delta(contrast, alone, reference, level, None)
    return [rows[id(contrast)] for contrast in found]


def _decide(family: Sequence[Contrast], level: float) -> list[stats.Decision]:
    return stats.decide(
        [c.oriented for c in family],
        [c.column.metric.margin for c in family],
        [c.column.directed for c in family],
        level,
    )


def _delta(c: Contrast, decision: stats.Decision, reference: str, level: float, m: int | None) -> Delta:
    """``m``: size of the family, None for a metric outside it."""
    simultaneous = stats.simultaneous_level(level, m) if m is not None else None
    task, metric, gain = c.column.task, c.column.metric, c.gain
    return Delta(
        task=task.name,
        area=task.area,
        metric=metric.name,
        policy=c.policy,
        reference=reference,
        n=c.diff.n,
        diff=c.diff.diff,
        gain=gain.diff if gain else None,
        ci=c.diff.ci,
        ci_simultaneous=c.diff.interval(simultaneous) if simultaneous else None,
        p=c.oriented.p,
        p_adjusted=decision.p_adjusted if simultaneous else None,
        margin=metric.margin,
        level=level,
        method=c.oriented.method,
        verdict=decision.verdict,
        headline=c.column.headline,
        gain_ci=gain.ci if gain else None,
        gain_ci_simultaneous=gain.interval(simultaneous) if gain and simultaneous else None,
        missing=c.diff.missing,
        bounds=c.diff.missing_bounds,
    )


def taxes(found: Sequence[Contrast], rows: Sequence[Delta], reference: str, level: float) -> list[Tax]:
    """The alignment tax of every policy over the nlp tasks whose headline metric is a rate with a direction.

    Verdicts: better and worse by Holm over the policies; equivalent against the mean of the tasks' margins,
    by an interval at 1 − 2α/m for m policies. ``left_out`` also names the tasks that another policy has and
    this one has not, so that two means over different tasks cannot pass for the same.
    """
    gains: dict[str, list[tuple[Contrast, stats.TaskGain]]] = {}
    for contrast, row in zip(found, rows, strict=True):
        column = contrast.column
        if column.task.area != "nlp" or not column.headline or contrast.gain is None or column.unit != "rate":
            continue
        base = [v for v in column.values[reference].values() if v is not None]
        score = sum(base) / len(base) if base else None
        gain = stats.TaskGain(
            column.task.name, contrast.gain, score, column.metric.chance, row.verdict, column.task.source
        )
        gains.setdefault(contrast.policy, []).append((contrast, gain))
    results = {policy: stats.tax([g for _, g in pairs], level) for policy, pairs in gains.items()}
    adjusted = stats.holm([result.p for result in results.values()])
    m = sum(p is not None for p in adjusted)
    asked = dict.fromkeys(gain.task for pairs in gains.values() for _, gain in pairs)
    out = []
    for (policy, result), p in zip(results.items(), adjusted, strict=True):
        margin = _mean_margin([contrast for contrast, _ in gains[policy]])
        at = stats.simultaneous_level(2 * level - 1, m) if level > 0.5 else None
        inner = stats.tax([g for _, g in gains[policy]], at).ci if at is not None else None
        out.append(
            Tax(
                policy=policy,
                reference=reference,
                tasks=list(result.tasks),
                mean_gain=result.mean_gain,
                ci=result.ci,
                normalised_gain=result.normalised_gain,
                regressed=list(result.regressed),
                verdict=stats.verdict(result.mean_gain, inner, p, margin, 1 - level),
                p=result.p,
                p_adjusted=p,
                left_out=[task for task in asked if task not in result.tasks],
            )
        )
    return out


def _mean_margin(found: Sequence[Contrast]) -> float | None:
    margins = [c.column.metric.margin for c in found]
    known = [margin for margin in margins if margin is not None]
    return sum(known) / len(known) if known and len(known) == len(margins) else None


def win_rates(
    preferences: Sequence[Preference], pairs: Sequence[tuple[str, str]], level: float
) -> list[WinRate]:
    """Win-rates per judge and pair: pooled over the judged tasks, then per task.

    The pooled pairs of one judge form a family (Holm). Documents are clustered by their source, within tasks.
    """
    grouped: dict[tuple[str, str, str], list[Preference]] = {}
    for row in preferences:
        grouped.setdefault((row.judge, row.a, row.b), []).append(row)
    out: list[WinRate] = []
    for judge in dict.fromkeys(row.judge for row in preferences):
        present = [(a, b) for a, b in pairs if (judge, a, b) in grouped]
        pooled = [_rate(grouped[judge, a, b], level) for a, b in present]
        adjusted = stats.holm([found.p for found in pooled])
        m = sum(p is not None for p in adjusted)
        for (a, b), p in zip(present, adjusted, strict=True):
            rows = grouped[judge, a, b]
            out.append(_win_row(rows, None, level, p, m))
            for task in dict.fromkeys(row.task for row in rows):
                out.append(_win_row([row for row in rows if row.task == task], task, level, None, 1))
    return out


def _rate(rows: Sequence[Preference], level: float) -> stats.WinRate:
    return stats.win_rate([row.preference for row in rows], _sources(rows), level)


def _sources(rows: Sequence[Preference]) -> list[str]:
    return [f"{row.task}\0{row.cluster or row.doc_id}" for row in rows]


def _win_row(
    rows: Sequence[Preference], task: str | None, level: float, p_adjusted: float | None, m: int
) -> WinRate:
    found = _rate(rows, level)
    controlled = stats.length_controlled(
        [row.preference for row in rows],
        [row.length_a for row in rows],
        [row.length_b for row in rows],
        clusters=_sources(rows),
        level=level,
    )
    return WinRate(
        a=rows[0].a,
        b=rows[0].b,
        judge=rows[0].judge,
        task=task,
        n=found.n,
        wins=found.wins,
        losses=found.losses,
        ties=found.ties,
        missing=found.missing,
        win_rate=found.win_rate,
        stderr=found.stderr,
        ci=found.ci,
        p=found.p,
        p_adjusted=p_adjusted,
        verdict=_win_verdict(rows, found, found.p if task else p_adjusted, level, m),
        length_controlled=LengthControlled(controlled.win_rate, controlled.ci) if controlled else None,
        level=level,
        method=found.method,
        bounds=found.missing_bounds,
    )


def _win_verdict(
    rows: Sequence[Preference], found: stats.WinRate, p: float | None, level: float, m: int
) -> Verdict:
    if found.win_rate is None:
        return "inconclusive"
    inner = _rate(rows, stats.simultaneous_level(2 * level - 1, m)).ci if level > 0.5 else None
    shifted = (inner[0] - 0.5, inner[1] - 0.5) if inner else None
    return stats.verdict(found.win_rate - 0.5, shifted, p, WIN_MARGIN, 1 - level)
