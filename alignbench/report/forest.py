"""Gain and cost: headline differences from the reference on one signed axis, grouped by area."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from alignbench.compare.results import Delta, TaskResult
from alignbench.report.run import Run, gain_intervals
from alignbench.report.scale import Scale, fit
from alignbench.report.text import direction, interval, number, p_value

AREAS = {
    "truthfulness": "Truthfulness",
    "toxicity": "Toxicity",
    "bias": "Bias",
    "safety": "Safety",
    "helpfulness": "Helpfulness",
    "nlp": "NLP skills",
}


@dataclass(frozen=True)
class Lane:
    """One policy in one row. Positions in percent of the axis; ``None``: there is nothing to draw."""

    policy: str
    slot: int
    at: float | None
    ci: tuple[float, float] | None
    wide: tuple[float, float] | None
    estimate: str
    bounds: str
    verdict: str
    detail: str


@dataclass(frozen=True)
class Row:
    """One headline metric of one task; ``band`` is its margin on the axis."""

    task: str
    metric: str
    unit: str
    note: str
    description: str
    lanes: list[Lane]
    band: tuple[float, float] | None
    scale: Scale


@dataclass(frozen=True)
class Group:
    """Rows of one area. ``own_axes``: every row has an axis of its own."""

    key: str
    title: str
    note: str
    rows: list[Row]
    own_axes: bool = False
    directed: bool = True


@dataclass(frozen=True)
class Forest:
    """The figure: ``scale`` is the axis (in points) that all rows share but those with axes of their own."""

    scale: Scale
    groups: list[Group]
    policies: list[str]
    reference: str
    level: float


def forest(run: Run) -> Forest | None:
    """Lay the figure out; ``None`` where nothing was compared."""
    deltas: dict[tuple[str, str], list[Delta]] = {}
    for delta in run.results.deltas:
        deltas.setdefault((delta.task, delta.metric), []).append(delta)
    rows = [row for row in run.results.tasks if row.headline and (row.task, row.metric) in deltas]
    if not rows:
        return None
    shared = [row for row in rows if row.unit == "rate"]
    scale = _axis((row, delta) for row in shared for delta in deltas[row.task, row.metric])
    groups = []
    for key, title in AREAS.items():
        area = [row for row in shared if row.area == key and _directed(row)]
        if area:
            lines = [_row(run, row, deltas[row.task, row.metric], scale) for row in area]
            groups.append(Group(key, title, "", lines))
    groups += _apart(run, rows, deltas, scale)
    order = [policy.name for policy in run.results.policies]
    present = {delta.policy for delta in run.results.deltas}
    first = run.results.deltas[0]
    return Forest(scale, groups, [name for name in order if name in present], first.reference, first.level)


def _apart(
    run: Run, rows: list[TaskResult], deltas: dict[tuple[str, str], list[Delta]], scale: Scale
) -> list[Group]:
    """Rows that cannot share the axis of gains: another unit, or no better direction."""
    groups = []
    raw = [row for row in rows if row.unit != "rate"]
    if raw:
        lines = []
        for row in raw:
            held = deltas[row.task, row.metric]
            lines.append(_row(run, row, held, _axis((row, delta) for delta in held)))
        note = "not rates, so each row has an axis of its own"
        groups.append(Group("raw", "In other units", note, lines, own_axes=True))
    neither = [row for row in rows if row.unit == "rate" and not _directed(row)]
    if neither:
        lines = [_row(run, row, deltas[row.task, row.metric], scale) for row in neither]
        note = "the plain difference: right is more, which is neither gain nor cost"
        groups.append(Group("neither", "No better direction", note, lines, directed=False))
    return groups


def _directed(row: TaskResult) -> bool:
    return row.higher_is_better is not None or row.ideal is not None


def _axis(pairs: Iterable[tuple[TaskResult, Delta]]) -> Scale:
    ends: list[float | None] = []
    for row, delta in pairs:
        ends += [delta.gain if delta.gain is not None else delta.diff]
        for ci in gain_intervals(delta, row.higher_is_better):
            ends += list(ci or ())
    known = [abs(end) for end in ends if end is not None]
    return fit(ends, least=0.12 * max(known, default=1.0))


def _row(run: Run, row: TaskResult, deltas: list[Delta], scale: Scale) -> Row:
    order = list(run.slots)
    ranked = sorted(deltas, key=lambda delta: order.index(delta.policy) if delta.policy in order else 99)
    band = (scale.at(-row.margin), scale.at(row.margin)) if row.margin and _directed(row) else None
    return Row(
        row.task,
        row.metric,
        "points" if row.unit == "rate" else "raw units",
        ", ".join(filter(None, (direction(row.higher_is_better, row.ideal, row.unit), run.scored_by(row)))),
        row.description,
        [_lane(run, row, delta, scale) for delta in ranked],
        band,
        scale,
    )


def _lane(run: Run, row: TaskResult, delta: Delta, scale: Scale) -> Lane:
    value = delta.gain if delta.gain is not None else delta.diff
    plain, wide = gain_intervals(delta, row.higher_is_better)
    word = "gain" if delta.gain is not None else "difference"
    adjusted = "" if delta.p_adjusted is None else f", adjusted {p_value(delta.p_adjusted)}"
    estimate = "no data" if value is None else number(value, row.unit, sign=True)
    detail = (
        f"{row.task} · {delta.policy} against {delta.reference}: {word} "
        f"{estimate} {interval(plain, row.unit, sign=True)}, n = {delta.n}, "
        f"p {p_value(delta.p)}{adjusted}: {delta.verdict}"
    )
    return Lane(
        delta.policy,
        run.slot(delta.policy),
        None if value is None else scale.at(value),
        scale.span(plain),
        scale.span(wide),
        estimate,
        interval(plain, row.unit, sign=True) if value is not None else "",
        "" if value is None or not _directed(row) else delta.verdict,
        detail,
    )
