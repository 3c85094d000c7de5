"""Policies that are one model, and policies that answered alike."""

from __future__ import annotations

from pathlib import Path

from alignbench.compare.alike import OneModel, SameAnswers, one_model, same_answers
from alignbench.evaluation.types import Sample
from alignbench.tasks.types import Metric, Task


def task(name: str, kind: str = "generate") -> Task:
    return Task(
        name=name,
        family="f",
        area="nlp",
        kind=kind,
        description="",
        path=Path(name),
        metrics=(Metric("m"),),
        headline="m",
        score=lambda document, answer: {},
        load=list,
    )


def answers(policy: str, name: str, *outputs: str | None) -> list[Sample]:
    return [
        Sample(policy, name, f"d{i}", f"d{i}", "", output, None, {}, None) for i, output in enumerate(outputs)
    ]


def test_one_model_whatever_runs_it() -> None:
    a = {"engine": "hf", "numerics": 3, "weights": "w", "dtype": "float32"}
    b = a | {"engine": "vllm", "numerics": 1}
    identities = {"a": a, "b": b, "c": a | {"dtype": "bfloat16"}, "d": {"file": "x"}, "e": {"file": "x"}}
    assert one_model(identities) == [OneModel(("a", "b"), 2), OneModel(("d", "e"), 1)]
    assert one_model({"a": a, "again": dict(a)}) == [OneModel(("a", "again"), 1)]
    assert one_model({"a": a}) == []


def test_the_same_answers_to_the_letter() -> None:
    tasks = [task("t"), task("choice", "multiple_choice"), task("bits", "loglikelihood")]

    def of(name: str, last: str | None, choice: str = "yes") -> dict[str, list[Sample]]:
        rest = {"choice": answers(name, "choice", choice), "bits": answers(name, "bits", "")}
        return {"t": answers(name, "t", "one", last)} | rest

    found = {"a": of("a", "two"), "b": of("b", "two"), "c": of("c", "two "), "d": of("d", "two", "no")}
    assert same_answers(tasks, found) == [SameAnswers(("a", "b"), 3)]
    assert same_answers(tasks, {"a": of("a", None), "b": of("b", None)}) == [], "nothing was answered"
    part = {"t": found["b"]["t"]}
    assert same_answers(tasks, {"a": found["a"], "b": part}) == [], "a task failed"
    assert same_answers(tasks[1:], {"a": of("a", "x"), "c": of("c", "y")}) == [], "choices agree soon"
