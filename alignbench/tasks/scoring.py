"""From a checked task file to what scores its outputs: ``Task.score``, ``rate``, ``combine``,
``questions``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from alignbench.errors import UsageError, WorkError
from alignbench.metrics import BUILT_IN, COMBINE, CORPUS, PER_TOKEN, Unparsed
from alignbench.metrics.toxicity import SUMMARIES
from alignbench.tasks.plugins import function
from alignbench.tasks.spec import MetricSpec, TaskSpec
from alignbench.tasks.templates import template
from alignbench.tasks.types import Document, Question, Statistics, Task, Values

GREATEST = 1e100
"""Of a function's values: sums of their squares must be numbers."""


def scorer(spec: TaskSpec, path: Path, *, trusted: bool) -> Callable[[Document, Any], Mapping[str, Any]]:
    """Return the function that turns what came back into every metric that no scorer gives.

    A Python function of the task file is called as ``score(fields, answer)``, with the output text
    (generate), the choices' log-likelihoods (multiple_choice), the target's log-likelihood and whether greedy
    decoding gives it (loglikelihood), or the pair of rewards (preference). It returns a number or None for
    its metric, or a mapping of metric names; one that several metrics share is called once a document. A true
    value under ``unparsed`` says that the output held no answer to score; the metrics beside it are then the
    wrong answer's. Where a metric has ``combine`` it gives numbers to add up over documents instead.
    """
    functions: dict[str, Callable[..., Any]] = {}  # loaded when the first answer comes: listing runs no code

    def score(document: Document, answer: Any) -> Mapping[str, Any]:
        given = _given(spec.kind, answer)
        results: dict[str, Any] = {}
        values: dict[str, Any] = {}
        for metric in spec.metrics:
            reference = metric.function or spec.score
            if metric.scorer is not None:
                continue
            if reference is None:
                values[metric.name] = _built_in(spec.kind, metric.name, document, given, answer)
                continue
            if reference not in functions:
                functions[reference] = function(reference, path, trusted=trusted)
            if reference not in results:
                results[reference] = functions[reference](document.fields, given)
            pick = _numbers if metric.combine else _pick
            values[metric.name] = pick(results[reference], metric, reference)
        told = any(isinstance(result, Mapping) and result.get("unparsed") for result in results.values())
        if told or any(isinstance(value, Unparsed) for value in values.values()):
            values["unparsed"] = 1.0
        return values

    return score


def rater(
    spec: TaskSpec, path: Path, *, trusted: bool
) -> Callable[[Document, Sequence[str], Mapping[str, Sequence[float | None]]], Values]:
    """Return the function that turns scorers' scores into the metrics that have a ``scorer``; those whose
    scores are not given are left out. A Python function is called as ``rate(fields, outputs, scores)``; it
    may be of scores that are no probabilities. ``summary: max`` and ``any`` have no value where a document
    has more or fewer outputs than the task draws."""
    metrics = [metric for metric in spec.metrics if metric.scorer is not None]

    def rate(
        document: Document, outputs: Sequence[str], scores: Mapping[str, Sequence[float | None]]
    ) -> Values:
        values: dict[str, float | None] = {}
        for metric in metrics:
            if any(name not in scores for name in metric.scorers):
                continue
            if metric.function is None:
                told = _probabilities(scores[metric.scorers[0]], metric.scorers[0])
                # a maximum grows with the number of outputs, and another number than the task's says nothing
                comparable = metric.summary == "mean" or len(outputs) == spec.generation.samples
                values[metric.name] = SUMMARIES[metric.summary](told) if comparable else None
                continue
            own = function(metric.function, path, trusted=trusted)
            given = {name: list(scores[name]) for name in metric.scorers}
            values[metric.name] = _pick(own(document.fields, outputs, given), metric, metric.function)
        return values

    return rate


def _probabilities(scores: Sequence[float | None], name: str) -> Sequence[float | None]:
    """Scores as they are; recorded ones may be of another scale, which no summary is for."""
    wrong = next((score for score in scores if score is not None and not 0 <= score <= 1), None)
    if wrong is not None:
        raise WorkError(
            f"the scorer {name!r} gives {wrong:g}, which is no probability; record scores from 0 to 1"
        )
    return scores


def combiners(
    spec: TaskSpec, path: Path, *, trusted: bool
) -> dict[str, Callable[[Sequence[float]], float | None]]:
    """Metric name → what makes the statistic of the sums over documents, for the metrics that are one."""

    def combine(reference: str, sums: Sequence[float]) -> float | None:
        value: float | None = function(reference, path, trusted=trusted)(sums)
        return value

    found: dict[str, Callable[[Sequence[float]], float | None]] = {}
    for metric in spec.metrics:
        if metric.combine is not None and metric.combine in COMBINE:
            found[metric.name] = COMBINE[metric.combine].combine
        elif metric.combine is not None:
            found[metric.name] = partial(combine, metric.combine)
        elif metric.function is None and spec.score is None and metric.name in CORPUS[spec.kind]:
            found[metric.name] = CORPUS[spec.kind][metric.name].combine
    return found


def questions(spec: TaskSpec, path: Path) -> dict[str, Question]:
    """What a language model is asked where it is a scorer of the task."""

    def ask(render: Callable[[Mapping[str, Any]], str], document: Document, output: str) -> str:
        return render({**document.fields, "output": output})

    return {
        name: Question(
            partial(ask, template(each.prompt, f"{path}: scorers.{name}.prompt")), each.yes, each.no
        )
        for name, each in spec.scorers.items()
    }


def with_scorers(task: Task, names: Collection[str]) -> Task:
    """The task with the metrics that need no scorer, or only those at hand, and the first of its headlines
    that is among them.

    Raises:
        UsageError: none is left, and its outputs are not judged either.
    """
    metrics = tuple(metric for metric in task.metrics if all(name in names for name in metric.scorers))
    kept = {metric.name for metric in metrics}
    headline = next((name for name in task.headlines if name in kept), None)
    if (headline is None and metrics) or (not metrics and not task.judged):
        needed = dict.fromkeys(n for metric in task.metrics for n in metric.scorers if n not in names)
        mend = " ".join(f"--scorer {name}=SPEC" for name in needed)
        raise UsageError(
            f"task {task.name} is scored by {' and '.join(needed)}, which has no default; give {mend}"
        )
    return replace(task, metrics=metrics, headline=headline)


def _given(kind: str, answer: Any) -> Any:
    if kind == "generate":
        return answer.text
    if kind == "multiple_choice":
        return [scored.logprob for scored in answer]
    if kind == "loglikelihood":
        return answer[0].logprob, answer[0].greedy
    chosen, rejected = answer
    return chosen.reward, rejected.reward


def _built_in(kind: str, name: str, document: Document, given: Any, answer: Any) -> Any:
    if name in PER_TOKEN:
        return PER_TOKEN[name](given, document.correct, [scored.n_tokens for scored in answer])
    metric: Any = CORPUS[kind][name].statistics if name in CORPUS[kind] else BUILT_IN[kind][name]
    if kind == "generate":
        return metric(given, document.references)
    if kind == "multiple_choice":
        return metric(given, document.correct, document.choices)
    if kind == "loglikelihood":
        return metric(*given, document.target)
    return metric(*given)


def _numbers(result: Any, metric: MetricSpec, reference: str) -> Statistics | None:
    """A document's part of a statistic of sums; None where its measurement failed."""
    if isinstance(result, Mapping):
        if metric.name not in result:
            raise WorkError(f"{reference} gives no numbers for the metric {metric.name!r}")
        result = result[metric.name]
    return None if result is None else tuple(map(float, result))


def _pick(result: Any, metric: MetricSpec, reference: str) -> float | None:
    if isinstance(result, Mapping):
        if metric.name not in result:
            raise WorkError(f"{reference} gives no value for the metric {metric.name!r}")
        result = result[metric.name]
    if result is None:
        return None
    value = float(result)
    if value != value or abs(value) == float("inf"):
        return None
    if abs(value) > GREATEST:
        raise WorkError(
            f"{reference} gives {value:g} for the metric {metric.name!r}, too great for a mean and its "
            "interval; give its logarithm"
        )
    low, high = metric.bounds or ((0.0, 1.0) if metric.unit == "rate" else (value, value))
    if not low <= value <= high:
        raise WorkError(
            f"{reference} gives {value:g} for the metric {metric.name!r}, outside {low:g} to {high:g}; "
            "mend it, or the metric's 'bounds'"
        )
    return value
