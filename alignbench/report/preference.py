"""Win-rates as the report shows them: the ladder against one reference, and all pairs."""

from __future__ import annotations

from dataclasses import dataclass

from alignbench.compare.results import WinRate
from alignbench.compare.worth import worth_in_words
from alignbench.report.run import Run, oriented
from alignbench.report.text import interval, number


@dataclass(frozen=True)
class Rung:
    """One judge's verdict on one policy against the reference; positions in percent of 0…1."""

    judge: str
    at: float | None
    ci: tuple[float, float] | None
    estimate: str
    bounds: str
    rate: WinRate


@dataclass(frozen=True)
class Step:
    """A policy of the ladder. The reference itself has no rungs."""

    policy: str
    slot: int
    reference: bool
    rungs: list[Rung]


@dataclass(frozen=True)
class Cell:
    """Win-rate of the row's policy over the column's; ``tint`` −5…5 is how far it is from ½."""

    text: str
    title: str
    tint: int


@dataclass(frozen=True)
class Matrix:
    judge: str
    policies: list[str]
    cells: list[list[Cell | None]]


def ladder(run: Run) -> list[Step]:
    """Every policy against the win reference, pooled over the judged tasks; empty without a judge."""
    reference = run.results.win_reference
    if reference is None or not run.judge_names:
        return []
    pooled = _pooled(run)
    steps = []
    for policy in run.results.policies:
        rates = [pooled.get((policy.name, reference, judge)) for judge in run.judge_names]
        rungs = [_rung(rate) for rate in rates if rate is not None]
        if rungs or policy.name == reference:
            steps.append(Step(policy.name, run.slot(policy.name), policy.name == reference, rungs))
    return steps


@dataclass(frozen=True)
class Worth:
    """What a judge is worth, in words; ``coin``: it is not shown to beat a coin."""

    judge: str
    words: str
    coin: bool


def worth(run: Run) -> list[Worth]:
    """One sentence a judge that compared outputs here."""
    judges = [judge for judge in run.results.judges if judge.name in run.judge_names]
    return [Worth(judge.name, worth_in_words(judge), judge.name in run.coins) for judge in judges]


def per_task(run: Run) -> list[WinRate]:
    """The ladder's comparisons task by task."""
    reference = run.results.win_reference
    rates = [
        rate for rate in run.results.win_rates if rate.task is not None and reference in (rate.a, rate.b)
    ]
    return [oriented(rate, rate.a if rate.b == reference else rate.b) for rate in rates]


def matrices(run: Run) -> list[Matrix]:
    """All pairs, one matrix a judge; only where there are pairs beyond the ladder."""
    pooled = _pooled(run)
    names = [policy.name for policy in run.results.policies]
    found = []
    for judge in run.judge_names:
        pairs = {(a, b) for a, b, j in pooled if j == judge}
        if not any(run.results.win_reference not in pair for pair in pairs):
            continue
        present = [name for name in names if any(name in pair for pair in pairs)]
        cells = [[_cell(pooled.get((a, b, judge))) for b in present] for a in present]
        found.append(Matrix(judge, present, cells))
    return found


def _pooled(run: Run) -> dict[tuple[str, str, str], WinRate]:
    pooled = {}
    for rate in run.results.win_rates:
        if rate.task is None:
            pooled[rate.a, rate.b, rate.judge] = rate
            pooled.setdefault((rate.b, rate.a, rate.judge), oriented(rate, rate.b))
    return pooled


def _rung(rate: WinRate) -> Rung:
    return Rung(
        rate.judge,
        None if rate.win_rate is None else round(100 * rate.win_rate, 2),
        None if rate.ci is None else (_percent(rate.ci[0]), _percent(rate.ci[1])),
        number(rate.win_rate, "rate"),
        interval(rate.ci, "rate"),
        rate,
    )


def _percent(value: float) -> float:
    return round(100 * min(1.0, max(0.0, value)), 2)


def _cell(rate: WinRate | None) -> Cell | None:
    if rate is None or rate.win_rate is None:
        return None
    title = (
        f"{rate.a} over {rate.b}: {number(rate.win_rate, 'rate')} % {interval(rate.ci, 'rate')}, n = {rate.n}"
    )
    return Cell(f"{100 * rate.win_rate:.0f}", title, round((rate.win_rate - 0.5) * 10))
