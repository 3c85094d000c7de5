"""The rows of a recording: which columns they have, whose they are, and what each holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from alignbench.errors import UsageError, nearest

OUTPUTS = ("output", "response", "outputs", "responses")
KEYS = ("doc_id", "prompt", "instruction")
"""The columns that say what a row answers, the most exact first."""
GENERATORS = ("generator", "policy")
PAIRS = tuple({"output": f"output_{side}", "generator": f"generator_{side}"} for side in (1, 2))
"""The columns of AlpacaEval's annotations, whose rows hold the outputs of two."""
Scores = Mapping[str, float | None]
"""Scorer's name → its score of one output; None: it failed."""


@dataclass(frozen=True)
class Record:
    """One row: ``output`` to what the column ``by`` calls ``key``. ``number`` counts rows from 1; ``task``
    None: the row does not say; ``prompt``: as the row has it, to check a join by ``doc_id``; ``input``: the
    same for a join by ``instruction``, stripped, None where the row has no such column; ``outputs``: none
    where the file has null, several where it has a list; ``scores``: what the row says of each of them."""

    number: int
    task: str | None
    by: str
    key: str
    prompt: str | None
    input: str | None
    outputs: tuple[str, ...]
    scores: tuple[Scores, ...] = ()

    @property
    def label(self) -> str:
        """How messages call it."""
        return str(self.number)


def parted(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A row of AlpacaEval's annotations as two, one an output; any other row as it is."""
    if not all(side["output"] in row for side in PAIRS) or any(name in row for name in OUTPUTS):
        return [row]
    return [{**row, **{name: row.get(column) for name, column in side.items()}} for side in PAIRS]


def of_generator(
    rows: list[tuple[int, dict[str, Any]]], wanted: str | None, what: str
) -> tuple[str | None, list[tuple[int, dict[str, Any]]]]:
    """The rows of one generator, and its name; all rows where the file names none.

    Of two naming columns the first that holds ``wanted`` counts, else the first that tells rows apart.
    """
    named = {column: found for column in GENERATORS if (found := _names(rows, column))}
    if not named:
        if wanted is not None:
            raise UsageError(f"{what}: the file names no generator; leave ?generator= out")
        return None, rows
    column = next(
        (column for column, found in named.items() if wanted in found),
        next((column for column, found in named.items() if len(found) > 1), next(iter(named))),
    )
    bare = next((number for number, row in rows if not row.get(column)), None)
    if bare is not None:
        raise UsageError(f"{what}: row {bare} names no {column}, and other rows do; name it in every row")
    names = named[column]
    listed = shorten(names)
    if wanted is None and len(names) > 1:
        raise UsageError(f"{what}: the file holds outputs of {listed}; choose one with ?generator=NAME")
    if wanted is not None and wanted not in names:
        raise UsageError(f"{what}: no generator {wanted!r}{nearest(wanted, names)}; the file has {listed}")
    chosen = wanted or names[0]
    kept = [(number, row) for number, row in rows if str(row[column]) == chosen]
    for other in named:
        if len(held := _names(kept, other)) > 1:
            raise UsageError(
                f"{what}: the rows whose {column} is {chosen} are of several in the column {other}: "
                f"{shorten(held)}; choose one with ?generator=NAME, or keep only its rows in the file"
            )
    return chosen, kept


def _names(rows: Sequence[tuple[int, Mapping[str, Any]]], column: str) -> list[str]:
    return list(dict.fromkeys(str(row[column]) for _, row in rows if row.get(column)))


def shorten(names: Sequence[str]) -> str:
    """Names for a message: the first of many."""
    return ", ".join(names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "")


def read_record(number: int, row: Mapping[str, Any], what: str) -> Record:
    # one with text before one that is null, and all outputs before one of them (samples.parquet has both)
    present = sorted(
        (name for name in OUTPUTS if name in row),
        key=lambda name: (row[name] is None, not isinstance(row[name], list)),
    )
    name = next(iter(present), None)
    by = next((key for key in KEYS if row.get(key) not in (None, "")), None)
    if name is None or by is None:
        raise UsageError(
            f"{what}: row {number} needs an output ({' or '.join(OUTPUTS)}) and what it answers "
            f"({', '.join(KEYS)}); its columns are {', '.join(map(str, row))}"
        )
    task, prompt = row.get("task"), row.get("prompt")
    outputs = () if row[name] is None else (row[name],) if not isinstance(row[name], list) else row[name]
    strange = next((output for output in outputs if not isinstance(output, str)), None)
    if strange is not None or None in outputs:
        held = "a list with " if isinstance(row[name], list) else ""
        raise UsageError(
            f"{what}: row {number}: {name} is {held}{type(strange).__name__}, not text; mend this row"
        )
    return Record(
        number=number,
        task=None if task in (None, "") else str(task),
        by=by,
        key=str(row[by]),
        prompt=prompt if isinstance(prompt, str) else None,
        input=stripped(row["input"]) if "input" in row else None,
        outputs=tuple(outputs),
        scores=_scores(row.get("scores"), len(outputs), f"{what}: row {number}"),
    )


def _scores(told: Any, n: int, where: str) -> tuple[Scores, ...]:
    """``scores`` of a row: scorer → a number, or one for each of its ``n`` outputs; null: the scorer
    failed."""
    if told in (None, ""):
        return ({},) * n
    if isinstance(told, str):  # as samples.parquet has it
        with suppress(ValueError):
            told = json.loads(told)
    mend = 'write {"NAME": number}, with a list of numbers where the row has several outputs'
    if not isinstance(told, Mapping):
        raise UsageError(f"{where}: scores is {type(told).__name__}; {mend}")
    columns: dict[str, list[float | None]] = {}
    for name, value in told.items():
        values = value if isinstance(value, list) else [value]
        sound = all(each is None or (type(each) in (int, float) and math.isfinite(each)) for each in values)
        if len(values) != n or not sound:
            raise UsageError(f"{where}: scores.{name} is no number for each of its {n} outputs; {mend}")
        columns[str(name)] = [None if each is None else float(each) for each in values]
    return tuple({name: values[k] for name, values in columns.items()} for k in range(n))


def stripped(value: object) -> str:
    """An ``input`` as it is compared: no text where there is none, no white space around it."""
    return "" if value is None else str(value).strip()


def clip(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
