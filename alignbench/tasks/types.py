"""A task, its documents and the requests they turn into. Read-only; made by the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Area = Literal["truthfulness", "toxicity", "bias", "safety", "nlp", "helpfulness"]
Kind = Literal["generate", "multiple_choice", "loglikelihood", "preference"]
WITH_CHOICES: frozenset[Kind] = frozenset({"multiple_choice", "preference"})
"""The kinds whose documents have choices."""
Unit = Literal["rate", "raw"]
"""How a metric is printed: in percent, or as it is."""
Values = Mapping[str, float | None]
"""Metric values of one sample. None: the measurement failed (missing). A wrong answer is 0, not None."""
Statistics = tuple[float, ...]
"""A document's part of a statistic of sums (``Task.combine``)."""


@dataclass(frozen=True)
class Document:
    """One row of a task's data. ``fields`` is what the prompt template sees; ``cluster`` names the source
    (passage, template, prompt) that it shares with other documents, by default its own id. ``prompt`` is
    the whole of what a model gets, few-shot exemplars included; ``choices`` are whole continuations but for
    the ``delimiter`` between prompt and choice; ``correct`` holds the indices of the right ones.
    ``references`` are all the accepted answers, ``target`` the first of them."""

    doc_id: str
    fields: Mapping[str, Any]
    prompt: str
    target: str | None = None
    choices: tuple[str, ...] = ()
    cluster: str = ""
    correct: tuple[int, ...] = ()
    delimiter: str = ""
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """One number a task reports. ``higher_is_better`` None: no better direction. ``ideal``: the value that is
    best where neither end is (a bias score: 0). ``margin``: differences below it do not matter, fixed
    beforehand. ``chance``: what guessing at random scores; ``majority``: what always giving the one answer
    that is right most often scores, where all documents have the same choices. ``bounds``: the range that its
    values can have; it and ``unit`` are None where nobody said. ``built_in``: scored by ``metrics``.
    ``limits``: the range of a statistic of sums, whose documents' values may lie outside of it.
    ``scorers``: names of the models that score the outputs, which the values come from (``Task.rate``)."""

    name: str
    higher_is_better: bool | None = True
    ideal: float | None = None
    chance: float | None = None
    margin: float | None = None
    uniform_chance: bool = False
    majority: float | None = None
    unit: Unit | None = None
    bounds: tuple[float, float] | None = None
    built_in: bool = False
    limits: tuple[float, float] | None = None
    scorers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """What a language model is asked about an output: ``prompt(document, output)``, and the two texts whose
    probabilities are compared behind it."""

    prompt: Callable[[Document, str], str]
    yes: str
    no: str


@dataclass(frozen=True)
class Task:
    """One task as loaded from its YAML file.

    ``score(document, answer)`` turns what came back into metric values. ``answer`` is a Completion for
    ``generate``, a list of Scored (one per choice) for ``multiple_choice``, a list of one Scored (of the
    target) for ``loglikelihood``, and a pair of Rewarded (chosen, rejected) for ``preference``. For a metric
    named in ``combine`` it gives ``Statistics`` in place of a number: the metric is ``combine[name]`` of
    their sums over the documents. ``rate(document, outputs, scores)`` gives the values of the metrics that
    have ``scorers``, from scorer name → one score an output (None: it failed); ``questions`` are what a
    language model is asked where it is the scorer. ``samples``: outputs of a document. ``headlines``: of
    these metrics the first whose scorers are at hand is the ``headline`` (``with_scorers``). ``source``: two
    tasks with the same one ask about the same rows. ``asks(fields, raw)``: what the task makes of a row
    (``raw``: before its ``prepare``), the same for the same question: prompt without exemplars, choices and
    references; it raises UsageError for a row of another data set.
    """

    name: str
    family: str
    area: Area
    kind: Kind
    description: str
    path: Path
    metrics: tuple[Metric, ...]
    headline: str | None
    score: Callable[[Document, Any], Mapping[str, Any]]
    load: Callable[[], list[Document]]
    asks: Callable[[Mapping[str, Any], bool], tuple[str, ...]] | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 1
    combine: Mapping[str, Callable[[Sequence[float]], float | None]] = field(default_factory=dict)
    rate: Callable[[Document, Sequence[str], Mapping[str, Sequence[float | None]]], Values] | None = None
    questions: Mapping[str, Question] = field(default_factory=dict)
    headlines: tuple[str, ...] = ()
    judged: bool = False
    judge: str | None = None
    world: str | None = None
    suites: tuple[str, ...] = ()
    fingerprint: str = ""
    source: str = ""
    citation: str = ""
    licence: str = ""
    canary: str = ""
    do_not_train: str = ""
    notes: str = ""
