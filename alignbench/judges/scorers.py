"""``NAME=SPEC``: what scores single outputs for a task's metrics, and how it is chosen on the command line.

A task file says which scorers its metrics need (``scorer: toxicity``); ``--scorer`` says what each of them
is:

- ``offline``: the classifier that comes with alignbench (toxicity only, and its default);
- ``hf:MODEL[?label=…]``: a Hugging Face classifier;
- ``judge:POLICY``: a language model that is asked the question of the task file (its ``scorers``);
- ``recorded``: the scores that recorded outputs carry (``"scores": {NAME: number}`` in their rows).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from alignbench import engines
from alignbench.engines.policy import Policy, parse_policy
from alignbench.engines.types import Engine, Score, Scored, Unanswered
from alignbench.errors import UsageError, nearest
from alignbench.evaluation.run import ask_engine
from alignbench.evaluation.types import Scorer
from alignbench.ledger import Ledger, content_key
from alignbench.progress import Advance
from alignbench.tasks.types import Document, Task

OFFLINE, HF, JUDGE, RECORDED = "offline", "hf", "judge", "recorded"
KINDS = (OFFLINE, HF, JUDGE, RECORDED)
DEFAULTS: Mapping[str, str] = {"toxicity": OFFLINE}
"""Scorers that need not be given."""


@dataclass(frozen=True)
class ScorerSpec:
    """A parsed scorer: the ``name`` by which tasks ask for it, its ``kind``, the ``spec`` as typed and, for a
    model, where it is."""

    name: str
    kind: str
    spec: str
    target: str = ""
    policy: Policy | None = None


class Described(Scorer, Protocol):
    """A scorer that says what it is."""

    def describe(self) -> dict[str, Any]:
        """JSON-able: ``kind``, ``fingerprint`` (None where there is nothing to hash), ``note``, ``cut``."""
        ...


def parse_scorer(text: str) -> ScorerSpec:
    """Parse ``NAME=SPEC``.

    Raises:
        UsageError: no name, an unknown kind, or a model without a path.
    """
    named = re.match(r"^(\w+)=(.+)$", text)
    if named is None:
        raise UsageError(f"--scorer {text!r}: write NAME=SPEC, such as toxicity=hf:MODEL")
    name, spec = named.groups()
    kind, _, target = spec.partition(":")
    if kind not in KINDS:
        raise UsageError(
            f"--scorer {text!r}: no kind {kind!r}{nearest(kind, KINDS)}; write {name}=offline, "
            f"{name}=hf:MODEL, {name}=judge:POLICY or {name}=recorded"
        )
    if kind in (HF, JUDGE) and not target:
        raise UsageError(f"--scorer {text!r} names no model; write {name}={kind}:MODEL")
    if kind in (OFFLINE, RECORDED) and target:
        raise UsageError(f"--scorer {text!r}: {kind} takes no path; write {name}={kind}")
    if kind == OFFLINE and name not in DEFAULTS:
        raise UsageError(
            f"--scorer {text!r}: nothing offline scores {name!r}, only {', '.join(DEFAULTS)}; "
            f"write {name}=hf:MODEL or {name}=judge:POLICY"
        )
    return ScorerSpec(name, kind, spec, target, parse_policy(target) if kind == JUDGE else None)


def choose_scorers(texts: Sequence[str], tasks: Sequence[Task]) -> list[ScorerSpec]:
    """The scorers that the tasks ask for: as given, else by default; those without either are left out.

    Raises:
        UsageError: see ``parse_scorer``; one given twice; one that no task asks for; a task without a
            question for a language model.
    """
    wanted = dict.fromkeys(n for task in tasks for metric in task.metrics for n in metric.scorers)
    given: dict[str, ScorerSpec] = {}
    for text in texts:
        spec = parse_scorer(text)
        if spec.name in given:
            raise UsageError(f"--scorer {spec.name} is given twice; leave one out")
        if spec.name not in wanted:
            known = f"they ask for {', '.join(wanted)}" if wanted else "they ask for none"
            raise UsageError(
                f"--scorer {text}: no task here asks for it{nearest(spec.name, list(wanted))}; {known}"
            )
        asks = [task for task in tasks if any(spec.name in metric.scorers for metric in task.metrics)]
        silent = next((task.name for task in asks if spec.name not in task.questions), None)
        if spec.kind == JUDGE and silent:
            raise UsageError(
                f"--scorer {text}: the task {silent} has no question for a language model (key 'scorers'); "
                f"write {spec.name}=hf:MODEL"
            )
        given[spec.name] = spec
    defaults = [parse_scorer(f"{name}={DEFAULTS[name]}") for name in wanted if name in DEFAULTS]
    return list({**{spec.name: spec for spec in defaults}, **given}.values())


def asked_of(task: Task) -> list[dict[str, Any]]:
    """The scorers that a task's metrics ask for, JSON-able: ``name``, the ``metrics``, the ``default`` (None:
    there is none, and the metrics are left out unless one is given), and whether the task has a ``question``
    for a language model."""
    names = dict.fromkeys(name for metric in task.metrics for name in metric.scorers)
    return [
        {
            "name": name,
            "metrics": [metric.name for metric in task.metrics if name in metric.scorers],
            "default": DEFAULTS.get(name),
            "question": name in task.questions,
        }
        for name in names
    ]


def check_scorer(spec: ScorerSpec) -> None:
    """Find a scorer's model without loading it, so that a wrong name fails before anything is generated.

    Raises:
        UsageError: no such model; it is no classifier, or has no such label; a policy that is not run.
    """
    if spec.kind == HF:
        from alignbench.judges.classifier import find_classifier, parse_classifier

        find_classifier(parse_classifier(spec.target))
    elif spec.policy is not None and spec.policy.kind == engines.RECORDED:
        raise UsageError(
            f"--scorer {spec.name}={spec.spec}: recorded outputs cannot be asked; name a model, or write "
            f"{spec.name}=recorded for the scores that they carry"
        )
    elif spec.policy is not None and spec.policy.kind in engines.ON_WEIGHTS:
        from alignbench.engines.identity import locate

        locate(spec.policy, f"--scorer {spec.name}={spec.spec}")


def open_scorer(
    spec: ScorerSpec, *, open_engine: Callable[[Policy], Engine], ledger: Ledger, fresh: bool = False
) -> Described:
    """Make the scorer; a model is loaded when it is first asked.

    Raises:
        UsageError: no such model, or it is no classifier.
    """
    if spec.kind == OFFLINE:
        from alignbench.judges.toxicity import open_toxicity

        return OfTexts(spec, open_toxicity())
    if spec.kind == HF:
        from alignbench.judges.classifier import open_classifier

        return OfTexts(spec, open_classifier(spec.target, ledger=ledger, fresh=fresh))
    if spec.kind == RECORDED:
        return RecordedScores(spec.name, {})
    return LanguageModelScorer(spec, open_engine, ledger, fresh=fresh)


class OfTexts:
    """A scorer that reads an output alone (a classifier)."""

    def __init__(self, spec: ScorerSpec, inner: Any) -> None:
        self.name, self._spec, self._inner = spec.name, spec, inner

    def describe(self) -> dict[str, Any]:
        return {**self._inner.describe(), "kind": self._spec.kind, "spec": self._spec.spec}

    def score(
        self,
        task: Task,
        documents: Sequence[Document],
        outputs: Sequence[str],
        on_done: Advance | None = None,
    ) -> list[float | None]:
        prompts = [document.prompt for document in documents]
        scores: list[float | None] = self._inner.score(prompts, outputs, on_done)
        return scores


class RecordedScores:
    """Scores that lie beside recorded outputs.

    Args:
        scores: doc_id → scorer's name → one score an output of the document.
    """

    def __init__(self, name: str, scores: Mapping[str, Mapping[str, Sequence[float | None]]]) -> None:
        self.name, self._scores = name, scores

    def describe(self) -> dict[str, Any]:
        note = "the scores that the recorded outputs carry"
        return {"kind": RECORDED, "spec": RECORDED, "fingerprint": None, "note": note}

    def score(
        self,
        task: Task,
        documents: Sequence[Document],
        outputs: Sequence[str],
        on_done: Advance | None = None,
    ) -> list[float | None]:
        """The outputs of one document come in their order; a score that nobody recorded is None."""
        seen: Counter[str] = Counter()
        found: list[float | None] = []
        for document in documents:
            held = self._scores.get(document.doc_id, {}).get(self.name, ())
            place = seen[document.doc_id]
            found.append(held[place] if place < len(held) else None)
            seen[document.doc_id] += 1
        return found


class LanguageModelScorer:
    """P(yes) / (P(yes) + P(no)) behind the task's question, by a language model: the summed probabilities of
    the two answers' tokens. Every answer goes through the ledger."""

    def __init__(
        self,
        spec: ScorerSpec,
        open_engine: Callable[[Policy], Engine],
        ledger: Ledger,
        *,
        fresh: bool = False,
    ) -> None:
        assert spec.policy is not None  # parse_scorer gives every judge one
        self.name, self._spec, self._policy = spec.name, spec, spec.policy
        self._open, self._ledger, self._fresh = open_engine, ledger, fresh
        self._engine: Engine | None = None
        self._cut = 0

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = self._open(self._policy)
        return self._engine

    def describe(self) -> dict[str, Any]:
        return {
            "kind": JUDGE,
            "spec": self._spec.spec,
            "fingerprint": content_key(identity=dict(self.engine.identity))[:16],
            "note": "probability of yes against no behind the task's question",
            "cut": self._cut,
        }

    def score(
        self,
        task: Task,
        documents: Sequence[Document],
        outputs: Sequence[str],
        on_done: Advance | None = None,
    ) -> list[float | None]:
        question = task.questions[self.name]
        requests = [
            Score(question.prompt(document, output), text)
            for document, output in zip(documents, outputs, strict=True)
            for text in (question.yes, question.no)
        ]
        answers: list[Scored | Unanswered] = ask_engine(
            self.engine, "score", requests, self._ledger, self._fresh, on_done
        )
        self._cut += sum(isinstance(scored, Scored) and scored.cut > 0 for scored in answers[::2])
        return [_share(yes, no) for yes, no in zip(answers[::2], answers[1::2])]


def _share(yes: Scored | Unanswered, no: Scored | Unanswered) -> float | None:
    """P(yes) / (P(yes) + P(no)); None where one was not answered, or its log-likelihood is no number."""
    if isinstance(yes, Unanswered) or isinstance(no, Unanswered):
        return None
    if not (math.isfinite(yes.logprob) and math.isfinite(no.logprob)):
        return None
    return 1 / (1 + math.exp(min(no.logprob - yes.logprob, 700.0)))
