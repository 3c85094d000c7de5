"""Engines: generate, score and reward for a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignbench.errors import UsageError, nearest

if TYPE_CHECKING:
    from alignbench.engines.policy import Policy
    from alignbench.engines.types import Engine

ENGINES = ("hf",)
RECORDED = "recorded"
"""The kind of policy that no engine runs: its outputs are read (``alignbench.engines.recorded``)."""


def open_engine(
    policy: Policy, *, engine: str | None = None, batch_tokens: int | None = None, fresh: bool = False
) -> Engine:
    """The engine that a policy's specification (or ``engine``) names, on the policy's weights.

    They are loaded now where the policy is new to the workspace, else when the engine is first asked. Torch
    and transformers are imported then, not with this module.

    Args:
        policy: what ``parse_policy`` made.
        engine: overrides the specification's engine.
        batch_tokens: tokens that a batch may hold, and that generation keeps; found from memory by default.
        fresh: use nothing that is remembered of the policy's files: hash and load them now.

    Raises:
        UsageError: no such engine or model, an option that the engine does not know, or a recorded policy.
    """
    require_model(policy, engine)
    if batch_tokens is not None and batch_tokens < 1:
        raise UsageError(f"--batch-tokens {batch_tokens}: write a number of tokens, at least 1")
    from alignbench.engines.lazy import open_policy

    return open_policy(policy, batch_tokens=batch_tokens, fresh=fresh)


def require_model(policy: Policy, engine: str | None = None) -> None:
    """Refuse a policy that no engine here can run; the arguments are those of ``open_engine``.

    Raises:
        UsageError: recorded outputs, or an engine that is not available.
    """
    if policy.kind == RECORDED:
        raise UsageError(f"policy {policy.spec!r}: recorded outputs have no model to run; name a model here")
    kind = engine or policy.kind
    if kind not in ENGINES:
        raise UsageError(
            f"policy {policy.spec!r}: engine {kind!r} is not available here{nearest(kind, ENGINES)}; "
            f"use {' or '.join(ENGINES)}"
        )
    if policy.kind not in ENGINES:
        raise UsageError(
            f"policy {policy.spec!r} is of kind {policy.kind!r}, which the engine {kind!r} cannot load"
        )
