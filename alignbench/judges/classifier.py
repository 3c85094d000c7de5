"""Any Hugging Face classifier as a scorer: the probability of one of its labels, for an output alone."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from alignbench.errors import UsageError, nearest
from alignbench.ledger import Ledger, answer, content_key
from alignbench.progress import Advance

if TYPE_CHECKING:
    from alignbench.judges.classifying import Classifier

OPTIONS = ("label", "activation", "device", "dtype")
ACTIVATIONS = ("sigmoid", "softmax")
DTYPES = ("float32", "bfloat16", "float16")
TOXIC = ("toxic", "toxicity")
"""Labels that are taken where none is named."""


@dataclass(frozen=True)
class ClassifierSpec:
    """A parsed classifier: the ``spec`` as typed, ``target`` (path or hub id), ``revision`` and options."""

    spec: str
    target: str
    revision: str | None
    options: dict[str, str]


@dataclass(frozen=True)
class Classified:
    """What a classifier said of a text: one logit a label (None where one is no number), tokens that it read,
    and tokens that were cut from the end."""

    logits: list[float] | None
    n_tokens: int
    cut: int


def parse_classifier(text: str) -> ClassifierSpec:
    """Parse ``MODEL[@revision][?label=…&activation=…&device=…&dtype=…]``.

    Raises:
        UsageError: no model, an unknown option, or one without a value or with an unknown one.
    """
    target, _, query = text.partition("?")
    if not target:
        raise UsageError(f"classifier {text!r} names no model; write hf:MODEL?label=LABEL")
    revision = None
    if "@" in target and not os.path.isdir(target):
        target, _, revision = target.rpartition("@")
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, _, value = part.partition("=")
        if key not in OPTIONS:
            known = ", ".join(OPTIONS)
            raise UsageError(
                f"classifier {text!r}: unknown option {key!r}{nearest(key, OPTIONS)}; there are {known}"
            )
        if not value:
            raise UsageError(f"classifier {text!r}: option {key!r} has no value; write {key}=VALUE")
        options[key] = unquote(value)
    for key, allowed in (("activation", ACTIVATIONS), ("dtype", DTYPES)):
        if options.get(key, allowed[0]) not in allowed:
            wrong = options[key]
            raise UsageError(
                f"classifier {text!r}: no {key} {wrong!r}{nearest(wrong, allowed)}; "
                f"write {' or '.join(allowed)}"
            )
    return ClassifierSpec(text, target, revision, options)


def open_classifier(text: str, *, ledger: Ledger, fresh: bool = False) -> ClassifierScorer:
    """A classifier as a scorer. Its files are found and its labels read now; its weights are loaded when
    something is asked that the ledger does not hold.

    Args:
        text: what follows ``hf:``; see ``parse_classifier``.
        ledger: where its answers are kept.
        fresh: compute everything again.

    Raises:
        UsageError: see ``parse_classifier``; no such model; it is no classifier, or has no such label.
    """
    return ClassifierScorer(parse_classifier(text), ledger, fresh=fresh)


def find_classifier(spec: ClassifierSpec) -> tuple[Path, list[str], str, str | None]:
    """Its folder, its labels in the order of its logits, the label that is scored, and its config's
    ``problem_type``. No weights are loaded.

    Raises:
        UsageError: no such model; it is no classifier, or has no such label.
    """
    from alignbench.engines.identity import find_folder
    from alignbench.judges.classifying import labels_of

    what = f"classifier {spec.spec!r}"
    folder = find_folder(spec.target, spec.revision, what)
    labels, problem = labels_of(folder, what)
    return folder, labels, choose_label(labels, spec.options.get("label"), what), problem


class ClassifierScorer:
    """P(label) of each output. The ledger keeps the logits of all labels, so that another label or activation
    costs nothing."""

    name = "classifier"

    def __init__(self, spec: ClassifierSpec, ledger: Ledger, *, fresh: bool = False) -> None:
        from alignbench.engines.identity import digest_folder

        self._spec, self._ledger, self._fresh = spec, ledger, fresh
        self._folder, self._labels, self.label, problem = find_classifier(spec)
        self.activation = spec.options.get("activation") or activation_for(problem, len(self._labels))
        self._identity: dict[str, Any] = {
            **digest_folder(self._folder, fresh=fresh),
            "engine": "classifier",
            "dtype": spec.options.get("dtype", DTYPES[0]),
        }
        self._counts = {"scored": 0, "empty": 0, "cut": 0, "failed": 0}

    @cached_property
    def _classifier(self) -> Classifier:
        from alignbench.judges.classifying import load_classifier

        options = self._spec.options
        return load_classifier(
            self._folder,
            dtype=self._identity["dtype"],
            device=options.get("device"),
            what=f"classifier {self._spec.spec!r}",
        )

    def describe(self) -> dict[str, Any]:
        """``cut``: outputs whose end the model did not see; ``empty``: outputs of white space, which are 0;
        ``failed``: outputs without a finite answer, which have no score."""
        rule = {"sigmoid": "each label by itself", "softmax": "of all labels, one"}[self.activation]
        return {
            "name": self.name,
            "kind": "hf",
            "spec": f"hf:{self._spec.spec}",
            "fingerprint": content_key(identity=self._identity)[:16],
            "note": f"probability of the label {self.label!r} ({self.activation}: {rule})",
            "label": self.label,
            "activation": self.activation,
            **self._counts,
        }

    def score(
        self, prompts: Sequence[str], outputs: Sequence[str], on_done: Advance | None = None
    ) -> list[float | None]:
        """P(label) of each output, in order; None where the classifier gave no finite number. An empty
        output, or one of white space, says nothing: it has 0 and is not asked.

        Args:
            prompts: what was continued; not read.
            outputs: what is scored.
            on_done: told how many have been scored.
        """
        said = [i for i, output in enumerate(outputs) if output.strip()]
        if on_done is not None and len(said) < len(outputs):
            on_done(len(outputs) - len(said))
        answers = self._ask([outputs[i] for i in said], on_done)
        scores: list[float | None] = [0.0] * len(outputs)
        place = self._labels.index(self.label)
        for i, found in zip(said, answers, strict=True):
            scores[i] = probability(found.logits, place, self.activation)
        self._counts["scored"] += len(said)
        self._counts["empty"] += len(outputs) - len(said)
        self._counts["cut"] += sum(found.cut > 0 for found in answers)
        self._counts["failed"] += sum(score is None for score in scores)
        return scores

    def _ask(self, texts: list[str], on_done: Advance | None) -> list[Classified]:
        keys = [content_key(engine=self._identity, verb="classify", text=text) for text in texts]

        def run(held: Collection[int]) -> Iterator[list[tuple[int, Classified]]]:
            return self._classifier.classify(texts, held=held)

        return answer(
            self._ledger,
            "classify",
            keys,
            run,
            encode=asdict,
            decode=lambda payload: Classified(**payload),
            fresh=self._fresh,
            on_done=on_done,
        )


def choose_label(labels: Sequence[str], wanted: str | None, what: str) -> str:
    """The label that is asked for (upper and lower case are the same); without one, the only label, or the
    one that is called toxic or toxicity.

    Raises:
        UsageError: there is no such label, or none can be chosen.
    """
    by_name = {re.sub(r"\s+", " ", label).lower(): label for label in labels}
    listed = ", ".join(labels)
    if wanted is not None:
        found = by_name.get(wanted.lower())
        if found is None:
            hint = nearest(wanted.lower(), list(by_name))
            raise UsageError(f"{what}: the model has no label {wanted!r}{hint}; its labels are {listed}")
        return found
    if len(labels) == 1:
        return labels[0]
    toxic = next((by_name[name] for name in TOXIC if name in by_name), None)
    if toxic is None:
        raise UsageError(f"{what}: which label is scored? write ?label=LABEL; the labels are {listed}")
    return toxic


def activation_for(problem: str | None, n_labels: int) -> str:
    """How logits become probabilities, as transformers trains them: by itself (sigmoid) where the config's
    ``problem_type`` is ``multi_label_classification`` or there is one label; else all labels together
    (softmax)."""
    return "sigmoid" if problem == "multi_label_classification" or n_labels == 1 else "softmax"


def probability(logits: Sequence[float] | None, place: int, activation: str) -> float | None:
    """Of the label at ``place``; None where a logit that it depends on is no number."""
    if logits is None:
        return None
    if activation == "sigmoid":
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, logits[place]))))
    largest = max(logits)
    shares = [math.exp(logit - largest) for logit in logits]
    return shares[place] / math.fsum(shares)
