"""What tasks would ask of a server: requests and characters, without asking it anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alignbench.engines.identity import read_prefix
from alignbench.engines.policy import Policy
from alignbench.engines.servers.engine import known_endpoint, known_identity, read_options
from alignbench.engines.types import Generate, Request, Score
from alignbench.evaluation.plan import CHARACTERS_PER_TOKEN, request_text
from alignbench.evaluation.run import VERBS, requests_of
from alignbench.ledger import Ledger, content_key
from alignbench.tasks.types import Document, Task

UNTOLD = "a server: what it computes with is not known here, so time and memory cannot be told"


@dataclass(frozen=True)
class ServerCost:
    """``requests`` are all, ``held`` those that the ledger answers (0 where the policy is new to the
    workspace); the rest is of those that are left. ``characters``: sent; ``input_tokens``: estimated from
    them (``CHARACTERS_PER_TOKEN``); ``output_tokens``: the most that can be generated; ``cost``: of both,
    None without prices. ``problem``: a sentence with all of it."""

    policy: str
    requests: int
    held: int
    characters: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    problem: str


def server_cost(
    policy: Policy,
    tasks: Sequence[tuple[Task, Sequence[Document]]],
    ledger: Ledger | None,
    *,
    seed: int = 0,
) -> ServerCost:
    """Count; the arguments are those of ``cost.policy_cost``.

    Raises:
        UsageError: an option that a server does not have, or a prefix that cannot be read.
    """
    options, before = read_options(policy), len(read_prefix(policy))
    identity = None if ledger is None else known_identity(policy)
    n, held, left = 0, 0, list[Request]()
    for task, documents in tasks:
        asked = [request for document in documents for request in requests_of(task, document, seed)]
        n += len(asked)
        if identity is not None and ledger is not None:
            keys = [content_key(identity=identity, request=asdict(request)) for request in asked]
            found = ledger.get(VERBS[task.kind], keys)
            held += sum(key in found for key in keys)
            asked = [request for request, key in zip(asked, keys) if key not in found]
        left += dict.fromkeys(asked)  # of equal ones only the first is sent
    characters = sum(len(request_text(request)) + before * _prefixed(request) for request in left)
    tokens_in = -(-characters // CHARACTERS_PER_TOKEN)
    tokens_out = sum(request.sampling.max_tokens for request in left if isinstance(request, Generate))
    cost = None
    if options.price_in is not None and options.price_out is not None:
        cost = (tokens_in * options.price_in + tokens_out * options.price_out) / 1e6
    priced = "" if cost is None else f", at most about {cost:.6g} at the prices given"
    problem = (
        f"{UNTOLD}; {len(left):,} requests are left to send, of {characters:,} characters "
        f"(about {tokens_in:,} tokens in, at most {tokens_out:,} out{priced})"
    )
    return ServerCost(
        policy=policy.name,
        requests=n,
        held=held,
        characters=characters,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cost=cost,
        problem=problem,
    )


def _prefixed(request: Request) -> bool:
    return not (isinstance(request, Score) and request.rolling)


def sent(task: Task, document: Document, policy: Policy, seed: int = 0) -> dict[str, Any]:
    """What a server gets for one document, JSON-able: the text of the prompt behind the prefix, and each
    request's, with the character at which its continuation ``start``s. ``endpoint`` None: the server has not
    been asked which it has (completions, else chat). No token ids: the server's tokenizer is not here.

    Raises:
        UsageError: an option that a server does not have, or a prefix that cannot be read.
    """
    prefix, endpoint = read_prefix(policy), known_endpoint(policy)
    requests = requests_of(task, document, seed)
    first = requests[0]
    rows = []
    for request in requests:
        text = prefix * _prefixed(request) + request_text(request)
        after = 0
        if not isinstance(request, Generate):
            after = len(request.continuation if isinstance(request, Score) else request.response)
        kind = type(request).__name__.lower()
        rows.append({"kind": kind, "text": text, "start": len(text) - after})
    return {
        "text": prefix + document.prompt,
        "policy": policy.spec,
        "endpoint": endpoint,
        "chat_template": policy.options.get("chat_template", "auto"),
        "prefix": prefix,
        "delimiter": document.delimiter if not isinstance(first, Generate) and document.prompt else None,
        "sampling": asdict(first.sampling) if isinstance(first, Generate) else None,
        "requests": rows,
    }
