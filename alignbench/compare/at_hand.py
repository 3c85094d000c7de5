"""Which of the tasks that were asked for can be measured: with data, and with scorers for their metrics."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from alignbench.errors import DataAbsentError, UsageError
from alignbench.tasks.scoring import with_scorers
from alignbench.tasks.types import Task


def at_hand(
    tasks: Sequence[Task], named: Collection[str], scorers: Sequence[str]
) -> tuple[list[Task], list[str]]:
    """The tasks whose data and scorers are at hand, with the metrics that are, and the notes that say what is
    not. Of a suite, family or glob the others are left out; one that is named by itself is an error."""
    notes, absent, kept = [], dict[str, UsageError](), list[Task]()
    wanting: dict[str, list[str]] = {}
    for task in tasks:
        for metric in task.metrics:
            if lacks := [name for name in metric.scorers if name not in scorers]:
                wanting.setdefault(f"{metric.name} (scorer {' and '.join(lacks)})", []).append(task.name)
    if wanting:
        each = "; ".join(f"{metric} of {', '.join(names)}" for metric, names in wanting.items())
        notes.append(f"left out, for want of --scorer NAME=SPEC: {each}")
    for task in tasks:
        try:
            found = with_scorers(task, scorers)
        except UsageError:
            if task.name in named or len(tasks) == 1:
                raise
            continue
        try:
            found.load()
        except DataAbsentError as error:
            if task.name in named:
                raise
            absent[task.name] = error
        else:
            kept.append(found)
    if not kept:
        raise next(iter(absent.values()), UsageError("none of the tasks has a scorer; see --scorer"))
    if absent:
        notes.append(f"left out, as their data are not at hand: {', '.join(absent)}")
    return kept, notes
