"""One task on one policy: requests out, answers back through the ledger, scored into samples."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from alignbench.engines.policy import Policy
from alignbench.engines.types import (
    Completion,
    Engine,
    Generate,
    Request,
    Reward,
    Rewarded,
    Sampling,
    Score,
    Scored,
)
from alignbench.errors import AlignbenchError, WorkError
from alignbench.evaluation.types import CUT, UNPARSED, Sample
from alignbench.ledger import Ledger, answer, content_key
from alignbench.metrics.choices import chosen
from alignbench.progress import Advance
from alignbench.tasks.types import Document, Task, Values

VERBS = {"generate": "generate", "multiple_choice": "score", "loglikelihood": "score", "preference": "reward"}
"""Task kind → the engine's verb, which is also the ledger's kind."""


def select_documents(task: Task, limit: int | None, seed: int = 0) -> list[Document]:
    """All documents, or ``limit`` of them drawn with ``seed``: the same for every policy, in file order.

    Raises:
        UsageError: the task's data cannot be loaded.
    """
    documents = task.load()
    if limit is None or limit >= len(documents):
        return documents
    kept = random.Random(_seed("documents", seed, task.name)).sample(range(len(documents)), limit)
    return [documents[index] for index in sorted(kept)]


def requests_of(task: Task, document: Document, seed: int = 0) -> list[Request]:
    """What is asked for one document: one prompt, one score a choice, that of the target (of a whole document
    where the prompt is empty), or the rewards of chosen and rejected.

    A sampled completion's seed comes from (``seed``, task, document), so it is the same in any subset and for
    every policy; greedy decoding has seed 0, because no seed changes it.
    """
    if task.kind == "generate":
        sampling = Sampling(**{**task.sampling, "stop": tuple(task.sampling.get("stop", ()))})
        own = _seed("sample", seed, task.name, document.doc_id) if sampling.temperature > 0 else 0
        return [Generate(document.prompt, sampling, own)]
    if task.kind == "loglikelihood":
        target = document.target or ""
        if not document.prompt:
            return [Score("", target, rolling=True)]
        return [Score(document.prompt, document.delimiter + target)]
    continuations = [document.delimiter + choice for choice in document.choices]
    if task.kind == "multiple_choice":
        return [Score(document.prompt, text) for text in continuations]
    return [Reward(document.prompt, text) for text in continuations]


def evaluate_policy(
    policy: Policy,
    engine: Engine,
    task: Task,
    documents: Sequence[Document],
    ledger: Ledger,
    *,
    seed: int = 0,
    fresh: bool = False,
    on_done: Advance | None = None,
) -> list[Sample]:
    """Ask the policy for every document, through the ledger, and score what comes back.

    Where a score function fails the document's values are None (the measurement is missing, and stderr says
    so); an empty, truncated or unparsed output is scored by the task's rule and flagged.

    Args:
        ledger: answers that it holds are not computed again; an engine on a live module bypasses it.
        seed: of sampled completions.
        fresh: compute everything again and replace what the ledger holds.
        on_done: told how many requests (``requests_of``) have been answered.

    Returns:
        One sample a document, in order.

    Raises:
        WorkError: the engine cannot do what the task asks for, or scoring fails on every document. The
            caller knows which policy and task it was, and says so.
    """
    asked = [requests_of(task, document, seed) for document in documents]
    flat = [request for requests in asked for request in requests]
    try:
        results = iter(ask_engine(engine, VERBS[task.kind], flat, ledger, fresh, on_done))
    except AlignbenchError as error:
        raise WorkError(str(error)) from error  # a sound command that this engine could not carry out
    answers = [[next(results) for _ in requests] for requests in asked]
    return _samples(policy, task, documents, answers)


def score_outputs(
    policy: Policy,
    task: Task,
    documents: Sequence[Document],
    outputs: Sequence[str | tuple[Scored, ...] | None],
) -> list[Sample]:
    """Score outputs that exist already: no engine, no ledger. Where there is none (None) the sample's output
    and values are None, with the flag ``missing``: nobody recorded it, which is no fault of the policy.

    Args:
        outputs: one a document, in order: a text where the task generates, else the log-likelihood of each
            choice, or of the target.

    Raises:
        WorkError: scoring fails on every document.
    """
    answers = [[] if o is None else [_recorded(o)] if isinstance(o, str) else list(o) for o in outputs]
    samples = _samples(policy, task, documents, answers)
    return [replace(sample, n_tokens=None) for sample in samples]


def _recorded(text: str) -> Completion:
    """An output of which only the text is known."""
    return Completion(text, (), (), (), (), "eos")


def _samples(
    policy: Policy, task: Task, documents: Sequence[Document], answers: Sequence[list[Any]]
) -> list[Sample]:
    """Score every document that was answered, and say on stderr where that failed."""
    scored, failures = _score_all(task, documents, answers)
    if failures and len(failures) == sum(map(bool, answers)):
        raise WorkError(f"scoring fails on every document ({failures[0]})")
    if failures:
        print(
            f"alignbench: {task.name} on {policy.name}: scoring failed on {len(failures)} of "
            f"{len(documents)} documents, which count as missing; the first: {failures[0]}",
            file=sys.stderr,
        )
    return [
        _sample(policy, task, document, answer_, values)
        for document, answer_, values in zip(documents, answers, scored, strict=True)
    ]


def _score_all(
    task: Task, documents: Sequence[Document], answers: Sequence[list[Any]]
) -> tuple[list[Values], list[str]]:
    missing: dict[str, float | None] = {metric.name: None for metric in task.metrics}
    scored: list[Values] = []
    failures: list[str] = []
    for document, given in zip(documents, answers, strict=True):
        if not given:
            scored.append(missing)
            continue
        try:
            scored.append(task.score(document, given[0] if task.kind == "generate" else given))
        except AlignbenchError:
            raise
        except Exception as error:  # a task's own code: any failure of it is a failed measurement
            failures.append(f"{document.doc_id}: {type(error).__name__}: {error}")
            scored.append(missing)
    return scored, failures


def _sample(policy: Policy, task: Task, document: Document, given: list[Any], values: Values) -> Sample:
    output, n_tokens, flags = _outcome(task, document, given)
    if values.get(UNPARSED):
        flags = (*flags, UNPARSED)
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
    )


def _outcome(
    task: Task, document: Document, given: list[Any]
) -> tuple[str | None, int | None, tuple[str, ...]]:
    """The output to show, its tokens and its flags. A choice's tokens are those of the likeliest one. Where a
    target was only scored the output is known if greedy decoding gives the target, else it is left empty."""
    if not given:
        return None, None, ("missing",)
    flags: tuple[str, ...] = (CUT,) if any(each.cut for each in given) else ()
    if task.kind == "generate":
        completion: Completion = given[0]
        if completion.finish == "length":
            flags = (*flags, "truncated")
        if not completion.text.strip():
            flags = (*flags, "empty")
        return completion.text, len(completion.token_ids) or completion.n_tokens, flags
    if task.kind == "loglikelihood":
        return document.target if given[0].greedy else "", given[0].n_tokens, flags
    numbers = [each.logprob if isinstance(each, Scored) else each.reward for each in given]
    best = chosen(numbers)
    return document.choices[best], given[best].n_tokens, flags


# --- the ledger --------------------------------------------------------------------------------------------


def ask_engine(
    engine: Engine,
    verb: str,
    requests: Sequence[Request],
    ledger: Ledger,
    fresh: bool = False,
    on_done: Advance | None = None,
) -> list[Any]:
    """The engine's answers to requests of one ``verb``, in order, through the ledger (past it where the
    engine holds a live module). The other arguments are those of ``evaluate_policy``."""
    ask = getattr(engine, verb)
    identity = dict(engine.identity)

    def run(held: Collection[int]) -> Iterator[list[tuple[int, Any]]]:
        batches: Iterator[list[tuple[int, Any]]] = ask(requests, held=held)
        return batches

    if identity.get("live"):  # its weights may change under one identity
        return _unrecorded(run, len(requests), on_done)
    keys = [content_key(identity=identity, request=asdict(request)) for request in requests]
    encode, decode = CODECS[verb]
    return answer(ledger, verb, keys, run, encode=encode, decode=decode, fresh=fresh, on_done=on_done)


def _unrecorded(
    run: Callable[[Collection[int]], Iterator[list[tuple[int, Any]]]], n: int, on_done: Advance | None
) -> list[Any]:
    results: dict[int, Any] = {}
    for batch in run(()):
        results.update(batch)
        if on_done is not None:
            on_done(len(batch))
    if len(results) < n:
        raise WorkError(f"{n - len(results)} of {n} requests got no answer")
    return [results[index] for index in range(n)]


def _encode_completion(completion: Completion) -> dict[str, Any]:
    """What is kept of a completion: not the prompt's ids, which the request gives again."""
    kept = {"text": completion.text, "finish": completion.finish, "token_ids": list(completion.token_ids)}
    counted = {} if completion.n_tokens is None else {"n_tokens": completion.n_tokens}
    return {
        **kept,
        **counted,
        "logprobs": list(completion.logprobs),
        "sampling_logprobs": list(completion.sampling_logprobs),
        "cut": completion.cut,
    }


def _decode_completion(payload: Mapping[str, Any]) -> Completion:
    return Completion(
        text=payload["text"],
        prompt_ids=(),
        token_ids=tuple(payload["token_ids"]),
        logprobs=tuple(payload["logprobs"]),
        sampling_logprobs=tuple(payload["sampling_logprobs"]),
        finish=payload["finish"],
        cut=payload.get("cut", 0),
        n_tokens=payload.get("n_tokens"),
    )


CODECS: Mapping[str, tuple[Callable[[Any], Mapping[str, Any]], Callable[[dict[str, Any]], Any]]] = {
    "generate": (_encode_completion, _decode_completion),
    "score": (asdict, lambda payload: Scored(**payload)),
    "reward": (asdict, lambda payload: Rewarded(**payload)),
}


def _seed(*parts: object) -> int:
    """63 bits of the SHA-256 of the parts: the same in every process, unlike ``hash``."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
