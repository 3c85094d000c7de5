"""Where two sides' answers to the same requests differ, and whether that is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from parity_requests import RequestSet

NEAR = 1e-4
"""Two tokens whose log-probabilities are nearer than this are a near-tie: rounding decides between them."""

Gap = Callable[[int, Any, Any], float]
"""(request, our answer, their answer) → the gap that decides a discrete difference, in nats."""


def tolerance(logprob: float) -> float:
    """How far a summed float32 log-probability may lie from another computation of it."""
    return 1e-4 + 1e-6 * abs(logprob)


@dataclass
class Comparison:
    """One set on one checkpoint. ``differences`` are not allowed; ``near_ties`` and ``known`` are."""

    name: str
    n: int
    largest: float = 0.0
    """The largest difference of two log-probabilities, in nats; 0 for texts."""
    spread: float = 0.0
    """Standard deviation of the peer's log-probabilities per request: what the largest is small against."""
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Ours and theirs."""
    differences: list[dict[str, Any]] = field(default_factory=list)
    near_ties: list[dict[str, Any]] = field(default_factory=list)
    known: list[dict[str, Any]] = field(default_factory=list)

    @property
    def unequal_metrics(self) -> list[str]:
        return [name for name, (ours, theirs) in self.metrics.items() if ours != theirs]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(requests: RequestSet, ours: Sequence[Any], theirs: Sequence[Any], gap: Gap) -> Comparison:
    """Compare answers: ``(logprob, greedy)``, texts, or rolling log-probabilities.

    A peer's answer may be ``{"error": name}``: it refused the request.
    """
    result = Comparison(requests.name, len(requests.requests))
    logprobs = []
    for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        entry = {"request": i, "ours": mine, "theirs": other}
        if i in requests.known:
            result.known.append(entry | {"why": requests.known[i]})
            continue
        if isinstance(other, dict):
            result.differences.append(entry)
            continue
        if requests.verb == "generate_until":
            tied = mine != other
        else:
            (mine, mine_greedy), (other, other_greedy) = _pair(mine), _pair(other)
            delta = abs(mine - other)
            result.largest = max(result.largest, delta)
            logprobs.append(other)
            if not delta <= tolerance(other):  # NaN is a difference too
                result.differences.append(entry)
            tied = mine_greedy != other_greedy
        if tied:
            width = gap(i, ours[i], theirs[i])
            (result.near_ties if width < NEAR else result.differences).append(entry | {"gap": width})
    if len(logprobs) > 1:
        mean = sum(logprobs) / len(logprobs)
        result.spread = (sum((x - mean) ** 2 for x in logprobs) / (len(logprobs) - 1)) ** 0.5
    measured = metrics(requests, theirs)
    result.metrics = {name: (metrics(requests, ours)[name], value) for name, value in measured.items()}
    return result


def _pair(answer: Any) -> tuple[float, bool]:
    return (answer, False) if isinstance(answer, float) else (float(answer[0]), bool(answer[1]))


def metrics(requests: RequestSet, answers: Sequence[Any]) -> dict[str, float]:
    """Accuracy, accuracy per character (``acc_norm``) and greedy accuracy; or exact match of the number. Of
    the questions that both sides answer by the same rules; none where there is no such question."""
    refused = {i for i, answer in enumerate(answers) if isinstance(answer, dict)} | requests.known.keys()
    questions = [q for q in requests.questions if refused.isdisjoint(q.rows)]
    if not questions:
        return {}
    if requests.verb == "generate_until":
        right = [_number(answers[q.rows[0]]) == _number(f"#### {q.gold}") for q in questions]
        return {"exact_match": sum(right) / len(right)}
    if all(len(q.rows) == 1 for q in questions):
        greedy = [bool(answers[q.rows[0]][1]) for q in questions]
        return {"greedy_accuracy": sum(greedy) / len(greedy)}
    plain, normed = 0, 0
    for q in questions:
        sums = [answers[i][0] for i in q.rows]
        per_character = [s / length for s, length in zip(sums, q.lengths)]
        plain += sums.index(max(sums)) == q.gold
        normed += per_character.index(max(per_character)) == q.gold
    return {"acc": plain / len(questions), "acc_norm": normed / len(questions)}


def _number(text: str) -> str | None:
    found = re.search(r"#### (-?[\d.,]+)", text)
    return found and found[1].replace(",", "").rstrip(".")
