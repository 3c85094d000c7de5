"""The schema of a task file, and errors that name the file, the key and the mend."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignbench.errors import UsageError, nearest
from alignbench.tasks.taskfile import EXTENDS, Location, TaskFile, read_taskfile
from alignbench.tasks.types import WITH_CHOICES, Area, Kind, Unit

FUNCTION = r"^[\w-]+\.py:[A-Za-z_]\w*$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(_Part):
    """Where rows come from; see ``alignbench.sources``. ``hub`` is a data set's name, which is also looked up
    in a mirror, or a file beside the task file; ``files`` are globs in the mirror's folder or on the hub."""

    hub: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    files: tuple[str, ...] = ()


class FewShotSpec(_Part):
    """``n`` exemplars before the tested prompt: other documents of ``split`` (default: the same rows), in one
    order drawn with ``seed``. The tested document, its cluster and documents with its text are never among
    them. ``files``: globs of that split, as ``data.files`` are of the tested one. ``balance``: as many
    exemplars of each target as of any other, or one more."""

    n: int = Field(ge=1)
    split: str | None = None
    files: tuple[str, ...] = ()
    seed: int = 0
    separator: str = "\n\n"
    balance: bool = False


class GenerationSpec(_Part):
    """Decoding; see ``alignbench.engines.types.Sampling``. ``samples``: outputs that are drawn for each
    prompt, with seeds of their own. A metric is then a mean over them, a scorer's what its ``summary``
    says."""

    samples: int = Field(default=1, ge=1)
    max_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: tuple[str, ...] = ()


class ScorerSpec(_Part):
    """How a language model is asked to score an output: the probability of ``yes`` against ``no`` behind
    ``prompt``, a template that sees the row's fields and ``output``."""

    prompt: str
    yes: str = " yes"
    no: str = " no"


class MetricSpec(_Part):
    """One metric: a built-in by its name, a value of the Python function ``function``, or what a scorer says.

    ``scorer``: a model that scores outputs, chosen with ``--scorer NAME=SPEC``; the metric is left out where
    it has no default and none is given. ``summary``: what becomes of the scores of a prompt's outputs: their
    ``mean``, their ``max``, or ``any``, 1 if one is ½ or more. With ``function`` as well, that gets them all.
    ``combine``: for a statistic that is no mean over documents. ``function`` then gives a list of numbers for
    a document, and ``combine``, a name of ``metrics.COMBINE`` or a Python function, makes the statistic of
    their sums (see ``metrics.linearise``).

    ``unit`` and ``bounds`` are for a function's values: ``rate`` is printed in percent, ``raw`` as it is;
    ``bounds`` are the least and the greatest value possible. A rate lies in [0, 1] if nothing else is said;
    with ``bounds`` alone a metric is a rate where they lie within [0, 1]. With neither, both are read off
    the values. Built-in metrics know theirs.
    """

    name: str = Field(pattern=r"^\w+$")
    function: str | None = Field(default=None, pattern=FUNCTION)
    combine: str | None = None
    scorer: str | tuple[str, ...] | None = None
    summary: Literal["mean", "max", "any"] = "mean"
    higher_is_better: bool | None = True
    ideal: float | None = None
    chance: float | Literal["uniform"] | None = None
    margin: float | None = Field(default=None, ge=0)
    unit: Unit | None = None
    bounds: tuple[float, float] | None = None

    @property
    def scorers(self) -> tuple[str, ...]:
        """The names of the scorers that it needs."""
        return (self.scorer,) if isinstance(self.scorer, str) else self.scorer or ()


class TaskSpec(_Part):
    """A task file, checked. Templates are sandboxed Jinja; they see a row's fields, and the whole as ``row``.

    ``where`` is a Jinja expression; the rows for which it does not hold are no documents of the task.
    ``doc_id``, ``cluster`` and ``target`` are a field's name or a template; ``choices``, ``correct`` and
    ``references`` are a field's name or a Jinja expression that gives a list. ``instruction`` is plain text
    that stands once at the head, before exemplars and prompt, with an empty line behind it. Kind
    ``loglikelihood`` asks for the likelihood of ``target`` behind the prompt; behind an empty one
    (``prompt: ""``) the target is a whole document, scored in windows where it exceeds a model's context.
    ``headline`` may be a list: the first of its metrics whose scorer is at hand.
    ``canary``: the string that the authors ask to filter training data by; ``do_not_train``: what they ask.
    """

    task: str = Field(pattern=r"^[\w.-]+$")
    area: Area
    kind: Kind
    description: str = Field(min_length=1)
    data: DataSpec | None = None
    documents: str | None = Field(default=None, pattern=FUNCTION)
    prepare: str | None = Field(default=None, pattern=FUNCTION)
    where: str | None = Field(default=None, min_length=1)
    doc_id: str | None = None
    cluster: str | None = None
    instruction: str | None = Field(default=None, min_length=1)
    prompt: str
    delimiter: str | None = None
    target: str | None = None
    references: str | None = None
    choices: str | None = None
    correct: str | None = None
    few_shot: FewShotSpec | None = None
    generation: GenerationSpec = GenerationSpec()
    score: str | None = Field(default=None, pattern=FUNCTION)
    metrics: tuple[MetricSpec, ...] = ()
    headline: str | tuple[str, ...] | None = None
    scorers: dict[str, ScorerSpec] = {}
    judged: bool = False
    judge: str | None = None
    world: Literal["pocket"] | None = None
    citation: str = ""
    licence: str = ""
    canary: str = ""
    do_not_train: str = ""
    notes: str = ""

    @property
    def headlines(self) -> tuple[str, ...]:
        """The metrics of which one is the headline, the preferred one first."""
        return (self.headline,) if isinstance(self.headline, str) else self.headline or ()

    @property
    def functions(self) -> tuple[str, ...]:
        """Every Python function that the file names, each once."""
        named = [self.documents, self.prepare, self.score]
        named += [metric.function for metric in self.metrics]
        named += [m.combine for m in self.metrics if m.combine and re.match(FUNCTION, m.combine)]
        return tuple(dict.fromkeys(filter(None, named)))


def _misfits(spec: TaskSpec) -> Iterator[str]:
    """What pydantic's types cannot say, one sentence each."""
    names = [metric.name for metric in spec.metrics]
    if (spec.data is None) == (spec.documents is None):
        yield "give either 'data' (a data set) or 'documents' (file.py:function)"
    if spec.kind in WITH_CHOICES and spec.choices is None:
        yield f"kind {spec.kind} needs 'choices'" + (
            ": [chosen, rejected]" if spec.kind == "preference" else ""
        )
    if spec.kind == "multiple_choice" and spec.correct is None:
        yield "kind multiple_choice needs 'correct', the indices of the right choices"
    if spec.kind == "loglikelihood" and spec.target is None:
        yield "kind loglikelihood needs 'target', the text whose likelihood is asked for"
    if spec.judged and spec.kind != "generate":
        yield "only a task of kind generate can be 'judged'"
    if not names and not spec.judged:
        yield "give at least one of 'metrics', or 'judged: true'"
    if len(set(names)) < len(names):
        yield "two metrics have the same name; rename one"
    if spec.generation.samples > 1 and spec.generation.temperature == 0:
        yield "'generation.samples' draws outputs; give a temperature above 0"
    for metric in spec.metrics:
        yield from _scorer_misfits(metric, spec)
        yield from _metric_misfits(metric, spec)
    if names and not spec.headlines:
        yield f"'headline' is missing: name one of {', '.join(names)}"
    for headline in spec.headlines:
        if headline not in names:
            yield f"headline {headline!r} is none of the metrics{nearest(headline, names)}"
    if spec.few_shot and spec.few_shot.split and spec.data is None:
        yield "'few_shot.split' needs 'data'"
    if spec.few_shot and spec.target is None and spec.kind != "multiple_choice":
        yield "'few_shot' needs 'target', the exemplars' answer"


def _scorer_misfits(metric: MetricSpec, spec: TaskSpec) -> Iterator[str]:
    from alignbench.metrics import COMBINE

    what = f"metric {metric.name!r}"
    if metric.scorer is not None and spec.kind != "generate":
        yield f"{what}: a scorer reads outputs, which only kind generate has"
    if len(metric.scorers) > 1 and metric.function is None:
        yield f"{what} has {len(metric.scorers)} scorers; say with 'function' what their scores make together"
    own = metric.combine is not None and re.match(FUNCTION, metric.combine) is not None
    if metric.combine is not None and not own and metric.combine not in COMBINE:
        yield (
            f"{what}: 'combine' {metric.combine!r} is neither file.py:function nor built in"
            f"{nearest(metric.combine, list(COMBINE))}; built in are {', '.join(COMBINE)}"
        )
    if metric.combine is not None and metric.function is None:
        yield f"{what}: 'combine' needs 'function', which gives the numbers of a document"
    if metric.combine is not None and (metric.bounds or spec.generation.samples > 1 or metric.scorer):
        yield f"{what}: 'combine' goes with one output a document, and without 'bounds' and 'scorer'"


def _metric_misfits(metric: MetricSpec, spec: TaskSpec) -> Iterator[str]:
    from alignbench.metrics import BUILT_IN, CORPUS, IDEAL, LOWER, PER_TOKEN

    known = [*BUILT_IN[spec.kind], *CORPUS[spec.kind], *(PER_TOKEN if spec.kind == "multiple_choice" else ())]
    own = metric.function is not None or spec.score is not None or metric.scorer is not None
    if not own and metric.name not in known:
        yield (
            f"metric {metric.name!r} is not built in for kind {spec.kind}{nearest(metric.name, known)}; "
            f"built in are {', '.join(known)}, others need 'function' or 'score' (file.py:function)"
        )
    if metric.chance == "uniform" and spec.kind != "multiple_choice":
        yield f"metric {metric.name!r}: 'chance: uniform' is for multiple_choice; give a number"
    if metric.bounds is not None and not -math.inf < metric.bounds[0] < metric.bounds[1] < math.inf:
        yield f"metric {metric.name!r}: 'bounds' are two numbers, the lower first"
    if not own and metric.name in known and metric.name in LOWER and metric.higher_is_better:
        yield f"metric {metric.name!r} is better when it is lower; write higher_is_better: false"
    if not own and metric.name in known and metric.name in IDEAL and metric.ideal is None:
        yield f"metric {metric.name!r} is best at {IDEAL[metric.name]:g}; write ideal: {IDEAL[metric.name]:g}"
    if not own and (metric.unit or metric.bounds):
        yield f"metric {metric.name!r} is built in and knows its unit and bounds; take them out"


def read_spec(path: Path) -> TaskSpec:
    """Read and check one task file.

    Raises:
        UsageError: the first problem, with how many more there are; ``problems_of`` gives all.
    """
    spec, problems = _read(path)
    if spec is None:
        more = f" (and {len(problems) - 1} more: alignbench tasks check)" if len(problems) > 1 else ""
        raise UsageError(problems[0] + more)
    return spec


def problems_of(path: Path) -> list[str]:
    """Every problem of the file's YAML and keys, one sentence each; empty for a good file."""
    return _read(path)[1]


def peek(path: Path) -> dict[str, Any]:
    """Whatever of a broken file can still be read: its name, to say which task is broken."""
    try:
        return read_taskfile(path).keys
    except UsageError:
        pass
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except Exception:  # PyYAML lets through whatever a bad scalar makes its constructors raise
        return {}
    return raw if isinstance(raw, dict) else {}


def _read(path: Path) -> tuple[TaskSpec | None, list[str]]:
    try:
        file = read_taskfile(path)
    except UsageError as error:
        return None, [str(error)]
    try:
        spec = TaskSpec.model_validate(file.keys)
    except ValidationError as error:
        # a mistyped key explains the missing one, so it comes first
        details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        return None, [_sentence(file, detail) for detail in details]
    problems = [f"{path}: {problem}" for problem in _misfits(spec)]
    return (None if problems else spec), problems


def _sentence(file: TaskFile, detail: Any) -> str:
    location: Location = tuple(detail["loc"])
    found, where = file.where(location)
    kind, message = detail["type"], detail["msg"]
    if kind == "extra_forbidden":
        known = _keys_at(location[:-1])
        near = nearest(str(location[-1]), known)
        return f"{where}: unknown key {_dotted(location)!r}{near}; known are {', '.join(known)}"
    if kind == "missing":
        return f"{where}: key {_dotted(location)!r} is missing; add it"
    # a union's member ("float", "literal['uniform']") is part of pydantic's location but of no file
    return f"{where}: {_dotted(found)!r}: {message[:1].lower()}{message[1:]}, not {detail['input']!r}"


def _dotted(location: Location) -> str:
    return ".".join(map(str, location))


def _keys_at(location: Location) -> list[str]:
    parts: dict[str, type[BaseModel]] = {
        "data": DataSpec,
        "few_shot": FewShotSpec,
        "generation": GenerationSpec,
        "metrics": MetricSpec,
        "scorers": ScorerSpec,
    }
    return list(parts[location[0]].model_fields) if location else [*TaskSpec.model_fields, EXTENDS]
