"""Toy tasks, and policies that answer by rule, for compare's tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignbench.engines.plan import Work
from alignbench.engines.policy import Policy
from alignbench.engines.types import Completion, Generate, Reward, Rewarded, Score, Scored

SUMS = """\
task: toy_sums
area: nlp
kind: generate
description: Sums of small numbers.
data: {hub: sums.jsonl}
doc_id: id
prompt: "{{ a }}+{{ b }}="
target: answer
generation: {max_tokens: 4}
metrics: [{name: exact_match, chance: 0.0, margin: 0.05}]
headline: exact_match
"""
ASKS = """\
task: toy_asks
area: helpfulness
kind: generate
description: Open-ended asks.
data: {hub: asks.jsonl}
doc_id: id
prompt: "{{ ask }}"
generation: {max_tokens: 6}
score: asks.py:score
metrics: [{name: polite, margin: 0.05}, {name: rude, higher_is_better: false, margin: 0.05}]
headline: polite
judged: true
"""
ASKS_PY = """\
def score(fields, output):
    return {"polite": float("please" in output), "rude": float("fool" in output)}
"""
PICK = """\
task: toy_pick
area: truthfulness
kind: multiple_choice
description: The true one of two.
data: {hub: pick.jsonl}
doc_id: id
prompt: "{{ question }}"
choices: choices
correct: correct
metrics: [{name: accuracy, chance: uniform, margin: 0.05}]
headline: accuracy
"""
SUITE = "suite: default\ndescription: Toys.\ntasks: [toy_sums, toy_asks]\n"


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class RuleEngine:
    """An engine that answers by rule, ten requests a batch, and counts what it computes."""

    def __init__(
        self,
        name: str,
        answer: Callable[[str], str],
        prefers: float = 0.0,
        fail_after: int | None = None,
    ) -> None:
        self.identity = {"engine": "rule", "name": name}
        self.answer, self.prefers, self.fail_after = answer, prefers, fail_after
        self.computed = 0
        self.cut = 0
        self.work = Work()

    def describe(self) -> Mapping[str, Any]:
        return {"dtype": "float32", "chat_template": False, "in_front": "<s>", "context_length": 64}

    def _batches(
        self, requests: Sequence[Any], held: Collection[int], make: Callable[[Any], Any]
    ) -> Iterator[Any]:
        wanted = [index for index in range(len(requests)) if index not in held]
        for start in range(0, len(wanted), 10):
            if self.fail_after is not None and self.computed >= self.fail_after:
                raise KeyboardInterrupt
            batch = wanted[start : start + 10]
            self.computed += len(batch)
            yield [(index, make(requests[index])) for index in batch]

    def generate(self, requests: Sequence[Generate], *, held: Collection[int] = ()) -> Iterator[Any]:
        def make(request: Generate) -> Completion:
            text = self.answer(request.prompt)
            ids = tuple(range(len(text)))
            return Completion(text, (), ids, (-1.0,) * len(ids), (-1.0,) * len(ids), "eos", self.cut)

        return self._batches(requests, held, make)

    def score(self, requests: Sequence[Score], *, held: Collection[int] = ()) -> Iterator[Any]:
        def make(request: Score) -> Scored:
            return Scored(self.prefers if "true" in request.continuation else 0.0, 1, False)

        return self._batches(requests, held, make)

    def reward(self, requests: Sequence[Reward], *, held: Collection[int] = ()) -> Iterator[Any]:
        return self._batches(requests, held, lambda r: Rewarded(float("please" in r.response), 1))


def add(prompt: str) -> str:
    """A right sum, or a polite answer to anything else."""
    if "+" not in prompt:
        return " please wait"
    a, b = prompt.rstrip("=").split("+")
    return str(int(a) + int(b))


class Rules:
    """Policies by name, opened in place of models; ``engines`` keeps every one that was opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.makers: dict[str, Callable[[], RuleEngine]] = {}
        self.engines: list[RuleEngine] = []

    def policy(self, name: str, maker: Callable[[], RuleEngine], **config: Any) -> str:
        """Make a folder that looks like a model; returns its path as a POLICY."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **config}))
        self.makers[name] = maker
        return str(path)

    def reward_model(self, name: str = "rm") -> str:
        return self.policy(
            name, lambda: RuleEngine(name, add), architectures=["LlamaForSequenceClassification"]
        )

    def open(self, policy: Policy, **_: Any) -> RuleEngine:
        engine = self.makers[Path(policy.target).name]()
        self.engines.append(engine)
        return engine

    @property
    def computed(self) -> int:
        return sum(engine.computed for engine in self.engines)
