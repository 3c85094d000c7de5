"""What lies below a folder: found by a walk, read once for each state of the files, sorted by a column."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os.path import dirname
from pathlib import Path
from stat import S_ISLNK
from typing import Any

from alignbench.compare.results import FILE as RESULTS
from alignbench.errors import AlignbenchError
from alignbench.report.entries import METRICS, RECORD, Entry, RunEntry, Unread, run_entry, training_entry
from alignbench.report.run import read_run

DEPTH = 6
"""How far below the folder runs are looked for."""
READ = (RESULTS, RECORD, METRICS, "report.html", "samples.parquet", "preferences.parquet")
"""Every file that is ever read of a run."""
EMPTY = "empty: an eval or compare that still runs, or was stopped; the same command again goes on"
SKIPPED = frozenset({"checkpoints", "raw"})


class Catalogue:
    """The runs below ``root``; each is read once for each state of its files. Links are not followed out."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._held: dict[str, tuple[object, Entry]] = {}
        self._lock = threading.Lock()

    def scan(self) -> list[Entry]:
        """Everything there is now, by path."""
        with self._lock:
            held = {key: self._entry(key, path, files) for key, path, files in self._folders()}
            # an empty folder means something only where runs are written
            homes = {dirname(key) for key, (_, entry) in held.items() if isinstance(entry, RunEntry)}
            self._held = {
                key: pair
                for key, pair in held.items()
                if dirname(key) in homes or not isinstance(pair[1], Unread) or pair[1].error != EMPTY
            }
            return [entry for _, entry in self._held.values()]

    def find(self, key: str) -> Entry | None:
        """The entry at ``key`` (a path relative to the root, as a scan gave it), as it is now."""
        if key not in self._held:
            self.scan()
        with self._lock:
            if key not in self._held or not self._held[key][1].folder.is_dir():
                return None
            folder = self._held[key][1].folder
            files = [name for name in READ if (folder / name).is_file()]
            self._held[key] = self._entry(key, folder, files)
            return self._held[key][1]

    def _folders(self) -> Iterator[tuple[str, Path, list[str]]]:
        root = str(self.root)
        for folder, names, files in os.walk(root):
            key = os.path.relpath(folder, root).replace(os.sep, "/")
            empty = not names and not files
            names[:] = sorted(n for n in names if not n.startswith(".") and n not in SKIPPED)
            if key.count("/") + 1 >= DEPTH:
                names.clear()
            here = [name for name in READ if name in files]
            if RESULTS in here or {RECORD, METRICS} <= set(here) or (empty and key != "."):
                yield key, Path(folder), here

    def _entry(self, key: str, folder: Path, files: Sequence[str]) -> tuple[object, Entry]:
        """The entry, and a stamp of the files it was read from; what is held where nothing changed."""
        stats = {name: stat for name in files if (stat := _lstat(folder / name)) is not None}
        stamp = [(name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in stats.items()]
        held = self._held.get(key)
        if held is not None and held[0] == stamp:
            return held
        when = max((stat.st_mtime for stat in stats.values()), default=0.0)
        date = f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M}" if when else ""
        if not stats:
            return stamp, Unread(key, folder, f"{folder} cannot be looked into" if files else EMPTY)
        try:
            return stamp, self._read(key, folder, stats, date)
        except AlignbenchError as error:
            reason = str(error)
        except Exception as error:  # whatever one folder holds, it does not hide the others
            reason = f"{folder} cannot be read ({type(error).__name__}: {error}); repair it or move it away"
        return stamp, Unread(key, folder, reason, date)

    def _read(self, key: str, folder: Path, stats: Mapping[str, os.stat_result], date: str) -> Entry:
        links = [name for name, stat in stats.items() if S_ISLNK(stat.st_mode)]
        outside = [name for name in links if not (folder / name).resolve().is_relative_to(self.root)]
        if outside:
            return Unread(key, folder, f"{outside[0]} is a link that leads out of {self.root}", date)
        if RESULTS in stats:
            return run_entry(key, read_run(folder), date)
        return training_entry(key, folder)


def _lstat(path: Path) -> os.stat_result | None:
    """None where the file went away between the walk and now, or its folder may not be entered."""
    try:
        return os.lstat(path)
    except OSError:
        return None


@dataclass(frozen=True)
class Column:
    """A column that can be sorted by; ``falls``: the first click puts the largest on top."""

    key: str
    title: str
    value: Callable[[Any], Any]
    falls: bool = False


RUN_COLUMNS = (
    Column("name", "Run", lambda entry: natural(entry.key)),
    Column("policies", "Policies", lambda entry: [natural(name) for name, _ in entry.policies]),
    Column("win", "Preferred", lambda entry: entry.preferred and entry.preferred.value, True),
    Column("tax", "NLP gain or cost", lambda entry: entry.tax and entry.tax.value),
    Column("documents", "Documents", lambda entry: entry.documents, True),
    Column("date", "Date", lambda entry: entry.date or None, True),
)
TRAINING_COLUMNS = (
    Column("name", "Training run", lambda entry: natural(entry.key)),
    Column("kind", "Kind", lambda entry: entry.title),
    Column("model", "Started from", lambda entry: natural(entry.model)),
    Column("steps", "Steps", lambda entry: entry.step, True),
    Column(
        "measured",
        "Measured last",
        lambda entry: entry.measured and (entry.measured.about.split(",")[0], entry.measured.value),
    ),
    Column("date", "Date", lambda entry: entry.date or None, True),
)
NEWEST = "-date"


def natural(text: str) -> list[tuple[bool, int, str]]:
    """A key under which seed2 comes before seed10."""
    parts = re.split(r"([0-9]+)", text.lower())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def arrange(entries: Sequence[Any], columns: Sequence[Column], asked: str) -> list[Any]:
    """Sort by the column ``asked`` for (``-`` before it: falling), else the newest first; unknown comes last,
    and what is equal stays in the order of names."""
    by_key = {column.key: column for column in columns}
    column = by_key.get(asked.removeprefix("-"))
    falls = asked.startswith("-")
    if column is None:
        column, falls = by_key["date"], True
    ordered = sorted(entries, key=lambda entry: natural(entry.key))
    known = [entry for entry in ordered if column.value(entry) is not None]
    unknown = [entry for entry in ordered if column.value(entry) is None]
    return sorted(known, key=column.value, reverse=falls) + unknown
