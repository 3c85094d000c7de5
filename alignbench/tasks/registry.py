"""Which tasks there are, and how a name on the command line finds them.

A task is a YAML file in a folder that is named after its family. Folders are looked through in the shipped
tasks, in every ``--tasks-dir``, and in packages with an entry point in the group ``alignbench.tasks``. There
is no list to register in. A broken file stays in the listing, marked broken, and is an error when it is used.
A suite is a YAML file in a folder ``suites`` of them (``suites.py``).
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from alignbench.errors import UsageError, nearest
from alignbench.metrics import COMBINE, CORPUS, RAW
from alignbench.tasks.documents import Builder, load_documents
from alignbench.tasks.prompts import PROMPTS, prompts_task
from alignbench.tasks.scoring import combiners, questions, rater, scorer
from alignbench.tasks.spec import MetricSpec, TaskSpec, peek, read_spec
from alignbench.tasks.suites import Suite, is_suite, matches, read_suites
from alignbench.tasks.taskfile import read_taskfile
from alignbench.tasks.types import Document, Metric, Task

GROUP = "alignbench.tasks"


@dataclass(frozen=True)
class Entry:
    """One task file that was found: its ``spec``, or the ``problem`` that makes it unusable. ``suites``:
    those that hold it."""

    name: str
    family: str
    path: Path
    suites: tuple[str, ...]
    spec: TaskSpec | None
    problem: str | None
    trusted: bool


def tasks_root() -> Path:
    """The folder of the shipped tasks: inside the package in a wheel, at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "shipped_tasks"
    return shipped if shipped.is_dir() else package.parent / "tasks"


@dataclass(frozen=True)
class Registry:
    """All there is: every task file in name order, broken ones included, and every suite. ``own``: folders of
    one's own were looked through too."""

    entries: list[Entry]
    suites: list[Suite]
    own: bool


def look(tasks_dirs: Sequence[Path] = ()) -> Registry:
    """Look through all folders. Two task files of one name are both broken; a suite that is broken, or one of
    two with the same name, has a ``problem``.

    Raises:
        UsageError: a tasks folder that does not exist.
    """
    folders, entries = _folders(tasks_dirs)
    for folder, trusted in folders.items():
        entries += entries_of(task_files(folder), trusted=trusted)
    unique = {entry.path.resolve(): entry for entry in reversed(entries)}  # a folder given twice counts once
    found = _mark_twins(sorted(unique.values(), key=lambda entry: (entry.name, str(entry.path))))
    suites = read_suites(dict.fromkeys(file for folder in folders for file in suite_files(folder)))
    held: dict[str, list[str]] = {}
    for suite in suites:
        for entry in found:
            if suite.holds(entry.name, entry.family):
                held.setdefault(entry.name, []).append(suite.name)
    found = [replace(entry, suites=tuple(held.get(entry.name, ()))) for entry in found]
    return Registry(found, suites, bool(tasks_dirs))


def list_entries(tasks_dirs: Sequence[Path] = ()) -> list[Entry]:
    """Every task file; see ``look``."""
    return look(tasks_dirs).entries


def find_tasks(
    names: Sequence[str], *, tasks_dirs: Sequence[Path] = (), mirror: Path | None = None, seed: int = 0
) -> list[Task]:
    """Tasks by name, family (folder), suite, glob or ``prompts:FILE``; each may hold commas; none twice.

    Raises:
        UsageError: an unknown name (with the nearest known one), or a broken task file among those asked for.
    """
    wanted = [part.strip() for name in names for part in name.split(",") if part.strip()]
    if not wanted:
        raise UsageError("no task was named; see 'alignbench tasks list'")
    registry = look(tasks_dirs)
    tasks: dict[str, Task] = {}
    for name in wanted:
        if name.startswith(PROMPTS):
            found = [prompts_task(Path(name.removeprefix(PROMPTS)).expanduser())]
        else:
            found = [_task(entry, mirror, seed) for entry in _sound(name, registry)]
        for task in found:
            if tasks.setdefault(task.name, task).path != task.path:
                raise UsageError(
                    f"{tasks[task.name].path} and {task.path} make two tasks of the name {task.name}; "
                    "rename a file"
                )
    return list(tasks.values())


def select(name: str, registry: Registry) -> list[Entry]:
    """What a name stands for: a task, else a suite, else a family, else a glob. Broken files are among them.

    Raises:
        UsageError: it stands for nothing (with the nearest known name), or for a broken suite.
    """
    entries = registry.entries
    if name.startswith("lm_eval:"):
        raise UsageError(
            f"task {name!r}: tasks of lm_eval are not supported yet; see 'alignbench tasks list'"
        )
    found = [entry for entry in entries if entry.name == name]
    suite = next((suite for suite in registry.suites if suite.name == name), None)
    if not found and suite is not None:
        found = _members(suite, entries)
    found = found or [entry for entry in entries if name == entry.family]
    found = found or [entry for entry in entries if fnmatch.fnmatchcase(entry.name, name)]
    if not found:
        known = {entry.name for entry in entries} | {entry.family for entry in entries}
        known |= {suite.name for suite in registry.suites}
        own = "" if registry.own else ", and give a folder of your own with --tasks-dir DIR"
        raise UsageError(
            f"no task, family or suite {name!r}{nearest(name, known)}; see 'alignbench tasks list'{own}"
        )
    return found


def _sound(name: str, registry: Registry) -> list[Entry]:
    """What a name stands for, none of it broken."""
    found = select(name, registry)
    for entry in found:
        if entry.problem is not None:
            raise UsageError(entry.problem)
    return found


def _members(suite: Suite, entries: Sequence[Entry]) -> list[Entry]:
    """The tasks of a suite, in its order."""
    if suite.problem is not None:
        raise UsageError(suite.problem)
    found: dict[str, Entry] = {}
    for i, pattern in enumerate(suite.tasks):
        some = [entry for entry in entries if matches(pattern, entry.name, entry.family)]
        if not some:
            known = {entry.name for entry in entries} | {entry.family for entry in entries}
            raise UsageError(f"{suite.where(i)}: no task or family {pattern!r}{nearest(pattern, known)}")
        found.update((entry.name, entry) for entry in some)
    return list(found.values())


# --- discovery ---------------------------------------------------------------------------------------------


def entries_of(paths: Iterable[Path], *, trusted: bool) -> list[Entry]:
    """Read task files; a broken one becomes an entry with its problem."""
    return [_entry(path, trusted) for path in paths]


def task_files(folder: Path) -> list[Path]:
    """All YAML files below ``folder`` but hidden ones and suites, in path order."""
    return [path for path in _yaml_files(folder) if not is_suite(path)]


def suite_files(folder: Path) -> list[Path]:
    """All suites' files below ``folder`` but hidden ones, in path order."""
    return [path for path in _yaml_files(folder) if is_suite(path)]


def _folders(tasks_dirs: Sequence[Path]) -> tuple[dict[Path, bool], list[Entry]]:
    """Every folder that is looked through → whether its code is alignbench's own; and an entry for each
    entry point that gives none."""
    for folder in tasks_dirs:
        if not folder.is_dir():
            raise UsageError(
                f"the tasks folder {folder} does not exist; give an existing one with --tasks-dir DIR"
            )
    folders = {tasks_root(): True}
    for folder in tasks_dirs:
        folders.setdefault(folder, False)
    broken = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        found = _folder_of(point)
        if isinstance(found, Entry):
            broken.append(found)
        else:
            folders.setdefault(found, False)
    return folders, broken


def _yaml_files(folder: Path) -> list[Path]:
    found = [path for pattern in ("*.yaml", "*.yml") for path in folder.rglob(pattern)]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _entry(path: Path, trusted: bool) -> Entry:
    family = path.resolve().parent.name
    try:
        spec = read_spec(path)
    except UsageError as error:
        name = str(peek(path).get("task") or path.stem)
        return Entry(name, family, path, (), None, str(error), trusted)
    return Entry(spec.task, family, path, (), spec, None, trusted)


def _folder_of(point: EntryPoint) -> Path | Entry:
    """The entry point names a package that holds task files, or a function that returns their folder."""
    try:
        loaded = point.load()
        folder = Path(loaded() if callable(loaded) else next(iter(loaded.__path__)))
        if not folder.is_dir():
            raise NotADirectoryError(str(folder))
    except (Exception, SystemExit) as error:
        problem = (
            f"the entry point {point.name} = {point.value} in {GROUP} gives no folder of tasks "
            f"({type(error).__name__}: {error}); mend or remove its package"
        )
        return Entry(point.name, point.name, Path(point.value), (), None, problem, False)
    return folder


def _mark_twins(entries: list[Entry]) -> list[Entry]:
    count = Counter(entry.name for entry in entries)
    marked = []
    for entry in entries:
        if count[entry.name] > 1 and entry.problem is None:
            twins = ", ".join(str(other.path) for other in entries if other.name == entry.name)
            entry = replace(
                entry, spec=None, problem=f"two task files have the name {entry.name}: {twins}; rename one"
            )
        marked.append(entry)
    return marked


# --- tasks -------------------------------------------------------------------------------------------------


def _task(entry: Entry, mirror: Path | None, seed: int) -> Task:
    spec, path, trusted = entry.spec, entry.path, entry.trusted
    assert spec is not None  # _matching refuses broken entries

    @cache
    def documents() -> tuple[Document, ...]:
        return tuple(load_documents(spec, path, mirror=mirror, seed=seed, trusted=trusted))

    @cache
    def builder() -> Builder:
        return Builder(spec, path, trusted=trusted)

    return Task(
        name=spec.task,
        family=entry.family,
        area=spec.area,
        kind=spec.kind,
        description=spec.description,
        path=path,
        metrics=tuple(_metric(metric, spec) for metric in spec.metrics),
        headline=next(iter(spec.headlines), None),
        score=scorer(spec, path, trusted=trusted),
        load=lambda: list(documents()),
        asks=lambda fields, raw: builder().asks(fields, raw),
        sampling=spec.generation.model_dump(exclude={"samples"}),
        samples=spec.generation.samples,
        combine=combiners(spec, path, trusted=trusted),
        rate=rater(spec, path, trusted=trusted) if any(m.scorer for m in spec.metrics) else None,
        questions=questions(spec, path),
        headlines=spec.headlines,
        judged=spec.judged,
        judge=spec.judge,
        world=spec.world,
        source=_source(spec, path),
        suites=entry.suites,
        fingerprint=_fingerprint(spec, path),
        citation=spec.citation,
        licence=spec.licence,
        canary=spec.canary,
        do_not_train=spec.do_not_train,
        notes=spec.notes,
    )


def _metric(metric: MetricSpec, spec: TaskSpec) -> Metric:
    built_in = metric.function is None and spec.score is None and metric.scorer is None
    unit, bounds = metric.unit, metric.bounds
    summed = metric.combine is not None or (built_in and metric.name in CORPUS[spec.kind])
    if built_in:
        unit = "raw" if metric.name in RAW else "rate"
    elif metric.combine is not None:
        unit = unit or "raw"
    elif metric.scorer is not None and metric.function is None:
        unit = unit or ("raw" if bounds else "rate")
    elif bounds is not None and unit is None:
        unit = "rate" if bounds[0] >= 0 and bounds[1] <= 1 else "raw"
    return Metric(
        name=metric.name,
        higher_is_better=metric.higher_is_better,
        ideal=metric.ideal,
        chance=None if metric.chance == "uniform" else metric.chance,
        margin=metric.margin,
        uniform_chance=metric.chance == "uniform",
        unit=unit,
        # the numbers that stand for documents in a statistic of sums have no range
        bounds=(0.0, 1.0) if unit == "rate" and bounds is None and not summed else bounds,
        built_in=built_in,
        limits=_limits(metric, spec) if summed else None,
        scorers=metric.scorers,
    )


def _source(spec: TaskSpec, path: Path) -> str:
    rows = spec.data.model_dump_json() if spec.data else f"{path.parent.resolve()} {spec.documents}"
    return rows if spec.where is None else f"{rows} where {spec.where}"


def _limits(metric: MetricSpec, spec: TaskSpec) -> tuple[float, float] | None:
    """The range of a statistic of sums."""
    if metric.combine is None:
        return CORPUS[spec.kind][metric.name].bounds
    if metric.combine in COMBINE:
        return COMBINE[metric.combine].bounds
    return (0.0, 1.0) if metric.unit == "rate" else None


def _fingerprint(spec: TaskSpec, path: Path) -> str:
    """SHA-256 over the task file, those that it extends, and the Python files that they name."""
    files = sorted({path.parent / reference.partition(":")[0] for reference in spec.functions})
    total = hashlib.sha256()
    for file in (*read_taskfile(path).files, *files):
        if file.is_file():
            total.update(file.read_bytes())
    return total.hexdigest()
