"""Suites: named lists of tasks, one YAML file each in a folder ``suites``.

``suite`` is the name, ``description`` a sentence, ``tasks`` a list of tasks, families and globs. A suite's
name wins over a family's. Files of one name make one suite together, so that a folder of one's own can add
to a shipped one.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from alignbench.errors import UsageError
from alignbench.tasks.problems import validated
from alignbench.tasks.taskfile import read_taskfile

FOLDER = "suites"


class SuiteSpec(BaseModel):
    """The keys of a suite's file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str = Field(pattern=r"^[\w.-]+$")
    description: str = Field(min_length=1)
    tasks: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Suite:
    """One suite that was found: its ``tasks`` (names, families, globs), or the ``problem`` that makes it
    unusable. ``origins``: for each of its tasks the file, and the place in that file's list."""

    name: str
    path: Path
    description: str = ""
    tasks: tuple[str, ...] = ()
    problem: str | None = None
    origins: tuple[tuple[Path, int], ...] = ()

    def where(self, i: int) -> str:
        """``file, line N`` of one of its tasks."""
        path, place = self.origins[i]
        return read_taskfile(path).where(("tasks", place))[1]

    def holds(self, name: str, family: str) -> bool:
        """Whether a task is one of it."""
        return self.problem is None and any(matches(pattern, name, family) for pattern in self.tasks)


def is_suite(path: Path) -> bool:
    """Whether a YAML file is one of suites, by its folder."""
    return path.parent.name == FOLDER


def matches(pattern: str, name: str, family: str) -> bool:
    """Whether a line of a suite means a task."""
    return pattern == family or fnmatch.fnmatchcase(name, pattern)


def read_suites(files: Iterable[Path]) -> list[Suite]:
    """Read them, in name order. Those of one name are one suite, with the description of the first; a broken
    file makes its suite one with a problem."""
    suites: dict[str, Suite] = {}
    for suite in map(_read, files):
        first = suites.setdefault(suite.name, suite)
        if first is not suite:
            # what a broken file would say is not known, so the suite is not either
            problem = first.problem or suite.problem
            origins = first.origins + suite.origins
            suites[suite.name] = replace(
                first, tasks=first.tasks + suite.tasks, origins=origins, problem=problem
            )
    return [suites[name] for name in sorted(suites)]


def problems_of_suite(path: Path) -> list[str]:
    """Every problem of the file's YAML and keys, one sentence each; whether its tasks exist is for
    ``check``."""
    return _spec(path)[1]


def _read(path: Path) -> Suite:
    spec, problems = _spec(path)
    if spec is None:
        more = f" (and {len(problems) - 1} more: alignbench tasks check)" if len(problems) > 1 else ""
        return Suite(_name(path), path, problem=problems[0] + more)
    origins = tuple((path, i) for i in range(len(spec.tasks)))
    return Suite(spec.suite, path, spec.description, spec.tasks, origins=origins)


def _spec(path: Path) -> tuple[SuiteSpec | None, list[str]]:
    try:
        file = read_taskfile(path)
    except UsageError as error:
        return None, [str(error)]
    if "task" in file.keys and "suite" not in file.keys and "tasks" not in file.keys:
        return None, [f"{path}: this is a task's file, and the folder 'suites' is for suites; move it"]
    return validated(SuiteSpec, file)


def _name(path: Path) -> str:
    """The name of a broken suite: its file's own, where it cannot be read."""
    try:
        return str(read_taskfile(path).keys.get("suite") or path.stem)
    except UsageError:
        return path.stem
