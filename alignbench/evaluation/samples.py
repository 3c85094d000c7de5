"""From what came back to samples: scored, flagged, with statistics of sums spread over their documents."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from alignbench.engines.policy import Policy
from alignbench.engines.types import Completion, Scored
from alignbench.errors import AlignbenchError, WorkError
from alignbench.evaluation.types import CUT, UNPARSED, Sample, Scorer
from alignbench.metrics import linearise
from alignbench.metrics.choices import chosen
from alignbench.tasks.scoring import GREATEST
from alignbench.tasks.types import Document, Task


def score_outputs(
    policy: Policy,
    task: Task,
    documents: Sequence[Document],
    outputs: Sequence[str | tuple[str | Scored, ...] | None],
    scorers: Sequence[Scorer] = (),
) -> list[Sample]:
    """Score outputs that exist already: no engine, no ledger. Where there is none (None) the sample's output
    and values are None, with the flag ``missing``: nobody recorded it, which is no fault of the policy.

    Args:
        outputs: one a document, in order: a text, or several, where the task generates, else the
            log-likelihood of each choice, or of the target.
        scorers: as for ``evaluate_policy``.

    Raises:
        WorkError: scoring fails on every document.
    """
    listed = [() if o is None else (o,) if isinstance(o, str) else o for o in outputs]
    answers = [[_recorded(o) if isinstance(o, str) else o for o in each] for each in listed]
    samples = make_samples(policy, task, documents, answers, scorers)
    return [replace(sample, n_tokens=None) for sample in samples]


def _recorded(text: str) -> Completion:
    """An output of which only the text is known."""
    return Completion(text, (), (), (), (), "eos")


def make_samples(
    policy: Policy,
    task: Task,
    documents: Sequence[Document],
    answers: Sequence[list[Any]],
    scorers: Sequence[Scorer],
) -> list[Sample]:
    """Score every document that was answered, and say on stderr where that failed.

    Args:
        answers: for each document, in order, what came back for its requests; nothing where nobody recorded
            it.

    Raises:
        WorkError: scoring fails on every document.
    """
    scores = _scores(task, documents, answers, scorers)
    values, failures = _score_all(task, documents, answers, scores)
    if failures and len(failures) == sum(map(bool, answers)):
        raise WorkError(f"scoring fails on every document ({failures[0]})")
    if failures:
        print(
            f"alignbench: {task.name} on {policy.name}: scoring failed on {len(failures)} of "
            f"{len(documents)} documents, which count as missing; the first: {failures[0]}",
            file=sys.stderr,
        )
    sums = [{name: each.get(name) for name in task.combine} for each in values]
    for name, combine in task.combine.items():
        for each, value in zip(values, _combined(policy, task, name, combine, values), strict=True):
            each[name] = value
    return [
        replace(_sample(policy, task, document, given, each, scored), sums=parts)
        for document, given, each, scored, parts in zip(documents, answers, values, scores, sums, strict=True)
    ]


def _combined(
    policy: Policy,
    task: Task,
    name: str,
    combine: Callable[[Sequence[float]], float | None],
    values: Sequence[Mapping[str, Any]],
) -> list[float | None]:
    """A statistic of sums, spread over its documents; one that fails has no value, which costs no other
    metric."""
    try:
        return spread([each.get(name) for each in values], combine)
    except AlignbenchError:
        raise
    except (Exception, SystemExit) as error:  # a task's own code
        words = " ".join(str(error).split())
        print(
            f"alignbench: {task.name} on {policy.name}: the metric {name!r} has no value, as its 'combine' "
            f"fails on the sums over documents ({type(error).__name__}: {words}); give equally many numbers "
            "for every document, and None where there is nothing to divide by",
            file=sys.stderr,
        )
        return [None] * len(values)


def spread(
    sums: Sequence[Sequence[float] | None], combine: Callable[[Sequence[float]], float | None]
) -> list[float | None]:
    """A statistic of sums as one value a document (``metrics.linearise``).

    Raises:
        OverflowError: values whose squares are no numbers; and whatever a task's own ``combine`` raises.
    """
    found = linearise(sums, combine)
    if any(value is not None and abs(value) > GREATEST for value in found):
        raise OverflowError("it gives more than can be squared")
    return found


def _scores(
    task: Task, documents: Sequence[Document], answers: Sequence[list[Any]], scorers: Sequence[Scorer]
) -> list[dict[str, list[float | None]]]:
    """For each document what each scorer that the task asks for says of its outputs. One that is no finite
    number is None: the scorer failed."""
    wanted = {name for metric in task.metrics for name in metric.scorers}
    found: list[dict[str, list[float | None]]] = [{} for _ in documents]
    places = [i for i, given in enumerate(answers) for _ in given]
    for scorer in scorers:
        if scorer.name not in wanted:
            continue
        texts = [completion.text for given in answers for completion in given]
        told = scorer.score(task, [documents[i] for i in places], texts)
        for i, score in zip(places, told, strict=True):
            sound = score is not None and math.isfinite(score)
            found[i].setdefault(scorer.name, []).append(score if sound else None)
    return found


def _score_all(
    task: Task,
    documents: Sequence[Document],
    answers: Sequence[list[Any]],
    scores: Sequence[Mapping[str, Sequence[float | None]]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Every document's values, with ``Statistics`` for the metrics that are combined."""
    missing = {metric.name: None for metric in task.metrics}
    scored: list[dict[str, Any]] = []
    failures: list[str] = []
    for document, given, told in zip(documents, answers, scores, strict=True):
        try:
            scored.append(_values(task, document, given, told) if given else dict(missing))
        except AlignbenchError:
            raise
        except (Exception, SystemExit) as error:  # a task's own code: its failure is a failed measurement
            failures.append(f"{document.doc_id}: {type(error).__name__}: {' '.join(str(error).split())}")
            scored.append(dict(missing))
    return scored, failures


def _values(
    task: Task, document: Document, given: list[Any], told: Mapping[str, Sequence[float | None]]
) -> dict[str, Any]:
    if task.kind != "generate":
        return dict(task.score(document, given))
    each = [task.score(document, completion) for completion in given]
    values = dict(each[0]) if len(each) == 1 else _means(each)
    if task.rate is not None:
        values.update(task.rate(document, [completion.text for completion in given], told))
    return values


def _means(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of every metric over a prompt's outputs, missing where one of them is; ``unparsed`` where one
    is."""
    names = dict.fromkeys(name for values in each for name in values)
    means: dict[str, Any] = {}
    for name in names:
        values = [one.get(name) for one in each]
        if name == UNPARSED:
            means[name] = float(any(values))
        else:
            known = [value for value in values if value is not None]
            means[name] = math.fsum(known) / len(known) if len(known) == len(values) else None
    return means


def _sample(
    policy: Policy,
    task: Task,
    document: Document,
    given: list[Any],
    values: Mapping[str, Any],
    scores: Mapping[str, Sequence[float | None]],
) -> Sample:
    output, n_tokens, flags = _outcome(task, document, given)
    if values.get(UNPARSED):
        flags = (*flags, UNPARSED)
    several = task.kind == "generate" and len(given) > 1
    return Sample(
        policy=policy.name,
        task=task.name,
        doc_id=document.doc_id,
        cluster=document.cluster or document.doc_id,
        prompt=document.prompt,
        output=output,
        target=document.target,
        values={metric.name: values.get(metric.name) for metric in task.metrics},
        n_tokens=n_tokens,
        flags=flags,
        outputs=tuple(completion.text for completion in given) if several else (),
        scores=scores,
    )


def _outcome(
    task: Task, document: Document, given: list[Any]
) -> tuple[str | None, int | None, tuple[str, ...]]:
    """The output to show (of several the first), the tokens of all, and flags, which one of several outputs
    suffices for. A choice's tokens are those of the likeliest one. Where a target was only scored the output
    is known if greedy decoding gives the target, else it is left empty."""
    if not given:
        return None, None, ("missing",)
    flags: tuple[str, ...] = (CUT,) if any(each.cut for each in given) else ()
    if task.kind == "generate":
        if any(completion.finish == "length" for completion in given):
            flags = (*flags, "truncated")
        if not all(completion.text.strip() for completion in given):
            flags = (*flags, "empty")
        counts = [len(completion.token_ids) or completion.n_tokens for completion in given]
        return given[0].text, None if None in counts else sum(counts), flags
    if task.kind == "loglikelihood":
        return document.target if given[0].greedy else "", given[0].n_tokens, flags
    numbers = [each.logprob if isinstance(each, Scored) else each.reward for each in given]
    best = chosen(numbers)
    return document.choices[best], given[best].n_tokens, flags
