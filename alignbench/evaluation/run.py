"""One task on one policy: requests out, answers back through the ledger, scored into samples."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
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
    Unanswered,
)
from alignbench.errors import AlignbenchError, WorkError
from alignbench.evaluation.samples import make_samples
from alignbench.evaluation.types import Sample, Scorer
from alignbench.ledger import Ledger, answer, content_key
from alignbench.progress import Advance
from alignbench.tasks.types import Document, Task

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
    """What is asked for one document: its prompt, once for each output that the task draws, one score a
    choice, that of the target (of a whole document where the prompt is empty), or the rewards of chosen and
    rejected.

    A sampled completion's seed comes from (``seed``, task, document, which output), so it is the same in any
    subset and for every policy; greedy decoding has seed 0, because no seed changes it.
    """
    if task.kind == "generate":
        sampling = Sampling(**{**task.sampling, "stop": tuple(task.sampling.get("stop", ()))})
        names = [
            ("sample", seed, task.name, document.doc_id, *([k] if k else [])) for k in range(task.samples)
        ]
        return [
            Generate(document.prompt, sampling, _seed(*name) if sampling.temperature > 0 else 0)
            for name in names
        ]
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
    scorers: Sequence[Scorer] = (),
    on_done: Advance | None = None,
) -> list[Sample]:
    """Ask the policy for every document, through the ledger, and score what comes back.

    Where a score function fails, or the policy has no answer (``Unanswered``), the document's values are None
    (the measurement is missing, and stderr says so); an empty, truncated or unparsed output is scored by the
    task's rule and flagged.

    Args:
        ledger: answers that it holds are not computed again; an engine on a live module bypasses it.
        seed: of sampled completions.
        fresh: compute everything again and replace what the ledger holds.
        scorers: what scores the outputs of tasks whose metrics ask for it.
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
    refused = [one for given in answers for one in given if not is_answer(one)]
    if refused:
        lost = sum(not all(map(is_answer, given)) for given in answers)
        print(
            f"alignbench: {task.name} on {policy.name}: {lost} of {len(documents)} documents got no answer "
            f"and count as missing; the first: {refused[0].reason}",
            file=sys.stderr,
        )
        answers = [given if all(map(is_answer, given)) else [] for given in answers]
    return make_samples(policy, task, documents, answers, scorers)


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
    return answer(
        ledger, verb, keys, run, encode=encode, decode=decode, keep=is_answer, fresh=fresh, on_done=on_done
    )


def is_answer(result: Any) -> bool:
    """Whether the policy answered."""
    return not isinstance(result, Unanswered)


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
