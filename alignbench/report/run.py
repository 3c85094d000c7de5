"""What lies in a run folder, read as far as it is needed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from alignbench.compare.results import (
    Comparison,
    Delta,
    Interval,
    ScorerResult,
    TaskResult,
    Verdict,
    WinRate,
    read_results,
)
from alignbench.compare.worth import no_better_than_a_coin

SLOTS = 8
"""Colour-and-shape pairs that the stylesheet knows; policies beyond share them in turn."""

FLIPPED: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Run:
    """A run folder: its results, and the manifest ``run.json`` (empty where there is none)."""

    folder: Path
    results: Comparison
    manifest: dict[str, Any]

    @cached_property
    def slots(self) -> dict[str, int]:
        """Policy name → colour and shape. The same everywhere on the page."""
        return {policy.name: i % SLOTS for i, policy in enumerate(self.results.policies)}

    def slot(self, name: str) -> int:
        return self.slots.get(name, SLOTS - 1)

    @cached_property
    def date(self) -> str:
        """When the run was made, ``YYYY-MM-DD HH:MM``; empty if nobody wrote it down."""
        for part in (self.manifest, self.results.provenance):
            for key in ("finished", "created", "date", "time", "started"):
                if isinstance(part.get(key), str):
                    return str(part[key])[:16].replace("T", " ")
        return ""

    @cached_property
    def documents(self) -> int:
        """Documents asked, each task counted once."""
        return sum(self.asked.values())

    @cached_property
    def asked(self) -> dict[str, int]:
        """Task → documents asked, also of tasks that only a judge compares, which have no row of scores."""
        found = {row.task: row.n for row in self.results.tasks}
        told = self.results.provenance.get("tasks")
        for name, held in told.items() if isinstance(told, dict) else ():
            if isinstance(held, dict) and isinstance(held.get("documents"), int):
                found.setdefault(name, held["documents"])
        return found

    @cached_property
    def coins(self) -> list[str]:
        """Judges that are not shown to beat a coin: their win-rates are marked wherever they stand."""
        return no_better_than_a_coin(self.results.judges)

    @cached_property
    def judge_names(self) -> list[str]:
        return list(dict.fromkeys(rate.judge for rate in self.results.win_rates))

    def scored_by(self, row: TaskResult) -> str:
        """What gave a metric's values, as ``--scorer`` names it but for its options, and of how many outputs
        a document; empty where that is the task itself, of one output."""
        specs = {scorer.name: scorer.spec.partition("?")[0] for scorer in self.results.scorers}
        named = ", ".join(f"{name}={specs[name]}" if name in specs else name for name in row.scorers)
        drawn = f"{row.samples} outputs a document" if row.samples > 1 else ""
        return " · ".join(part for part in (named and f"scorer {named}", drawn) if part)


def read_run(folder: Path) -> Run:
    """Read ``results.json`` and ``run.json``; a path to the ``results.json`` itself will do.

    Raises:
        UsageError: no ``results.json``, or it does not fit this version's schema.
    """
    results = read_results(folder)
    folder = folder.parent if folder.is_file() else folder
    try:
        manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        manifest = {}
    return Run(folder, results, manifest if isinstance(manifest, dict) else {})


def oriented(rate: WinRate, a: str) -> WinRate:
    """The same comparison seen from ``a``."""
    if rate.a == a:
        return rate
    controlled = rate.length_controlled
    if controlled is not None:
        controlled = replace(controlled, win_rate=1 - controlled.win_rate, ci=_complement(controlled.ci))
    return replace(
        rate,
        a=rate.b,
        b=rate.a,
        wins=rate.losses,
        losses=rate.wins,
        win_rate=None if rate.win_rate is None else 1 - rate.win_rate,
        ci=_complement(rate.ci),
        verdict=FLIPPED.get(rate.verdict, rate.verdict),
        length_controlled=controlled,
    )


def _complement(ci: Interval | None) -> Interval | None:
    return None if ci is None else (1 - ci[1], 1 - ci[0])


def gain_intervals(delta: Delta, higher_is_better: bool | None) -> tuple[Interval | None, Interval | None]:
    """The plain and the simultaneous interval of the gain; of the difference where no direction is better."""
    if delta.gain is None:
        return delta.ci, delta.ci_simultaneous
    if delta.gain_ci is not None or higher_is_better is None:
        return delta.gain_ci, delta.gain_ci_simultaneous
    # a file by another writer may leave the gain's intervals out; with a direction they follow from the sign
    return _turned(delta.ci, higher_is_better), _turned(delta.ci_simultaneous, higher_is_better)


def _turned(ci: Interval | None, higher_is_better: bool) -> Interval | None:
    return ci if ci is None or higher_is_better else (-ci[1], -ci[0])


def scorer_words(scorer: ScorerResult) -> str:
    """What a reader must know of a scorer, in a line."""
    cut = f"{scorer.cut:,} outputs were longer than it reads, so that it saw a part" if scorer.cut else ""
    return "; ".join(part for part in (scorer.note, cut) if part)
