"""The page's small tables: what stands at a glance, the alignment tax, the task table, the provenance."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.compare.results import PolicyResult, TaskResult, Tax
from alignbench.report.forest import AREAS
from alignbench.report.run import Run
from alignbench.report.scale import Scale, fit
from alignbench.report.text import interval, number

VERDICTS = ("better", "worse", "equivalent", "inconclusive")


@dataclass(frozen=True)
class Glance:
    """One policy: how many headline verdicts of each kind in each area."""

    policy: str
    slot: int
    reference: bool
    tallies: dict[str, dict[str, int]]


@dataclass(frozen=True)
class TaxRow:
    policy: str
    slot: int
    tax: Tax
    at: float | None
    ci: tuple[float, float] | None
    estimate: str
    bounds: str
    normalised: str


def glance(run: Run) -> tuple[list[str], list[Glance]]:
    """Areas that have verdicts, and the tally of each policy. A tally is no test; it only points."""
    directed = {
        (row.task, row.metric)
        for row in run.results.tasks
        if row.headline and (row.higher_is_better is not None or row.ideal is not None)
    }
    counts: dict[tuple[str, str], Counter[str]] = {}
    for delta in run.results.deltas:
        if (delta.task, delta.metric) in directed and delta.gain is not None:
            counts.setdefault((delta.policy, delta.area), Counter())[delta.verdict] += 1
    areas = [area for area in AREAS if any(key[1] == area for key in counts)]
    rows = []
    for policy in run.results.policies:
        tallies = {
            area: {word: counts[policy.name, area][word] for word in VERDICTS}
            for area in areas
            if (policy.name, area) in counts
        }
        rows.append(Glance(policy.name, run.slot(policy.name), policy.name == run.results.reference, tallies))
    return areas, rows


def reaches(policy: PolicyResult) -> str:
    """How text reached the model, in a line; empty where nothing is known."""
    inputs = policy.inputs
    if inputs is None:
        return ""
    template = f"chat template {'on' if inputs.chat_template else 'off'}"
    if inputs.template_choice == "auto":
        template += " (auto)"
    cut = ", ".join(f"{task} {n:,}" for task, n in policy.cut.items())
    words = [
        inputs.dtype,
        inputs.adapter and f"adapter {Path(inputs.adapter).name}",
        inputs.prefix and f"prefix {Path(inputs.prefix).name}",
        None if inputs.chat_template is None else template,
        # a template writes its own
        None
        if inputs.in_front is None or inputs.chat_template
        else f"{inputs.in_front or 'no BOS'} in front",
        inputs.context_length and f"context {inputs.context_length:,} tokens",
        inputs.server,
        cut and f"prompts cut on the left to fit: {cut}",
    ]
    return " · ".join(word for word in words if word)


def tax(run: Run) -> tuple[Scale, list[TaxRow]] | None:
    """The alignment tax of each policy on one axis; ``None`` where no nlp task was run."""
    known = [row for row in run.results.tax if row.mean_gain is not None]
    if not known:
        return None
    ends = [end for row in known for end in (row.mean_gain, *(row.ci or ()))]
    scale = fit(ends, least=0.01)
    rows = []
    for row in run.results.tax:
        rows.append(
            TaxRow(
                row.policy,
                run.slot(row.policy),
                row,
                None if row.mean_gain is None else scale.at(row.mean_gain),
                scale.span(row.ci),
                number(row.mean_gain, "rate", sign=True),
                interval(row.ci, "rate", sign=True),
                number(row.normalised_gain, "rate", sign=True),
            )
        )
    return scale, rows


def task_rows(run: Run) -> list[TaskResult]:
    """Rows of the task table: by area, headline first within a task."""
    areas = list(AREAS)
    first = {row.task: i for i, row in reversed(list(enumerate(run.results.tasks)))}
    return sorted(
        run.results.tasks, key=lambda row: (areas.index(row.area), first[row.task], not row.headline)
    )


def methods(run: Run) -> list[str]:
    """The names of the statistical methods that were used, as the statistics state them."""
    named = [delta.method for delta in run.results.deltas] + [rate.method for rate in run.results.win_rates]
    named += [score.method for row in run.results.tasks for score in row.scores.values()]
    return sorted({name for name in named if name})


@dataclass(frozen=True)
class TaskSource:
    """What was asked of a task: how many documents, and the hashes of its file and of those documents."""

    task: str
    documents: str
    fingerprint: str
    documents_fingerprint: str


TOLD = ("tasks", "documents", "fingerprints", "failures", "kind", "notes")
"""Parts of the manifest that the page shows elsewhere, or that are too long for it."""
TOLD_CONFIG = ("policies", "tasks", "judges", "reference", "win_reference")


def sources(run: Run) -> list[TaskSource]:
    """What the run recorded of its tasks."""
    tasks = {**run.results.provenance, **run.manifest}.get("tasks")
    if not isinstance(tasks, dict):
        return []
    rows = []
    for name, held in tasks.items():
        if isinstance(held, dict):
            asked, available = held.get("documents"), held.get("available")
            documents = f"{asked} of {available}" if available is not None else show(asked)
            hashes = (str(held.get(key) or "–")[:16] for key in ("fingerprint", "documents_fingerprint"))
            rows.append(TaskSource(name, documents, *hashes))
    return rows


def provenance(run: Run) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """``run.json`` and the provenance within the results as titled lists of (key, lines)."""
    data: dict[str, Any] = {**run.results.provenance, **run.manifest}
    notes = data.get("notes")
    command = data.get("command")
    if isinstance(command, list):
        data["command"] = shlex.join(map(str, command))
    settings = {key: value for key, value in data.items() if key not in TOLD}
    plain = [(key, [show(value)]) for key, value in settings.items() if not isinstance(value, dict)]
    if isinstance(notes, list) and notes:
        plain.append(("notes", [str(note) for note in notes]))
    blocks = [("run", plain)] if plain else []
    for key, value in settings.items():
        if isinstance(value, dict):
            known = {
                k: v for k, v in value.items() if key != "config" or (k not in TOLD_CONFIG and k not in data)
            }
            if known:
                blocks.append((key, [(name, [text]) for name, text in flat(known)]))
    return blocks


def flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as one list, the outer key first."""
    items: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            items += flat(value, f"{prefix}{key}, ")
        else:
            items.append((f"{prefix}{key}", show(value)))
    return items


def show(value: Any) -> str:
    """A setting in plain words."""
    if value is None or value == {}:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        if len(value) > 24:
            return f"{', '.join(map(str, value[:8]))}, … ({len(value)} in all, in run.json)"
        return ", ".join(map(str, value)) or "none"
    return str(value)
