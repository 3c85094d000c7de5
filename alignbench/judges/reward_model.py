"""A reward model as a judge: the scalar head's value at the end of prompt + response."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from alignbench.engines.policy import Policy
from alignbench.engines.types import Engine, Reward, Rewarded
from alignbench.evaluation.types import Sample
from alignbench.judges.types import Documents
from alignbench.ledger import Ledger, answer, content_key
from alignbench.progress import Advance
from alignbench.tasks.types import Task


class RewardModelJudge:
    """Rates an output by its reward. The model is opened when it is first needed, so that it does not share
    the memory with the policies; every reward goes through the ledger."""

    def __init__(
        self,
        policy: Policy,
        open_engine: Callable[[Policy], Engine],
        ledger: Ledger,
        *,
        name: str = "rm",
        note: str = "",
        fresh: bool = False,
    ) -> None:
        self.name, self.note = name, note
        self._policy, self._open, self._ledger, self._fresh = policy, open_engine, ledger, fresh
        self._engine: Engine | None = None
        self._rated: Counter[str] = Counter()
        self._cut: Counter[str] = Counter()

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = self._open(self._policy)
        return self._engine

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": "rm",
            "spec": f"rm:{self._policy.spec}",
            "fingerprint": content_key(identity=dict(self.engine.identity))[:16],
            "note": self.note,
            "rated": dict(self._rated),
            "cut": dict(self._cut),
        }

    def applies(self, task: Task) -> bool:
        return True

    def rate(
        self, samples: Sequence[Sample], documents: Documents, on_done: Advance | None = None
    ) -> list[float | None]:
        requests = [Reward(documents[s.task, s.doc_id].prompt, s.output or "") for s in samples]
        identity = dict(self.engine.identity)
        keys = [
            content_key(engine=identity, verb="reward", prompt=request.prompt, response=request.response)
            for request in requests
        ]

        def run(held: Collection[int]) -> Iterator[list[tuple[int, Rewarded]]]:
            return self.engine.reward(requests, held=held)

        answers: list[Rewarded] = answer(
            self._ledger,
            "reward",
            keys,
            run,
            encode=asdict,
            decode=lambda payload: Rewarded(**payload),
            fresh=self._fresh,
            on_done=on_done,
        )
        for sample, result in zip(samples, answers, strict=True):
            self._rated[sample.policy] += 1
            self._cut[sample.policy] += result.cut > 0
        return [result.reward for result in answers]
