"""The engine for servers: ``openai:MODEL@BASE_URL``, whatever speaks OpenAI's completions or chat.

A server has no weights that could be hashed: in the ledger it is known by its address, its model's name and
how it is asked, so that an answer is held for as long as these are the same. ``--fresh`` asks again.

What a server says of log-probabilities is taken as it is. vLLM's are the model's own, before temperature and
penalties, unless it was started with another ``--logprobs-mode``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from alignbench.engines.encoding import move_space
from alignbench.engines.identity import digest_text, read_prefix, recall, remember
from alignbench.engines.inputs import check_sampling
from alignbench.engines.lazy import LazyEngine
from alignbench.engines.plan import Work
from alignbench.engines.policy import Policy, require_options
from alignbench.engines.servers.answers import Usage, first_target, scored_of
from alignbench.engines.servers.client import Client, Failed, Malformed, Secret
from alignbench.engines.servers.pool import ask_all
from alignbench.engines.servers.probe import probe
from alignbench.engines.servers.requests import Abilities, ask_completion, ask_echo
from alignbench.engines.servers.target import Target, parse_target
from alignbench.engines.types import (
    Completion,
    Engine,
    Generate,
    Reward,
    Rewarded,
    Score,
    Scored,
    Unanswered,
)
from alignbench.errors import UsageError, WorkError

T = TypeVar("T")
CONCURRENCY = 16
TIMEOUT = 300.0
"""Seconds that a server may be silent about a request."""
PROTOCOL = 1
"""Part of every ledger key: raised whenever what is sent, or how an answer is read, changes."""
OF_ONE = (400, 413, 422)
"""HTTP statuses of a refusal that may be of one text alone."""
DOUBT = 8
"""So many refusals before any answer, and no more is sent."""
PRICES = ("price_in", "price_out")
CHANGED = "the server offers other endpoints for its model"


@dataclass
class ServerWork(Work):
    """Tokens as the server counts them: read (``total_tokens``, all of them taken to be computed) and written
    (``decoded_tokens``). ``requests``: sent, probes and repeated ones included; ``again``: repeated;
    ``uncounted``: answers whose tokens the server did not count. ``price_in`` and ``price_out``: of a
    million tokens, None where nobody said."""

    requests: int = 0
    again: int = 0
    uncounted: int = 0
    price_in: float | None = None
    price_out: float | None = None

    def add(self, usage: Usage) -> None:
        """Count one answer."""
        self.total_tokens += usage.prompt or 0
        self.computed_tokens += usage.prompt or 0
        self.decoded_tokens += usage.completion or 0
        self.uncounted += usage.prompt is None or usage.completion is None

    @property
    def cost(self) -> float | None:
        """What the counted tokens cost, in the unit of the prices; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (self.total_tokens * self.price_in + self.decoded_tokens * self.price_out) / 1e6

    def __str__(self) -> str:
        again = f" ({self.again:,} of them tries again)" if self.again else ""
        said = [f"{self.requests:,} requests{again}"]
        said.append(f"{self.total_tokens:,} tokens in, {self.decoded_tokens:,} out, as the server counts")
        if self.uncounted:
            said.append(f"{self.uncounted:,} answers came without a count")
        if self.cost is not None:
            least = "at least " if self.uncounted or self.again else ""
            prices = f"{self.price_in:g} in and {self.price_out:g} out a million"
            said.append(f"{least}{self.cost:.6g} at {prices}")
        return "; ".join(said)


@dataclass(frozen=True)
class ServerOptions:
    """A policy's options: ``template`` auto, on (chat) or off (completions); requests at once; seconds of
    silence; prices of a million tokens, None where not given."""

    template: str = "auto"
    concurrency: int = CONCURRENCY
    timeout: float = TIMEOUT
    price_in: float | None = None
    price_out: float | None = None


def open_policy(policy: Policy, *, batch_tokens: int | None = None, fresh: bool = False) -> Engine:
    """The engine of a policy of kind ``openai``.

    The server is asked what it can do. That is remembered in the workspace: a policy that was opened before
    is asked again at the first request that the ledger does not hold, and with ``fresh`` at once.

    Args:
        policy: what ``parse_policy`` made.
        batch_tokens: means nothing here: a server makes its own batches.
        fresh: use nothing that is remembered.

    Raises:
        UsageError: an option that a server does not have, a model that it does not serve, or a refused key.
        WorkError: it does not answer.
    """
    options, target, prefix = read_options(policy), parse_target(policy.target), read_prefix(policy)

    def load() -> Engine:
        client = Client(
            target.url, Secret.from_environment(), connections=options.concurrency, timeout=options.timeout
        )
        abilities, used = probe(client, target, options.template)
        remember("servers", key, abilities.to_json())
        engine = ServerEngine(target, abilities, client, prefix, options)
        for usage in used:
            engine.work.add(usage)
        return engine

    key = _key(target, options)
    known = None if fresh else _recall(key)
    if known is None:
        return load()
    forget = partial(remember, "servers", key, None)
    identity, described = identity_of(target, known, prefix), describe(target, known)
    return LazyEngine(policy, identity, load, forget, described=described, changed=CHANGED)


def known_identity(policy: Policy) -> dict[str, Any] | None:
    """The identity of a policy that was opened before; None where none is remembered. Nothing is asked.

    Raises:
        UsageError: a bad option, or a prefix that cannot be read.
    """
    options, target = read_options(policy), parse_target(policy.target)
    known = _recall(_key(target, options))
    return None if known is None else identity_of(target, known, read_prefix(policy))


def known_endpoint(policy: Policy) -> str | None:
    """``completions`` or ``chat``, as far as it can be told without asking; raises as ``known_identity``."""
    options = read_options(policy)
    if options.template != "auto":
        return "chat" if options.template == "on" else "completions"
    known = _recall(_key(parse_target(policy.target), options))
    return None if known is None else known.endpoint


def read_options(policy: Policy) -> ServerOptions:
    """Check a policy's options.

    Raises:
        UsageError: one that a server does not have, or a value that is none.
    """
    what = f"policy {policy.spec!r}"
    require_options(policy, "openai")
    template = policy.options.get("chat_template", "auto")
    if template not in ("auto", "on", "off"):
        raise UsageError(f"{what}: chat_template={template!r}: write auto, on (chat) or off (completions)")
    width = _number(policy, "concurrency", 1, 256, "a whole number from 1 to 256")
    timeout = _number(policy, "timeout", 1e-3, 86400, "seconds, more than 0")
    prices = [_number(policy, name, 0, 1e12, "a price of a million tokens") for name in PRICES]
    if (prices[0] is None) != (prices[1] is None):
        raise UsageError(f"{what}: give both price_in and price_out, each of a million tokens, or neither")
    if width is not None and width != int(width):
        raise UsageError(f"{what}: concurrency={width:g}: write a whole number")
    return ServerOptions(template, int(width or CONCURRENCY), timeout or TIMEOUT, *prices)


def _number(policy: Policy, name: str, least: float, most: float, form: str) -> float | None:
    text = policy.options.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise UsageError(f"policy {policy.spec!r}: {name}={text}: write {form}")
    return value


def _key(target: Target, options: ServerOptions) -> str:
    return digest_text(json.dumps([PROTOCOL, target.url, target.model, options.template]))


def _recall(key: str) -> Abilities | None:
    found = recall("servers").get(key)
    try:
        return Abilities.from_json(found) if isinstance(found, dict) else None
    except (TypeError, KeyError):  # of another version
        return None


def identity_of(target: Target, abilities: Abilities, prefix: str) -> dict[str, Any]:
    """The parts of a ledger key. ``weights`` None: what answers behind the address cannot be told."""
    return {
        "engine": "openai",
        "protocol": PROTOCOL,
        "server": target.url,
        "model": target.model,
        "weights": None,
        "endpoint": abilities.endpoint,
        "template": "the server's" if abilities.endpoint == "chat" else None,
        "seed": "seed" in abilities.extras,
        "prefix": digest_text(prefix) if prefix else None,
    }


def describe(target: Target, abilities: Abilities) -> dict[str, Any]:
    """See ``Engine.describe``; ``server``: in a line, how it is asked and what it can do."""
    if "seed" not in abilities.extras:
        seed = "seeds refused"
    else:
        seed = "a seed repeats its text" if abilities.seeded else "a seed does not repeat its text"
    lacks = f"no prompt log-probabilities: {abilities.no_score}"
    called = [f"its answers call the model {abilities.called}"] if abilities.called else []
    said = [
        f"{target.url}, {abilities.endpoint}",
        *called,
        lacks if abilities.no_score else "prompt log-probabilities",
        seed,
        "no weight hash: known by its address",
    ]
    return {
        "dtype": None,
        "chat_template": abilities.endpoint == "chat",
        "in_front": abilities.in_front,
        "context_length": abilities.context_length,
        "server": "; ".join(said),
    }


class ServerEngine:
    """A server's model; make one with ``open_policy``. Its verbs give ``Unanswered`` for a text that the
    server refuses by itself.

    Args:
        target: which model of which server.
        abilities: what ``probe`` found.
        client: asks it.
        prefix: text before every prompt and context.
        options: of the policy.
    """

    def __init__(
        self, target: Target, abilities: Abilities, client: Client, prefix: str, options: ServerOptions
    ) -> None:
        self.identity = identity_of(target, abilities, prefix)
        self._target, self._abilities, self._client = target, abilities, client
        self._prefix, self._width = prefix, options.concurrency
        self._work = ServerWork(price_in=options.price_in, price_out=options.price_out)

    @property
    def work(self) -> ServerWork:
        """What was asked, in requests and tokens."""
        self._work.requests, self._work.again = self._client.tries, self._client.again
        return self._work

    def describe(self) -> Mapping[str, Any]:
        return describe(self._target, self._abilities)

    def generate(
        self, requests: Sequence[Generate], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        """One request a prompt. ``token_ids`` and ``logprobs`` are empty where the server returns none, and
        ``sampling_logprobs`` but for greedy decoding, as no server tells them.

        Raises:
            UsageError: sampling parameters out of range.
            WorkError: requests failed; what was answered has been yielded.
        """
        for request in requests:
            check_sampling(request, None)

        def ask(index: int) -> tuple[Completion, Usage]:
            request = requests[index]
            answer = ask_completion(
                self._client, self._target.model, self._abilities, request, self._prefix + request.prompt
            )
            return answer.completion, answer.usage

        return self._stream(len(requests), held, ask)

    def score(
        self, requests: Sequence[Score], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Scored]]]:
        """One request a text: context and continuation are echoed as one. The continuation's tokens are those
        that reach beyond the end of the context (white space there moved to the continuation).

        An empty context, a rolling document's included, is what the server puts in front of every text; where
        that is nothing the first token has no log-probability, which is an error. A text must fit.

        Raises:
            WorkError: the server gives no log-probabilities of a prompt, or requests failed; what was
                answered has been yielded.
        """
        if self._abilities.no_score:
            raise WorkError(
                f"{self._target.url} gives no log-probabilities of a prompt for {self._target.model!r}, "
                "which loglikelihood and multiple-choice tasks need: "
                f"{self._abilities.no_score}; run these tasks on another engine or server"
            )
        return self._stream(len(requests), held, lambda index: self._score(requests[index]))

    def reward(
        self, requests: Sequence[Reward], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Rewarded]]]:
        """Raises WorkError: no server of this kind has a scalar head."""
        raise WorkError(
            f"{self._target.url} generates and has no scalar head, so it gives no rewards; name a reward "
            "model's folder"
        )

    def _stream(
        self, n: int, held: Collection[int], ask: Callable[[int], tuple[T, Usage]]
    ) -> Iterator[list[tuple[int, Any]]]:
        """Answers as they come. A text that the server refuses by itself (it does not fit) is ``Unanswered``;
        where all are, or the first ``DOUBT`` before any answer, it is the way of asking that is refused."""
        indices = [index for index in range(n) if index not in held]
        refused: list[Failed] = []
        answered = 0

        def patient(index: int) -> tuple[T | Unanswered, Usage]:
            try:
                return ask(index)
            except Failed as error:
                if error.status not in OF_ONE or (not answered and len(refused) >= DOUBT):
                    raise
                refused.append(error)
                return Unanswered(str(error)), Usage(0, 0)

        for batch in ask_all(indices, patient, width=self._width, closing=self._client.closing):
            for _, (_, usage) in batch:
                self._work.add(usage)
            answered += sum(not isinstance(result, Unanswered) for _, (result, _) in batch)
            yield [(index, result) for index, (result, _) in batch]
        if refused and not answered:
            raise WorkError(f"all {len(refused):,} requests were refused; {refused[0]}")

    def _score(self, request: Score) -> tuple[Scored, Usage]:
        if not request.continuation:
            return Scored(0.0, 0, True), Usage(0, 0)
        before, after = "", request.continuation
        if not request.rolling:
            before, after = move_space(self._prefix + request.context, request.continuation)
        echo, usage = self._echo(before + after)
        start = first_target(echo.tokens, before + after, len(before))
        if start is None:  # the boundary lies within a character's tokens: count those of the context
            context, more = self._echo(before) if before else (None, Usage(0, 0))
            start = min(len(context.tokens), len(echo.tokens) - 1) if context else 0
            usage = _sum(usage, more)
        try:
            return scored_of(echo, start), usage
        except Malformed as error:
            what = "" if before else "; an empty context needs a server that puts BOS in front"
            raise Failed(f"{self._target.url} cannot score a text: {error}{what}", str(error)) from None

    def _echo(self, text: str) -> tuple[Any, Usage]:
        return ask_echo(self._client, self._target.model, text, self._abilities.echoed)


def _sum(first: Usage, second: Usage) -> Usage:
    def add(a: int | None, b: int | None) -> int | None:
        return None if a is None or b is None else a + b

    return Usage(add(first.prompt, second.prompt), add(first.completion, second.completion))
