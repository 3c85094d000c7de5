"""The schema of ``results.json``, version 1: the one definition, written by compare and read by report.

Frozen dataclasses, validated by pydantic. Every number is finite; unknown is ``None`` (JSON ``null``), never
NaN. Fields may be added within a schema version (a reader ignores those it does not know); what a field
means does not change. Rates are fractions in 0…1, differences are in the metric's own unit.
"""

from __future__ import annotations

import json
import os
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from alignbench.errors import UsageError, WorkError

SCHEMA = 1
FILE = "results.json"

Area = Literal["truthfulness", "toxicity", "bias", "safety", "nlp", "helpfulness"]
Verdict = Literal["better", "worse", "equivalent", "inconclusive"]
Interval = tuple[float, float]

_CONFIG = ConfigDict(extra="ignore", allow_inf_nan=False)


@dataclass(frozen=True, config=_CONFIG)
class ModelInputs:
    """How text reached a model. ``chat_template``: whether prompts were turns of a chat, which was asked for
    or, with ``template_choice`` ``auto``, follows from the tokenizer; ``in_front``: special tokens put before
    every text (empty: none); ``context_length``: tokens that fit; ``adapter`` and ``prefix`` as given;
    ``server``: of a policy behind an address, how it was asked and what it can do, in a line."""

    dtype: str | None = None
    chat_template: bool | None = None
    template_choice: str = "auto"
    in_front: str | None = None
    context_length: int | None = None
    adapter: str | None = None
    prefix: str | None = None
    server: str | None = None


@dataclass(frozen=True, config=_CONFIG)
class PolicyResult:
    """A policy. ``fingerprint``: hash of what the engine says it is (weights, dtype, tokenizer, template,
    prefix); ``None`` where the policy could not be opened. ``world``: ``pocket`` for a pocket checkpoint.
    ``inputs``: None for a recorded policy, and where it could not be opened. ``cut``: task → documents whose
    prompt lost its beginning to fit; tasks with none are left out."""

    name: str
    spec: str
    fingerprint: str | None
    kind: str
    world: str | None = None
    inputs: ModelInputs | None = None
    cut: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, config=_CONFIG)
class RecordedOutputs:
    """How the rows of a recorded policy met the documents asked of one task: the columns that joined them,
    the documents without an output (which are missing, not wrong) and the first of their ids, and the rows of
    the file, counted from 1, that answer no document of any task asked. ``other_prompts``: documents whose
    output answers another prompt than the task's, about the same row of the data."""

    policy: str
    task: str
    joined_by: list[str]
    documents: int
    missing: int
    missing_ids: list[str]
    unmatched_rows: int
    unmatched_first: list[int]
    other_prompts: int = 0


@dataclass(frozen=True, config=_CONFIG)
class JudgeResult:
    """A judge. ``accuracy``: a reward model's agreement with held-out pairs of its own data, where known;
    ``data``: what it was trained on; ``base``: the model that it was made from.

    ``worth``: ``truth`` for a judge that knows; for a reward model by the interval of its accuracy, above, at
    (½ lies within) or below chance; ``unknown`` where no accuracy was recorded. A win-rate by a judge at or
    below chance says nothing on which policy is better, whatever its own interval is.
    ``rated``: policy → outputs that a reward model rated; ``cut``: how many of them, with their prompt, were
    longer than its context, so that it saw only the end."""

    name: str
    kind: str
    spec: str
    fingerprint: str | None
    accuracy: Score | None = None
    note: str = ""
    data: str | None = None
    base: str | None = None
    worth: Literal["truth", "above_chance", "at_chance", "below_chance", "unknown"] = "unknown"
    rated: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, config=_CONFIG)
class ScorerResult:
    """What scored single outputs for the metrics that name it. ``note``: what a reader must know of it, in a
    line; ``cut``: outputs that were longer than it reads, so that it saw only a part."""

    name: str
    kind: str
    spec: str
    fingerprint: str | None
    note: str = ""
    cut: int = 0


@dataclass(frozen=True, config=_CONFIG)
class Score:
    """Mean of one metric over ``n`` documents with its interval. ``missing``: documents whose measurement
    failed (not in ``n``); ``unparsed``: documents in ``n`` with no extractable answer (wrong by rule);
    ``cut``: documents whose prompt did not fit into the model's context and lost its beginning.
    ``bounds``: the mean if every missing value were the lowest, the highest; where over 1 % are missing."""

    mean: float | None
    stderr: float | None
    ci: Interval | None
    n: int
    missing: int = 0
    unparsed: int = 0
    method: str = ""
    bounds: Interval | None = None
    cut: int = 0


@dataclass(frozen=True, config=_CONFIG)
class TaskResult:
    """One metric of one task: a row of the task table. A task has one row per metric; ``headline`` marks the
    one that enters the family of tests. ``n``: documents asked. ``unit``: ``rate`` is printed as per cent,
    ``raw`` as it is. ``chance``: what guessing at random scores. ``majority``: what always giving the answer
    that is right most often among these documents scores; None where their choices differ. ``scorers``: names
    of those that the values come from (``Comparison.scorers``); ``samples``: outputs drawn for a document."""

    task: str
    area: Area
    metric: str
    headline: bool
    higher_is_better: bool | None
    ideal: float | None
    chance: float | None
    n: int
    scores: dict[str, Score]
    unit: Literal["rate", "raw"] = "raw"
    margin: float | None = None
    judged: bool = False
    family: str = ""
    description: str = ""
    majority: float | None = None
    scorers: list[str] = field(default_factory=list)
    samples: int = 1

    @property
    def guessing(self) -> tuple[str, float] | None:
        """``("majority", level)``, else ``("chance", level)``: what needs no understanding of the question;
        None where it is not known, or higher is not better."""
        if self.higher_is_better is not True or self.ideal is not None:
            return None
        if self.majority is not None:
            return "majority", self.majority
        return None if self.chance is None else ("chance", self.chance)

    def standing(self, policy: str) -> str:
        """``below majority`` (or chance) where the whole interval lies below what guessing scores, ``not
        above majority`` where it holds it, else empty. Descriptive: the level is taken as exact."""
        score = self.scores.get(policy)
        if self.guessing is None or score is None or score.ci is None:
            return ""
        name, level = self.guessing
        low, high = score.ci
        return f"below {name}" if high < level else f"not above {name}" if low <= level else ""


@dataclass(frozen=True, config=_CONFIG)
class Delta:
    """Paired difference of one metric between a policy and the reference, on the ``n`` documents both have.

    ``diff`` = policy − reference, and ``ci``, ``ci_simultaneous`` are its intervals. ``gain`` is ``diff``
    with the sign turned so that positive is better (where there is an ``ideal``: by how much the mean came
    nearer to it; ``None`` without a direction), and ``gain_ci``, ``gain_ci_simultaneous`` its intervals.
    ``p`` tests gain = 0 (diff = 0 without a direction). ``p_adjusted`` (Holm) and the simultaneous intervals
    (Bonferroni) are over the headline metrics with a direction of all tasks of this policy-set against the
    reference; they are ``None`` for all others, whose ``verdict`` is then by their own ``p`` and descriptive.
    ``bounds``: ``diff`` if every missing value were the worst, the best; given where over 1 % are missing.
    """

    task: str
    area: Area
    metric: str
    policy: str
    reference: str
    n: int
    diff: float | None
    gain: float | None
    ci: Interval | None
    ci_simultaneous: Interval | None
    p: float | None
    p_adjusted: float | None
    margin: float | None
    level: float
    method: str
    verdict: Verdict
    headline: bool = True
    gain_ci: Interval | None = None
    gain_ci_simultaneous: Interval | None = None
    missing: int = 0
    bounds: Interval | None = None


@dataclass(frozen=True, config=_CONFIG)
class LengthControlled:
    """Win-rate at equal lengths of the two outputs (AlpacaEval 2's logistic model)."""

    win_rate: float
    ci: Interval | None


@dataclass(frozen=True, config=_CONFIG)
class Position:
    """How often the output shown first won, and how often the verdict flipped when the order was swapped."""

    first_rate: float | None
    flip_rate: float | None
    ci: Interval | None


@dataclass(frozen=True, config=_CONFIG)
class WinRate:
    """How often ``judge`` prefers ``a`` to ``b``, per task and pooled over the judged tasks (``task`` None).

    ``n`` counts prompts with a judgement; a tie counts half, a soft preference its value; ``missing``
    judgements are not in ``n``. ``p`` tests ½; ``p_adjusted`` (Holm) is over the pooled pairs of a judge and
    ``None`` per task, where ``verdict`` is by ``p`` and descriptive; "equivalent": surely within ½ ± 0.05.
    """

    a: str
    b: str
    judge: str
    task: str | None
    n: int
    wins: int
    losses: int
    ties: int
    missing: int
    win_rate: float | None
    stderr: float | None
    ci: Interval | None
    p: float | None
    p_adjusted: float | None
    verdict: Verdict
    length_controlled: LengthControlled | None = None
    position: Position | None = None
    level: float = 0.95
    method: str = ""
    bounds: Interval | None = None


@dataclass(frozen=True, config=_CONFIG)
class Tax:
    """Alignment tax: mean gain over the headline metrics of the nlp tasks; negative is a cost.

    ``normalised_gain``: gain as a share of what the reference scores above chance (−0.1: a tenth of the
    skill was lost), over the tasks whose chance level is known. ``regressed``: tasks whose verdict is
    ``worse``. ``p_adjusted``: Holm over the policies. ``left_out``: nlp tasks without an estimate
    here, those that only another policy finished included.
    """

    policy: str
    reference: str
    tasks: list[str]
    mean_gain: float | None
    ci: Interval | None
    normalised_gain: float | None
    regressed: list[str]
    verdict: Verdict = "inconclusive"
    p: float | None = None
    p_adjusted: float | None = None
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, config=_CONFIG)
class Training:
    """Curves of the run that made a policy (or a judge's reward model): ``series`` name → one value a step,
    ``None`` where it was not measured."""

    policy: str
    kind: str
    steps: list[int]
    series: dict[str, list[float | None]]

    def __post_init__(self) -> None:
        for name, values in self.series.items():
            if len(values) != len(self.steps):
                raise ValueError(f"series {name!r} has {len(values)} values for {len(self.steps)} steps")


@dataclass(frozen=True, config=_CONFIG)
class Failure:
    """What did not work and was left out: ``task`` None: the whole policy (or judge)."""

    policy: str | None
    task: str | None
    error: str
    judge: str | None = None


@dataclass(frozen=True, config=_CONFIG)
class Comparison:
    """All of ``results.json``. ``reference`` is of deltas and tax, ``win_reference`` of the ladder."""

    policies: list[PolicyResult]
    tasks: list[TaskResult]
    deltas: list[Delta]
    win_rates: list[WinRate]
    tax: list[Tax]
    verdict: str
    schema: Literal[1] = 1
    kind: Literal["eval", "compare"] = "compare"
    reference: str | None = None
    win_reference: str | None = None
    judges: list[JudgeResult] = field(default_factory=list)
    scorers: list[ScorerResult] = field(default_factory=list)
    training: list[Training] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    recorded: list[RecordedOutputs] = field(default_factory=list)
    samples_note: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)


_ADAPTER: TypeAdapter[Comparison] = TypeAdapter(Comparison)


def to_json(comparison: Comparison) -> str:
    """Serialise, in the order of the fields. A number in ``provenance`` that is not finite becomes null (all
    others are checked when they are made)."""
    data = _ADAPTER.dump_python(comparison, mode="json")
    return json.dumps({"schema": data.pop("schema"), **data}, indent=1, ensure_ascii=False, allow_nan=False)


def from_json(text: str, where: str = FILE) -> Comparison:
    """Parse and validate.

    Raises:
        UsageError: not JSON, another schema version, or a field that does not fit.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # nested deeper than the parser goes
        raise UsageError(f"{where} is not JSON ({error}); run compare again to write it anew") from None
    version = data.get("schema") if isinstance(data, dict) else None
    if version != SCHEMA:
        newer = isinstance(version, int) and version > SCHEMA
        mend = "update alignbench" if newer else "run compare again to write it anew"
        raise UsageError(f"{where} has schema {version!r} where this version reads {SCHEMA}; {mend}")
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: {key}: {first['msg']}; run compare again to write it anew") from None


def read_results(folder: Path) -> Comparison:
    """Read ``results.json`` of a run folder (a path to the file itself will do).

    Raises:
        UsageError: there is none, or it does not fit the schema.
    """
    path = folder if folder.name == FILE else folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no {FILE} in {path.parent}: name the folder that eval or compare wrote") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error})") from None
    return from_json(text, str(path))


def write_results(comparison: Comparison, folder: Path) -> Path:
    """Write ``results.json`` into ``folder`` in one step (a reader sees the old file or the new one)."""
    path = folder / FILE
    part = path.with_suffix(".json.part")
    try:
        part.write_text(to_json(comparison) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise WorkError(f"{path} cannot be written ({error.strerror})") from None
    return path
