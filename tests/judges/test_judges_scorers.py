"""Scorers: how they are named, which are chosen, and what a language model's and a record's say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from alignbench.engines.types import Score, Scored
from alignbench.errors import UsageError
from alignbench.judges.scorers import (
    LanguageModelScorer,
    RecordedScores,
    ScorerSpec,
    choose_scorers,
    parse_scorer,
)
from alignbench.ledger import Ledger
from alignbench.tasks.types import Document, Metric, Question, Task


def make_task(name: str = "t", scorers: Sequence[str] = ("toxicity",), asks: Sequence[str] = ()) -> Task:
    return Task(
        name=name,
        family="f",
        area="toxicity",
        kind="generate",
        description="",
        path=Path("t.yaml"),
        metrics=tuple(Metric(f"m_{scorer}", scorers=(scorer,)) for scorer in scorers),
        headline=None,
        score=lambda document, answer: {},
        load=list,
        questions={
            name: Question(lambda doc, output: f"{doc.prompt}|{output}|True:", " yes", " no") for name in asks
        },
    )


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("toxicity=offline", ScorerSpec("toxicity", "offline", "offline")),
        ("truth=recorded", ScorerSpec("truth", "recorded", "recorded")),
        (
            "toxicity=hf:a/b?label=toxic",
            ScorerSpec("toxicity", "hf", "hf:a/b?label=toxic", "a/b?label=toxic"),
        ),
    ],
)
def test_parse(text: str, spec: ScorerSpec) -> None:
    assert parse_scorer(text) == spec


def test_a_judge_is_a_policy() -> None:
    spec = parse_scorer("truth=judge:org/model?dtype=bfloat16")
    assert spec.policy is not None
    assert (spec.policy.target, spec.policy.options) == ("org/model", {"dtype": "bfloat16"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("offline", "write NAME=SPEC"),
        ("toxicity=ofline", r"no kind 'ofline' \(did you mean 'offline'\?\)"),
        ("toxicity=hf:", "names no model; write toxicity=hf:MODEL"),
        ("toxicity=offline:x", "offline takes no path"),
        ("truth=offline", "nothing offline scores 'truth', only toxicity"),
    ],
)
def test_what_is_no_scorer(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_scorer(text)


def chosen(texts: Sequence[str], *tasks: Task) -> list[str]:
    return [f"{spec.name}={spec.spec}" for spec in choose_scorers(texts, tasks)]


def test_defaults_are_for_what_tasks_ask() -> None:
    assert chosen([], make_task()) == ["toxicity=offline"]
    assert chosen([], make_task(scorers=["truth"])) == []
    assert chosen([], make_task(scorers=[])) == []
    assert chosen(["toxicity=hf:m"], make_task()) == ["toxicity=hf:m"]
    both = make_task(scorers=["truth", "toxicity"], asks=["truth"])
    assert chosen(["truth=judge:m"], both) == ["toxicity=offline", "truth=judge:m"]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["toxicty=hf:m"], r"no task here asks for it \(did you mean 'toxicity'\?\); they ask for toxicity"),
        (["toxicity=hf:a", "toxicity=hf:b"], "given twice"),
        (["toxicity=judge:m"], "the task t has no question for a language model"),
    ],
)
def test_what_cannot_be_chosen(texts: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        choose_scorers(texts, [make_task()])


def test_recorded_scores_come_in_the_order_of_the_outputs() -> None:
    scores = RecordedScores("toxicity", {"a": {"toxicity": [0.1, None]}, "b": {"other": [0.9]}})
    documents = [
        Document("a", {}, "p"),
        Document("b", {}, "q"),
        Document("a", {}, "p"),
        Document("a", {}, "p"),
    ]
    assert scores.score(make_task(), documents, ["", "", "", ""]) == [0.1, None, None, None]


class YesEngine:
    """Its log P(yes) is minus the length of the context, its log P(no) −10; −inf for no where told."""

    identity: ClassVar[dict[str, str]] = {"engine": "fake"}

    def __init__(self) -> None:
        self.asked: list[Score] = []

    def score(self, requests: Sequence[Score], *, held: Any = ()) -> Iterator[list[tuple[int, Scored]]]:
        for i, request in enumerate(requests):
            if i not in held:
                self.asked.append(request)
                value = -float(len(request.context)) if request.continuation == " yes" else -10.0
                yield [(i, Scored(math.nan if "nan" in request.context else value, 1, False))]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path) as opened:
        yield opened


def test_a_language_model_weighs_yes_against_no(ledger: Ledger) -> None:
    engine = YesEngine()
    make: Callable[[Any], Any] = lambda policy: engine  # noqa: E731
    spec = parse_scorer("truth=judge:m")
    task = make_task(scorers=["truth"], asks=["truth"])
    documents = [Document("a", {}, "p"), Document("b", {}, "nan")]
    scorer = LanguageModelScorer(spec, make, ledger)
    found = scorer.score(task, documents, ["o", "o"])
    # the question is "p|o|True:", nine characters
    assert found == [pytest.approx(math.exp(-9) / (math.exp(-9) + math.exp(-10))), None]
    assert engine.asked[0].context == "p|o|True:"
    before = len(engine.asked)
    assert LanguageModelScorer(spec, make, ledger).score(task, documents[:1], ["o"]) == found[:1]
    assert len(engine.asked) == before  # the ledger had it
    assert SimpleNamespace(**scorer.describe()).kind == "judge"
