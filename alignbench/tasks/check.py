"""Every problem of task and suite files that can be found without a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from alignbench.errors import AlignbenchError, UsageError, nearest
from alignbench.sources.files import format_of
from alignbench.tasks.documents import load_documents, no_file_beside
from alignbench.tasks.plugins import function
from alignbench.tasks.problems import dotted, said
from alignbench.tasks.registry import Registry, look, suite_files, task_files, tasks_root
from alignbench.tasks.spec import TaskSpec, problems_of, read_spec
from alignbench.tasks.suites import FOLDER, is_suite, matches, problems_of_suite, read_suites
from alignbench.tasks.taskfile import Location, read_taskfile
from alignbench.tasks.templates import expression, template

TEMPLATES = ("prompt", "doc_id", "cluster", "target")
EXPRESSIONS = ("where", "choices", "correct", "references")
FUNCTIONS = ("documents", "arrange", "prepare", "score")


def check_path(path: Path, mirror: Path | None = None) -> list[dict[str, Any]]:
    """Check one task or suite file, or all below a folder.

    Returns:
        One ``{path, task, suite, status, problems}`` a file, with the name as ``task`` or ``suite``;
        ``status`` is one line, ``problems`` is empty for a good file.

    Raises:
        UsageError: no such path, or a folder without task and suite files.
    """
    files = sorted([*task_files(path), *suite_files(path)]) if path.is_dir() else [path]
    if not path.exists() or not files:
        raise UsageError(f"{path} {'holds no task file (*.yaml)' if path.exists() else 'does not exist'}")
    registry = look([_root(path)])
    reports = [
        _check_suite(file, registry) if is_suite(file.resolve()) else _check(file, mirror) for file in files
    ]
    _name_twins(reports)
    for report in reports:
        problems = report["problems"]
        if problems:
            report["status"] = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return reports


def _root(path: Path) -> Path:
    """The tasks folder that a path belongs to: suites name the tasks beside their own folder."""
    folder = path if path.is_dir() else path.parent
    return folder.resolve().parent if folder.resolve().name == FOLDER else folder


def _report(
    path: Path, problems: list[str], status: str = "", task: str | None = None, suite: str | None = None
) -> dict[str, Any]:
    return {"path": str(path), "task": task, "suite": suite, "status": status, "problems": problems}


def _check(path: Path, mirror: Path | None) -> dict[str, Any]:
    problems = problems_of(path)
    if problems:
        return _report(path, problems)
    spec = read_spec(path)
    trusted = path.resolve().is_relative_to(tasks_root().resolve())
    problems, status = _parts(spec, path, trusted), "good; its data was not looked at (give --data DIR)"
    if spec.data is not None and mirror is None and not _beside(spec, path):
        beside = path.parent / spec.data.hub
        if format_of(beside) is not None and beside.parent.is_dir():
            problem = f"data.hub: {no_file_beside(beside)}, or give --data DIR"
            problems.append(said(read_taskfile(path), ("data", "hub"), problem))
    if not problems and (spec.documents is not None or mirror is not None or _beside(spec, path)):
        try:
            n = len(load_documents(spec, path, mirror=mirror, seed=0, trusted=trusted))
            status = f"good; {n} document{'s' if n > 1 else ''}"
        except AlignbenchError as error:
            problems = [_located(str(error), spec, path)]
    return _report(path, problems, status, task=spec.task)


def _located(problem: str, spec: TaskSpec, path: Path) -> str:
    """A problem of the data that names a key or a function, with its line."""
    rest = problem.removeprefix(f"{path}: ")
    if rest == problem:
        return problem
    key = tuple(rest.partition(":")[0].split("."))
    named = [location for location, reference in _functions(spec) if rest.startswith(f"{reference} ")]
    if not named and key[0] not in TaskSpec.model_fields:
        return problem
    return said(read_taskfile(path), named[0] if named else key, rest)


def _check_suite(path: Path, registry: Registry) -> dict[str, Any]:
    problems = problems_of_suite(path)
    if problems:
        return _report(path, problems)
    (suite,) = read_suites([path])
    entries = registry.entries
    known = {entry.name for entry in entries} | {entry.family for entry in entries}
    suites = {each.name for each in registry.suites}
    held: set[str] = set()
    for i, pattern in enumerate(suite.tasks):
        found = {entry.name for entry in entries if matches(pattern, entry.name, entry.family)}
        held |= found
        if not found and pattern in suites:
            problems.append(f"{suite.where(i)}: {pattern!r} is a suite; name its tasks")
        elif not found:
            problems.append(
                f"{suite.where(i)}: no task or family {pattern!r}{nearest(pattern, known)}; mend or remove it"
            )
    return _report(path, problems, f"good; {len(held)} task{'s' if len(held) > 1 else ''}", suite=suite.name)


def _parts(spec: TaskSpec, path: Path, trusted: bool) -> list[str]:
    """Templates that do not compile, and functions that are not there."""
    file = read_taskfile(path)
    problems = []
    for location, part in _compiled(spec, path, trusted):
        try:
            part()
        except UsageError as error:
            problems.append(said(file, location, str(error).removeprefix(f"{path}: ")))
    return list(dict.fromkeys(problems))


def _compiled(spec: TaskSpec, path: Path, trusted: bool) -> Iterator[tuple[Location, Callable[[], Any]]]:
    """Every part of a task file that is code, with where it stands and what compiles it."""
    for location, reference in _functions(spec):
        yield location, partial(function, reference, path, trusted=trusted)
    for key in (*TEMPLATES, *EXPRESSIONS):
        if (source := getattr(spec, key)) is not None:
            make: Callable[..., Any] = template if key in TEMPLATES else expression
            yield (key,), partial(make, source, repr(key))
    for name, each in spec.scorers.items():
        at = ("scorers", name, "prompt")
        yield at, partial(template, each.prompt, repr(dotted(at)))


def _functions(spec: TaskSpec) -> Iterator[tuple[Location, str]]:
    for key in FUNCTIONS:
        if (reference := getattr(spec, key)) is not None:
            yield (key,), reference
    for i, metric in enumerate(spec.metrics):
        for key in ("function", "combine"):
            reference = getattr(metric, key)
            if reference in spec.functions:  # and not the name of a statistic
                yield ("metrics", i, key), reference


def _beside(spec: TaskSpec, path: Path) -> bool:
    # unlike Path.is_file, False where the name can be no path
    return spec.data is not None and os.path.isfile(path.parent / spec.data.hub)


def _name_twins(reports: list[dict[str, Any]]) -> None:
    """Add the problem of a name that another checked or shipped file has too."""
    owners: dict[str, set[Path]] = {}
    for entry in look().entries:
        owners.setdefault(entry.name, set()).add(entry.path.resolve())
    for report in reports:
        if report["task"] is not None:
            owners.setdefault(report["task"], set()).add(Path(report["path"]).resolve())
    for report in reports:
        if report["task"] is None:
            continue
        others = owners[report["task"]] - {Path(report["path"]).resolve()}
        if others:
            named = ", ".join(str(other) for other in sorted(others))
            report["problems"].append(
                f"{report['path']}: the task name {report['task']!r} is also that of {named}; rename one"
            )
