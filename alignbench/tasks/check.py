"""Every problem of a task file that can be found without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignbench.errors import AlignbenchError, UsageError
from alignbench.tasks.documents import Builder, load_documents
from alignbench.tasks.plugins import function
from alignbench.tasks.registry import list_entries, task_files, tasks_root
from alignbench.tasks.spec import TaskSpec, problems_of, read_spec


def check_path(path: Path, mirror: Path | None = None) -> list[dict[str, Any]]:
    """Check one task file, or all below a folder.

    Returns:
        One ``{path, task, status, problems}`` a file; ``status`` is one line, ``problems`` is empty for a
        good file.

    Raises:
        UsageError: no such path, or a folder without task files.
    """
    files = task_files(path) if path.is_dir() else [path]
    if not path.exists() or not files:
        raise UsageError(f"{path} {'holds no task file (*.yaml)' if path.exists() else 'does not exist'}")
    reports = [_check(file, mirror) for file in files]
    _name_twins(reports)
    for report in reports:
        problems = report["problems"]
        if problems:
            report["status"] = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return reports


def _check(path: Path, mirror: Path | None) -> dict[str, Any]:
    problems = problems_of(path)
    if problems:
        return {"path": str(path), "task": None, "status": "", "problems": problems}
    spec = read_spec(path)
    trusted = path.resolve().is_relative_to(tasks_root().resolve())
    problems, status = _parts(spec, path, trusted), "good; its data was not looked at (give --data DIR)"
    if not problems and (spec.documents is not None or mirror is not None or _beside(spec, path)):
        try:
            documents = load_documents(spec, path, mirror=mirror, seed=0, trusted=trusted)
            status = f"good; {len(documents)} documents"
        except AlignbenchError as error:
            problems = [str(error)]
    return {"path": str(path), "task": spec.task, "status": status, "problems": problems}


def _parts(spec: TaskSpec, path: Path, trusted: bool) -> list[str]:
    """Templates that do not compile, and functions that are not there."""
    problems = []
    for reference in spec.functions:
        try:
            function(reference, path, trusted=trusted)
        except UsageError as error:
            problems.append(str(error))
    if not problems:
        try:
            Builder(spec, path, trusted=trusted)
        except UsageError as error:
            problems.append(str(error))
    return problems


def _beside(spec: TaskSpec, path: Path) -> bool:
    return spec.data is not None and (path.parent / spec.data.hub).is_file()


def _name_twins(reports: list[dict[str, Any]]) -> None:
    """Add the problem of a name that another checked or shipped file has too."""
    owners: dict[str, set[Path]] = {}
    for entry in list_entries():
        owners.setdefault(entry.name, set()).add(entry.path.resolve())
    for report in reports:
        if report["task"] is not None:
            owners.setdefault(report["task"], set()).add(Path(report["path"]).resolve())
    for report in reports:
        others = owners.get(report["task"], set()) - {Path(report["path"]).resolve()}
        if others:
            named = ", ".join(str(other) for other in sorted(others))
            report["problems"].append(f"the task name {report['task']!r} is also that of {named}; rename one")
