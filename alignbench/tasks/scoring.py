"""From a checked task file to its ``score(document, answer)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alignbench.errors import WorkError
from alignbench.metrics import BUILT_IN
from alignbench.tasks.plugins import function
from alignbench.tasks.spec import MetricSpec, TaskSpec
from alignbench.tasks.types import Document, Values


def scorer(spec: TaskSpec, path: Path, *, trusted: bool) -> Callable[[Document, Any], Values]:
    """Return the function that turns what came back into every metric of the task.

    A Python function of the task file is called as ``score(fields, answer)``, with the output text
    (generate), the choices' log-likelihoods (multiple_choice), the target's log-likelihood and whether greedy
    decoding gives it (loglikelihood), or the pair of rewards (preference). It returns a number or None for
    its metric, or a mapping of metric names; one that several metrics share is called once a document. A true
    value under ``unparsed`` says that the output held no answer to score; the metrics beside it are then the
    wrong answer's.
    """
    functions: dict[str, Callable[..., Any]] = {}  # loaded when the first answer comes: listing runs no code

    def score(document: Document, answer: Any) -> Values:
        given = _given(spec.kind, answer)
        results: dict[str, Any] = {}
        values: dict[str, float | None] = {}
        for metric in spec.metrics:
            reference = metric.function or spec.score
            if reference is None:
                values[metric.name] = _built_in(spec.kind, metric.name, document, given)
                continue
            if reference not in functions:
                functions[reference] = function(reference, path, trusted=trusted)
            if reference not in results:
                results[reference] = functions[reference](document.fields, given)
            values[metric.name] = _pick(results[reference], metric, reference)
        if any(isinstance(result, Mapping) and result.get("unparsed") for result in results.values()):
            values["unparsed"] = 1.0
        return values

    return score


def _given(kind: str, answer: Any) -> Any:
    if kind == "generate":
        return answer.text
    if kind == "multiple_choice":
        return [scored.logprob for scored in answer]
    if kind == "loglikelihood":
        return answer[0].logprob, answer[0].greedy
    chosen, rejected = answer
    return chosen.reward, rejected.reward


def _built_in(kind: str, name: str, document: Document, given: Any) -> float | None:
    metric = BUILT_IN[kind][name]
    if kind == "generate":
        result: float | None = metric(given, document.references)
    elif kind == "multiple_choice":
        result = metric(given, document.correct, document.choices)
    elif kind == "loglikelihood":
        result = metric(*given, document.target)
    else:
        result = metric(*given)
    return result


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
    low, high = metric.bounds or ((0.0, 1.0) if metric.unit == "rate" else (value, value))
    if not low <= value <= high:
        raise WorkError(
            f"{reference} gives {value:g} for the metric {metric.name!r}, outside {low:g} to {high:g}; "
            "mend it, or the metric's 'bounds'"
        )
    return value
