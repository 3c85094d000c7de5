"""The pocket world's gold judge: helpfulness by program, where the truth is known exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignbench.evaluation.types import Sample
from alignbench.judges.types import Documents
from alignbench.progress import Advance
from alignbench.tasks.types import Task

Gold = Callable[[Mapping[str, Any], str], Mapping[str, float | None]]


class GoldJudge:
    """Rates an output by gold helpfulness in 0…1. It applies to the tasks of the pocket world only."""

    def __init__(self, name: str = "gold", gold: Gold | None = None) -> None:
        if gold is None:
            from alignbench.pocket.gold import rate

            gold = rate
        self.name = name
        self._gold = gold

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": "gold",
            "spec": "gold",
            "fingerprint": None,
            "note": "helpfulness by the pocket world's own rules: the truth, not a proxy",
        }

    def applies(self, task: Task) -> bool:
        return task.world == "pocket"

    def rate(
        self, samples: Sequence[Sample], documents: Documents, on_done: Advance | None = None
    ) -> list[float | None]:
        ratings = [
            self._gold(documents[sample.task, sample.doc_id].fields, sample.output or "").get("helpfulness")
            for sample in samples
        ]
        if on_done is not None:
            on_done(len(samples))
        return ratings
