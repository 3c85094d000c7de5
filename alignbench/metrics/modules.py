"""The metrics as modules of Hugging Face's ``evaluate``, without a download:
``load("squad_em").compute(...)``.

``evaluate.load`` fetches scripts from the hub; ``load`` here returns an ``evaluate.Metric`` that is made on
the spot, with ``compute``, ``add``, ``add_batch`` and ``evaluate.combine`` as usual. Only this file imports
``evaluate`` and ``datasets``, when it is used (some seconds).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from alignbench.errors import UsageError, nearest
from alignbench.metrics import BUILT_IN, CORPUS, PER_TOKEN, Unparsed, bias, toxicity
from alignbench.metrics.corpus import corpus_value
from alignbench.metrics.instructions import instruction_scores
from alignbench.metrics.overlap import truthfulqa_scores
from alignbench.metrics.squad import squad_em, squad_f1

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Module:
    """A metric as ``evaluate`` wants it. ``columns``: input → its type, in the order of a row; "predictions"
    is the first of them. ``aggregate``: from rows to the named results. ``usage``: what the inputs hold."""

    columns: Mapping[str, str]
    aggregate: Callable[[list[Row]], dict[str, Any]]
    usage: str


def load(name: str, **options: Any) -> Any:
    """The metric as an ``evaluate.Metric``.

    Args:
        name: one of ``module_names()``.
        options: of ``evaluate.Metric`` (``cache_dir``, ``num_process``, …); inputs stay in memory unless
            ``keep_in_memory`` is False.

    Returns:
        A metric whose results are ``{name: value, name_n: documents measured}``, with ``name_unparsed`` (a
        share) where an answer is extracted from the output. A value is None where nothing was measured.

    Raises:
        UsageError: there is no such module.
    """
    modules = _modules()
    if name not in modules:
        near = nearest(name, list(modules))
        raise UsageError(f"no metric is named {name!r}{near}; there are {', '.join(modules)}")
    return _class(name)(**{"keep_in_memory": True, **options})


def module_names() -> tuple[str, ...]:
    """What ``load`` knows."""
    return tuple(_modules())


@cache
def _class(name: str) -> Any:
    import datasets
    import evaluate

    module = _modules()[name]
    types = {
        "text": datasets.Value("string"),
        "number": datasets.Value("float64"),
        "index": datasets.Value("int64"),
        "flag": datasets.Value("bool"),
        "texts": datasets.List(datasets.Value("string")),
        "numbers": datasets.List(datasets.Value("float64")),
        "indices": datasets.List(datasets.Value("int64")),
    }
    features = [datasets.Features({column: types[kind] for column, kind in module.columns.items()})]
    if module.columns.get("references") == "texts":  # one reference a document may be a bare text
        one = {**module.columns, "references": "text"}
        features.append(datasets.Features({column: types[kind] for column, kind in one.items()}))

    def _info(self: Any) -> Any:
        return evaluate.MetricInfo(
            description=f"alignbench's {name}",
            citation="",
            inputs_description=f"\n{module.usage}",
            features=features if len(features) > 1 else features[0],
        )

    def _compute(self: Any, **columns: Any) -> dict[str, Any]:
        rows = zip(*(columns[column] for column in module.columns), strict=True)
        return module.aggregate([tuple(map(_as_list, module.columns.values(), row)) for row in rows])

    camel = "".join(part.capitalize() for part in name.split("_"))  # evaluate makes the name of the class's
    return type(camel, (evaluate.Metric,), {"_info": _info, "_compute": _compute})


@cache
def _modules() -> dict[str, Module]:
    """Every metric that a text, log-likelihoods or rewards are enough for, by name."""
    choices = {"predictions": "numbers", "references": "indices"}
    likelihood = {"predictions": "number", "greedy": "flag", "references": "text"}
    texts = "predictions: outputs; references: a list of accepted answers each (or one text)"
    logprobs = "predictions: a list of log-likelihoods each; references: the indices of the right choices"
    modules: dict[str, Module] = {}
    for name, function in BUILT_IN["generate"].items():
        modules[name] = Module({"predictions": "text", "references": "texts"}, _mean(name, function), texts)
    for name, function in BUILT_IN["multiple_choice"].items():
        columns = {**choices, "choices": "texts"} if name == "accuracy_bytes" else choices
        modules[name] = Module(columns, _mean(name, function), logprobs)
    for name, function in PER_TOKEN.items():
        modules[name] = Module({**choices, "n_tokens": "indices"}, _mean(name, function), logprobs)
    for name, function in BUILT_IN["loglikelihood"].items():
        name = "greedy_accuracy" if name == "accuracy" else name
        usage = (
            "predictions: log-likelihoods; greedy: whether greedy decoding gives it; references: the texts"
        )
        modules[name] = Module(likelihood, _mean(name, function), usage)
    for name, function in BUILT_IN["preference"].items():
        name = "pair_accuracy" if name == "accuracy" else name
        columns = {"predictions": "number", "references": "number"}
        usage = "predictions: rewards of the chosen responses; references: of the rejected ones"
        modules[name] = Module(columns, _mean(name, function), usage)
    bleu, ece = CORPUS["generate"]["bleu"], CORPUS["multiple_choice"]["ece"]
    modules["bleu"] = Module({"predictions": "text", "references": "texts"}, _corpus("bleu", bleu), texts)
    modules["ece"] = Module(choices, _corpus("ece", ece), logprobs)
    return {**modules, **_composites()}


def _composites() -> dict[str, Module]:
    """Those that give several numbers, or need more than an output and its references."""
    roles = {"references": "index", "unknown": "index", "biased": "index", "ambiguous": "flag"}
    return {
        "squad_v2": Module(
            {"predictions": "text", "references": "texts"},
            _squad_v2,
            "predictions: outputs; references: a list of accepted answers each, empty where there is none",
        ),
        "truthfulqa": Module(
            {"predictions": "text", "references": "texts", "incorrect": "texts"},
            _truthfulqa,
            "predictions: answers; references: lists of true answers; incorrect: lists of false answers",
        ),
        "toxicity": Module(
            {"predictions": "numbers"},
            _toxicity,
            "predictions: a list of scores each, one a sample; None where it is missing",
        ),
        "bbq": Module(
            {"predictions": "index", **roles},
            _bbq,
            "predictions: index of the answer given (−1: none); references: of the right one; unknown, "
            "biased: of those answers (−1: not known); ambiguous: whether the context leaves it open",
        ),
        "instructions": Module(
            {"predictions": "text", "references": "texts"},
            _instructions,
            'predictions: outputs; references: lists of instructions, in JSON: ["words", {"at_most": 9}]',
        ),
    }


def _as_list(kind: str, value: Any) -> Any:
    return [value] if kind == "texts" and isinstance(value, str) else value


def _mean(name: str, function: Callable[..., float | None]) -> Callable[[list[Row]], dict[str, Any]]:
    def aggregate(rows: list[Row]) -> dict[str, Any]:
        values = [function(*row) for row in rows]
        known = [value for value in values if value is not None]
        result: dict[str, Any] = {name: _average(known), f"{name}_n": len(known)}
        if name.endswith("_match") and name != "exact_match":
            result[f"{name}_unparsed"] = _average([float(isinstance(value, Unparsed)) for value in known])
        return result

    return aggregate


def _corpus(name: str, metric: Any) -> Callable[[list[Row]], dict[str, Any]]:
    def aggregate(rows: list[Row]) -> dict[str, Any]:
        vectors = [metric.statistics(*row) for row in rows]
        known = sum(vector is not None for vector in vectors)
        return {name: corpus_value(vectors, metric.combine), f"{name}_n": known}

    return aggregate


def _squad_v2(rows: list[Row]) -> dict[str, Any]:
    """Both scores over all questions, and over those with and without an answer."""
    scores = [(squad_em(*row), squad_f1(*row), bool(row[1])) for row in rows]
    result: dict[str, Any] = {"n": len(rows)}
    for prefix, kept in (
        ("", scores),
        ("has_answer_", [score for score in scores if score[2]]),
        ("no_answer_", [score for score in scores if not score[2]]),
    ):
        result[f"{prefix}em"] = _average([em for em, _, _ in kept])
        result[f"{prefix}f1"] = _average([f1 for _, f1, _ in kept])
    return result


def _truthfulqa(rows: list[Row]) -> dict[str, Any]:
    return _averages([truthfulqa_scores(*row) for row in rows])


def _toxicity(rows: list[Row]) -> dict[str, Any]:
    functions = {
        "mean": toxicity.mean_toxicity,
        "expected_maximum": toxicity.maximum_toxicity,
        "toxicity_probability": toxicity.ever_toxic,
    }
    prompts = [{name: function(list(scores)) for name, function in functions.items()} for (scores,) in rows]
    return {**_averages(prompts), "n": sum(prompt["mean"] is not None for prompt in prompts)}


def _bbq(rows: list[Row]) -> dict[str, Any]:
    vectors = [
        bias.bbq_statistics(
            said if said >= 0 else None, right, unknown, biased if biased >= 0 else None, open_
        )
        for said, right, unknown, biased, open_ in rows
    ]
    return {
        "accuracy_ambiguous": corpus_value(vectors, bias.bbq_accuracy_ambiguous),
        "accuracy_disambiguated": corpus_value(vectors, bias.bbq_accuracy_disambiguated),
        "bias_ambiguous": corpus_value(vectors, bias.bbq_bias_ambiguous),
        "bias_disambiguated": corpus_value(vectors, bias.bbq_bias_disambiguated),
        "n": len(vectors),
    }


def _instructions(rows: list[Row]) -> dict[str, Any]:
    scores = [
        instruction_scores(output, [(name, given) for name, given in map(json.loads, references)])
        for output, references in rows
    ]
    n = sum(score["n"] for score in scores)
    return {
        "prompt_strict": _average([score["prompt_strict"] for score in scores]),
        "prompt_loose": _average([score["prompt_loose"] for score in scores]),
        "instruction_strict": sum(score["followed_strict"] for score in scores) / n if n else None,
        "instruction_loose": sum(score["followed_loose"] for score in scores) / n if n else None,
        "n": len(scores),
    }


def _average(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _averages(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """The mean of each name over the rows that have it."""
    names = rows[0] if rows else ()
    return {name: _average([v for row in rows if (v := row[name]) is not None]) for name in names}
