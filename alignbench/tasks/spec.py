"""The schema of a task file, and errors that name the file, the key and the mend."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from alignbench.errors import UsageError
from alignbench.tasks.problems import validated
from alignbench.tasks.taskfile import EXTENDS, read_taskfile
from alignbench.tasks.types import Area, Kind, Unit

FUNCTION = r"^[\w-]+\.py:[A-Za-z_]\w*$"


class _Part(BaseModel):
    # no infinity, and no NaN: JSON has neither, so results.json could not be written
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    yes: str = Field(default=" yes", min_length=1)
    no: str = Field(default=" no", min_length=1)


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

    ``prepare`` (file.py:function) makes the fields of a row. Where a row is no document (a dialogue has many
    questions, two sentences are one pair), ``arrange`` comes before it: a function of all rows that gives the
    mappings that documents are made of.
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
    arrange: str | None = Field(default=None, pattern=FUNCTION)
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
        named = [self.documents, self.arrange, self.prepare, self.score]
        named += [metric.function for metric in self.metrics]
        named += [m.combine for m in self.metrics if m.combine and re.match(FUNCTION, m.combine)]
        return tuple(dict.fromkeys(filter(None, named)))


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
    from alignbench.tasks.misfits import misfits  # it reads what is defined here

    try:
        file = read_taskfile(path)
    except UsageError as error:
        return None, [str(error)]
    if "suite" in file.keys and "task" not in file.keys:
        return None, [f"{path}: this is a suite's file; put it into a folder 'suites'"]
    return validated(TaskSpec, file, misfits, also_known=[EXTENDS])
