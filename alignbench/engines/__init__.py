"""Engines: generate, score and reward for a policy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alignbench.engines.policy import require_options
from alignbench.errors import UsageError, nearest

if TYPE_CHECKING:
    from alignbench.engines.policy import Policy
    from alignbench.engines.types import Engine

ENGINES = {
    "hf": "alignbench.engines.lazy:open_policy",
    "vllm": "alignbench.engines.vllm_engine.engine:open_policy",
    "openai": "alignbench.engines.servers.engine:open_policy",
}
"""Engine → what opens a policy with it: ``open_policy(policy, *, batch_tokens, fresh)``."""
ON_WEIGHTS = ("hf", "vllm")
"""Those that load a model's files, so that either can run the other's policies."""
RECORDED = "recorded"
"""The kind of policy that no engine runs: its outputs are read (``alignbench.engines.recorded``)."""


def open_engine(
    policy: Policy, *, engine: str | None = None, batch_tokens: int | None = None, fresh: bool = False
) -> Engine:
    """The engine that a policy's specification (or ``engine``) names, on the policy's weights or server.

    Weights are loaded now where the policy is new to the workspace, else when the engine is first asked. What
    an engine needs is imported then, not with this module.

    Args:
        policy: what ``parse_policy`` made.
        engine: overrides the specification's engine, where both load weights.
        batch_tokens: tokens that a batch may hold, and that generation keeps; found from memory by default.
        fresh: use nothing that is remembered of the policy's files: hash and load them now.

    Raises:
        UsageError: no such engine or model, an option that the engine does not know, or a recorded policy.
    """
    kind = engine_of(policy, engine)
    if batch_tokens is not None and batch_tokens < 1:
        raise UsageError(f"--batch-tokens {batch_tokens}: write a number of tokens, at least 1")
    module, _, function = ENGINES[kind].partition(":")
    opened: Engine = getattr(import_module(module), function)(policy, batch_tokens=batch_tokens, fresh=fresh)
    return opened


def known_identity(policy: Policy, engine: str) -> dict[str, Any] | None:
    """The ``Engine.identity`` that a policy on weights has, where it can be told without loading them.

    Raises:
        UsageError: its files cannot be found.
    """
    if engine == "vllm":
        from alignbench.engines.vllm_engine.opened import identity_of

        return identity_of(policy)
    from alignbench.engines.lazy import known_identity as of_hf

    return of_hf(policy)


def engine_of(policy: Policy, engine: str | None = None) -> str:
    """The engine that runs a policy; the arguments are those of ``open_engine``.

    Raises:
        UsageError: recorded outputs, no such engine, one that cannot run what the policy names, or one that
            lacks an option of the policy's.
    """
    if policy.kind == RECORDED:
        raise UsageError(f"policy {policy.spec!r}: recorded outputs have no model to run; name a model here")
    kind = engine or policy.kind
    if kind not in ENGINES:
        raise UsageError(
            f"policy {policy.spec!r}: there is no engine {kind!r}{nearest(kind, list(ENGINES))}; "
            f"use {' or '.join(ENGINES)}"
        )
    if policy.kind not in ON_WEIGHTS:
        kind = policy.kind  # a server is its own engine, whatever runs the policies beside it
    elif kind not in ON_WEIGHTS:
        raise UsageError(
            f"policy {policy.spec!r} names weights, which the engine {kind!r} cannot load; "
            "a server is written openai:MODEL@BASE_URL"
        )
    require_options(policy, kind)
    return kind
