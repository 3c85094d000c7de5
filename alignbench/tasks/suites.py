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

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignbench.errors import UsageError, nearest
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
    unusable."""

    name: str
    path: Path
    description: str = ""
    tasks: tuple[str, ...] = ()
    problem: str | None = None

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
            problem = first.problem or suite.problem
            suites[suite.name] = replace(first, tasks=first.tasks + suite.tasks, problem=problem)
    return [suites[name] for name in sorted(suites)]


def _read(path: Path) -> Suite:
    try:
        file = read_taskfile(path)
    except UsageError as error:
        return Suite(path.stem, path, problem=str(error))
    try:
        spec = SuiteSpec.model_validate(file.keys)
    except ValidationError as error:
        # a mistyped key explains the missing one
        detail = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        location, where = file.where(tuple(detail["loc"]))
        key = ".".join(map(str, detail["loc"]))
        known = list(SuiteSpec.model_fields)
        if detail["type"] == "extra_forbidden":
            said = f"unknown key {key!r}{nearest(key, known)}; known are {', '.join(known)}"
        elif detail["type"] == "missing":
            said = f"key {key!r} is missing; add it"
        else:
            said = f"{'.'.join(map(str, location))!r}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
        return Suite(str(file.keys.get("suite") or path.stem), path, problem=f"{where}: {said}")
    return Suite(spec.suite, path, spec.description, spec.tasks)
