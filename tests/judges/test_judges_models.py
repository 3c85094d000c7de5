"""Judge specifications, the gold judge and the reward model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignbench.engines.policy import Policy, parse_policy
from alignbench.engines.types import Reward, Rewarded
from alignbench.errors import UsageError
from alignbench.evaluation.types import Sample
from alignbench.judges.gold import GoldJudge
from alignbench.judges.reward_model import RewardModelJudge
from alignbench.judges.specs import open_judge, parse_judge
from alignbench.judges.types import Rater
from alignbench.ledger import Ledger
from alignbench.tasks.types import Document, Task


@pytest.mark.parametrize(
    ("text", "name", "kind", "spec", "target"),
    [
        ("gold", "gold", "gold", "gold", None),
        ("truth=gold", "truth", "gold", "gold", None),
        ("rm:runs/rm-2", "rm-2", "rm", "rm:runs/rm-2", "runs/rm-2"),
        ("mine=rm:runs/rm?dtype=float32", "mine", "rm", "rm:runs/rm?dtype=float32", "runs/rm"),
        ("rm:org/model@v1", "model", "rm", "rm:org/model@v1", "org/model"),
    ],
)
def test_specs(text: str, name: str, kind: str, spec: str, target: str | None) -> None:
    found = parse_judge(text)
    assert (found.name, found.kind, found.spec) == (name, kind, spec)
    assert (found.policy.target if found.policy else None) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gld", "did you mean 'gold'"),
        ("rm", "names no reward model; write rm:PATH"),
        ("rm:", "names no reward model"),
        ("gold:x", "gold takes no path"),
        ("rm:x?dtyp=1", "unknown option 'dtyp'"),
        ("none", "or none alone"),
        ("rm:openai:m@http://127.0.0.1:9/v1", "a server generates and gives no rewards.*hub id: rm:PATH$"),
        ("rm:recorded:a.jsonl", "recorded outputs are no model and give no rewards.*rm:PATH$"),
        ("x=rm:vllm:runs/rm", "the engine vllm gives no rewards.*rm:runs/rm, which transformers runs$"),
    ],
)
def test_wrong_specs(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_judge(text)


def task(world: str | None) -> Task:
    return Task(
        "t", "f", "helpfulness", "generate", "", Path("t"), (), None, lambda d, a: {}, list, world=world
    )


def sample(doc_id: str, output: str) -> Sample:
    return Sample("p", "t", doc_id, doc_id, "shown", output, None, {}, 1)


DOCUMENTS = {("t", str(i)): Document(str(i), {"likes": f"word{i}"}, f"prompt {i}") for i in range(6)}


def test_gold_rates_by_the_documents_fields() -> None:
    judge = GoldJudge(gold=lambda fields, output: {"helpfulness": float(fields["likes"] in output)})
    assert judge.rate([sample("1", "word1"), sample("2", "word1")], DOCUMENTS) == [1.0, 0.0]
    assert judge.applies(task("pocket"))
    assert not judge.applies(task(None))
    assert GoldJudge(gold=lambda fields, output: {}).rate([sample("1", "x")], DOCUMENTS) == [None]


def test_gold_knows_the_pocket_world() -> None:
    from alignbench.pocket.data import prompts

    ask = prompts(0, 1)[0]
    documents = {("t", "0"): Document("0", ask.fields(), ask.prompt)}
    judge = open_judge(parse_judge("gold"), open_engine=_never, ledger=None)  # type: ignore[arg-type]
    assert isinstance(judge, Rater)
    (rating,) = judge.rate([sample("0", " you fool")], documents)
    assert rating is not None
    assert 0.0 <= rating < 0.5


def _never(policy: Policy) -> Any:
    raise AssertionError("no engine is needed")


class Counting:
    """Rewards the length of a response; says what it was asked."""

    def __init__(self) -> None:
        self.identity = {"engine": "counting"}
        self.asked: list[Reward] = []

    def reward(
        self, requests: Sequence[Reward], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Rewarded]]]:
        for index, request in enumerate(requests):
            if index not in held:
                self.asked.append(request)
                yield [(index, Rewarded(len(request.response) / 3, 2, max(0, len(request.response) - 3)))]


def test_a_reward_model_rates_prompt_and_output_through_the_ledger(tmp_path: Path) -> None:
    engine = Counting()
    samples = [sample(str(i), "x" * i) for i in range(5)]
    with Ledger.open(tmp_path) as ledger:
        judge = RewardModelJudge(parse_policy("x"), lambda policy: engine, ledger, name="rm")
        done: list[int] = []
        first = judge.rate(samples, DOCUMENTS, lambda n=1, note="": done.append(n))
        assert first == [i / 3 for i in range(5)]
        assert sum(done) == 5
        assert engine.asked[1] == Reward("prompt 1", "x")  # the document's prompt
        again = RewardModelJudge(parse_policy("x"), lambda policy: engine, ledger)
        changed = [*samples[:4], replace(samples[4], output="new")]
        assert again.rate(changed, DOCUMENTS) == [*first[:4], 1.0]
        assert len(engine.asked) == 6
        RewardModelJudge(parse_policy("x"), lambda policy: engine, ledger, fresh=True).rate(
            samples, DOCUMENTS
        )
        assert len(engine.asked) == 11
        described = judge.describe()
        assert again.describe()["rated"] == {"p": 5}
        assert again.describe()["cut"] == {"p": 0}  # "new" fits, and so does every other of up to 3 letters
    assert described["fingerprint"]
    assert described["cut"] == {"p": 1}  # the output of 4 letters
    assert (described["name"], described["kind"], described["spec"]) == ("rm", "rm", "rm:x")
