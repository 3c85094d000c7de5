"""Which tasks there are, and how a name on the command line finds them.

A task is a YAML file in a folder that is named after its family. Folders are looked through in the shipped
tasks, in every ``--tasks-dir``, and in packages with an entry point in the group ``alignbench.tasks``. There
is no list to register in. A broken file stays in the listing, marked broken, and is an error when it is used.
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
from alignbench.metrics import RAW
from alignbench.tasks.documents import Builder, load_documents
from alignbench.tasks.scoring import scorer
from alignbench.tasks.spec import MetricSpec, TaskSpec, peek, read_spec
from alignbench.tasks.taskfile import read_taskfile
from alignbench.tasks.types import Document, Metric, Task

GROUP = "alignbench.tasks"
PROMPTS = "prompts:"


@dataclass(frozen=True)
class Entry:
    """One task file that was found: its ``spec``, or the ``problem`` that makes it unusable."""

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


def list_entries(tasks_dirs: Sequence[Path] = ()) -> list[Entry]:
    """Every task file in name order, broken ones included; two files of one name are both broken.

    Raises:
        UsageError: a tasks folder that does not exist.
    """
    for folder in tasks_dirs:
        if not folder.is_dir():
            raise UsageError(
                f"the tasks folder {folder} does not exist; give an existing one with --tasks-dir DIR"
            )
    entries = _entries(tasks_root(), trusted=True)
    for folder in tasks_dirs:
        entries += _entries(folder, trusted=False)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        entries += _entries_of_package(point)
    unique = {entry.path.resolve(): entry for entry in reversed(entries)}  # a folder given twice counts once
    return _mark_twins(sorted(unique.values(), key=lambda entry: (entry.name, str(entry.path))))


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
    entries = list_entries(tasks_dirs)
    tasks: dict[str, Task] = {}
    for name in wanted:
        if name.startswith(PROMPTS):
            found = [_prompts_task(name, Path(name.removeprefix(PROMPTS)).expanduser())]
        else:
            found = [_task(entry, mirror, seed) for entry in _matching(name, entries)]
        for task in found:
            if tasks.setdefault(task.name, task).path != task.path:
                raise UsageError(
                    f"{tasks[task.name].path} and {task.path} make two tasks of the name {task.name}; "
                    "rename a file"
                )
    return list(tasks.values())


def _matching(name: str, entries: Sequence[Entry]) -> list[Entry]:
    if name.startswith("lm_eval:"):
        raise UsageError(
            f"task {name!r}: tasks of lm_eval are not supported yet; see 'alignbench tasks list'"
        )
    exact = [entry for entry in entries if entry.name == name]
    group = [entry for entry in entries if name == entry.family or name in entry.suites]
    globbed = [entry for entry in entries if fnmatch.fnmatchcase(entry.name, name)]
    found = exact or group or globbed
    if not found:
        known = {entry.name for entry in entries} | {entry.family for entry in entries}
        known |= {suite for entry in entries for suite in entry.suites}
        raise UsageError(
            f"no task, family or suite {name!r}{nearest(name, known)}; see 'alignbench tasks list'"
        )
    for entry in found:
        if entry.problem is not None:
            raise UsageError(entry.problem)
    return found


# --- discovery ---------------------------------------------------------------------------------------------


def entries_of(paths: Iterable[Path], *, trusted: bool) -> list[Entry]:
    """Read task files; a broken one becomes an entry with its problem."""
    return [_entry(path, trusted) for path in paths]


def task_files(folder: Path) -> list[Path]:
    """All YAML files below ``folder`` but hidden ones, in path order."""
    found = [path for pattern in ("*.yaml", "*.yml") for path in folder.rglob(pattern)]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _entries(folder: Path, *, trusted: bool) -> list[Entry]:
    return entries_of(task_files(folder), trusted=trusted)


def _entry(path: Path, trusted: bool) -> Entry:
    family = path.resolve().parent.name
    try:
        spec = read_spec(path)
    except UsageError as error:
        raw = peek(path)
        suites = raw.get("suites") or ()
        suites = (suites,) if isinstance(suites, str) else tuple(map(str, suites))
        return Entry(str(raw.get("task") or path.stem), family, path, suites, None, str(error), trusted)
    return Entry(spec.task, family, path, spec.suites, spec, None, trusted)


def _entries_of_package(point: EntryPoint) -> list[Entry]:
    """The entry point names a package that holds task files, or a function that returns their folder."""
    try:
        loaded = point.load()
        value = loaded() if callable(loaded) else next(iter(loaded.__path__))
        folder = Path(value)
        if not folder.is_dir():
            raise NotADirectoryError(str(folder))
    except Exception as error:
        problem = (
            f"the entry point {point.name} = {point.value} in {GROUP} gives no folder of tasks "
            f"({type(error).__name__}: {error}); mend or remove its package"
        )
        return [Entry(point.name, point.name, Path(point.value), (), None, problem, False)]
    return _entries(folder, trusted=False)


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
        headline=spec.headline,
        score=scorer(spec, path, trusted=trusted),
        load=lambda: list(documents()),
        asks=lambda fields, raw: builder().asks(fields, raw),
        sampling=spec.generation.model_dump(),
        judged=spec.judged,
        judge=spec.judge,
        world=spec.world,
        source=spec.data.model_dump_json() if spec.data else f"{path.parent.resolve()} {spec.documents}",
        suites=spec.suites,
        fingerprint=_fingerprint(spec, path),
        citation=spec.citation,
        licence=spec.licence,
        notes=spec.notes,
    )


def _metric(metric: MetricSpec, spec: TaskSpec) -> Metric:
    built_in = metric.function is None and spec.score is None
    unit, bounds = metric.unit, metric.bounds
    if built_in:
        unit = "raw" if metric.name in RAW else "rate"
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
        bounds=(0.0, 1.0) if unit == "rate" and bounds is None else bounds,
        built_in=built_in,
    )


def _fingerprint(spec: TaskSpec, path: Path) -> str:
    """SHA-256 over the task file, those that it extends, and the Python files that they name."""
    references = [spec.documents, spec.prepare, spec.score, *(metric.function for metric in spec.metrics)]
    files = sorted({path.parent / reference.partition(":")[0] for reference in references if reference})
    total = hashlib.sha256()
    for file in (*read_taskfile(path).files, *files):
        if file.is_file():
            total.update(file.read_bytes())
    return total.hexdigest()


def _prompts_task(name: str, path: Path) -> Task:
    """Open-ended prompts of one's own: a text file with one prompt a line, or rows with ``prompt``."""
    if not path.is_file():
        raise UsageError(
            f"{name}: no file {path}; give one prompt a line (.txt) or rows with 'prompt' (.jsonl)"
        )
    documents = _prompts(path)
    return Task(
        name=PROMPTS + path.name.split(".", 1)[0],
        family="prompts",
        area="helpfulness",
        kind="generate",
        description=f"Open-ended prompts from {path.name}.",
        path=path,
        metrics=(),
        headline=None,
        score=lambda document, answer: {},
        load=lambda: list(documents),
        sampling={"max_tokens": 256},
        judged=True,
        fingerprint=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _prompts(path: Path) -> list[Document]:
    from alignbench.sources import read_rows

    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read ({error}); save it as UTF-8") from None
        rows = [{"prompt": line.strip()} for line in lines if line.strip()]
    else:
        rows = read_rows(path)
    if not rows:
        raise UsageError(f"{path} holds no prompts; write one a line")
    documents: dict[str, Document] = {}
    for number, row in enumerate(rows):
        prompt = row.get("prompt", row.get("instruction"))
        if not isinstance(prompt, str) or not prompt.strip():
            raise UsageError(
                f"{path}: row {number + 1} has no text in 'prompt'; its columns are {', '.join(row)}"
            )
        doc_id = str(row.get("doc_id", f"{number:05d}"))
        if doc_id in documents:
            raise UsageError(f"{path}: two prompts have the doc_id {doc_id!r}; make it unique")
        documents[doc_id] = Document(doc_id, row, prompt, cluster=doc_id)
    return list(documents.values())
