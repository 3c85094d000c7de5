"""Policies whose weights are loaded at the first request that the ledger does not hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from alignbench import environment
from alignbench.engines.identity import (
    accelerators,
    content_of,
    digest_text,
    locate,
    read_prefix,
    recall,
    remember,
)
from alignbench.engines.parallel import ParallelEngine, devices_of
from alignbench.engines.plan import Work
from alignbench.engines.policy import Policy
from alignbench.engines.types import (
    Completion,
    Engine,
    Generate,
    Reward,
    Rewarded,
    Score,
    Scored,
)
from alignbench.errors import WorkError

LIBRARIES = ("torch", "transformers", "tokenizers", "peft")
RESOLVED = ("dtype", "template")
"""The parts of an identity that only loading tells."""


def open_policy(policy: Policy, *, batch_tokens: int | None = None, fresh: bool = False) -> Engine:
    """The engine of a policy of kind ``hf``.

    A policy that is opened for the first time is loaded. What loading resolved is remembered in the workspace
    by all that it depends on, so that after that the identity needs neither the weights nor torch. With
    ``fresh`` nothing remembered is used: the files are hashed and the policy is loaded.

    Raises:
        UsageError: see ``alignbench.engines.open_engine``.
    """

    def load() -> Engine:
        devices = devices_of(policy)
        if len(devices) > 1:
            return ParallelEngine(policy, devices, batch_tokens=batch_tokens)
        from alignbench.engines.weights import load_policy

        single = policy
        if devices:  # device=cuda:all may be a single one
            single = replace(policy, options={**policy.options, "device": devices[0]})
        return load_policy(single, batch_tokens=batch_tokens)

    try:
        key, identity = _recognise(policy, fresh)
    except ValueError:  # a config that is no JSON: loading says so
        return load()
    known = None if fresh else recall("identities").get(key)
    if known is None or "described" not in known:
        engine = load()
        resolved = {part: engine.identity[part] for part in RESOLVED}
        remember("identities", key, resolved | {"described": engine.describe()})
        return engine
    identity |= {part: known[part] for part in RESOLVED}
    forget = partial(remember, "identities", key, None)
    return LazyEngine(policy, identity, load, forget, described=known["described"])


def known_identity(policy: Policy) -> dict[str, Any] | None:
    """The identity of a policy that was opened before; None where none is remembered. Nothing is loaded.

    Raises:
        UsageError: its files or its prefix cannot be found.
    """
    try:
        key, identity = _recognise(policy, fresh=False)
    except ValueError:
        return None
    known = recall("identities").get(key)
    return None if known is None else identity | {part: known[part] for part in RESOLVED}


def _recognise(policy: Policy, fresh: bool) -> tuple[str, dict[str, Any]]:
    """What the rest of a policy's identity is remembered by, and its identity as far as files tell.

    Raises:
        ValueError: its config is no JSON.
    """
    content = content_of(locate(policy), fresh=fresh)
    prefix = read_prefix(policy)
    chosen = {
        option: value for option, value in policy.options.items() if option not in ("prefix", "adapter")
    }
    depends = [content, chosen, environment.versions(LIBRARIES), accelerators()]
    key = digest_text(json.dumps(depends, sort_keys=True))
    return key, {**content, "prefix": digest_text(prefix) if prefix else None}


class LazyEngine:
    """An engine that is loaded when it is first asked. All that an engine has beside the three verbs is had
    here too, at the same price.

    Args:
        policy: whose engine, for messages.
        identity: what the loaded engine's must be.
        load: makes it.
        forget: called where it turns out to be another.
        described: what it says of itself.
        changed: what may have happened where it is another, for the message.
    """

    def __init__(
        self,
        policy: Policy,
        identity: Mapping[str, Any],
        load: Callable[[], Engine],
        forget: Callable[[], None],
        described: Mapping[str, Any],
        changed: str = "its files have changed, or it loads in another dtype here",
    ) -> None:
        self.identity = identity
        self._described, self._changed = described, changed
        self._policy, self._load, self._forget = policy, load, forget
        self._engine: Engine | None = None

    def describe(self) -> Mapping[str, Any]:
        return self._described

    @property
    def work(self) -> Work:
        """What has been computed: nothing as long as nothing was asked that is not held."""
        return self._engine.work if self._engine is not None else Work()

    def generate(
        self, requests: Sequence[Generate], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        return self._loaded().generate(requests, held=held)

    def score(
        self, requests: Sequence[Score], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Scored]]]:
        return self._loaded().score(requests, held=held)

    def reward(
        self, requests: Sequence[Reward], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Rewarded]]]:
        return self._loaded().reward(requests, held=held)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copying and the like look for: no reason to load
            raise AttributeError(name)
        return getattr(self._loaded(), name)

    def _loaded(self) -> Engine:
        if self._engine is None:
            engine = self._load()
            if dict(engine.identity) != dict(self.identity):
                self._forget()
                raise WorkError(
                    f"policy {self._policy.spec!r} is not what it was when this run began "
                    f"({self._changed}); run the same command again"
                )
            self._engine = engine
        return self._engine
