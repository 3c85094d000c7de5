"""``[NAME=]gold`` and ``[NAME=]rm:POLICY``: how a judge is named on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from alignbench.engines.policy import Policy, parse_policy
from alignbench.engines.types import Engine
from alignbench.errors import UsageError, nearest
from alignbench.judges.types import Judge
from alignbench.ledger import Ledger

KINDS = ("gold", "rm")
NO_REWARDS = {
    "openai": "a server generates and gives no rewards",
    "recorded": "recorded outputs are no model and give no rewards",
    "vllm": "the engine vllm gives no rewards",
}
"""Kind of policy → why it is no reward model."""


@dataclass(frozen=True)
class JudgeSpec:
    """A parsed judge: display ``name``, ``kind``, the ``spec`` as typed (without the name) and, for a reward
    model, where it is. ``note``: what a reader must know (that a policy was trained against it)."""

    name: str
    kind: str
    spec: str
    policy: Policy | None = None
    note: str = ""


def parse_judge(text: str) -> JudgeSpec:
    """Parse one judge. A reward model takes its folder's name unless ``NAME=`` gives another.

    Raises:
        UsageError: unknown kind, a reward model without a path, or what can give no rewards.
    """
    named = re.match(r"^([\w.+ -]+)=(.+)$", text.split("?", 1)[0].split(":", 1)[0] + ":")
    name = named.group(1) if named else ""
    spec = text[len(name) + 1 :] if named else text
    kind, _, target = spec.partition(":")
    if kind == "none" or kind not in KINDS:
        known = "gold, rm:PATH, or none alone for no judge"
        raise UsageError(f"no judge {text!r}{nearest(kind, KINDS)}; the judges are {known}")
    if kind == "gold":
        if target:
            raise UsageError(f"judge {text!r}: gold takes no path; write gold")
        return JudgeSpec(name or "gold", kind, spec)
    if not target:
        raise UsageError(f"judge {text!r} names no reward model; write rm:PATH")
    policy = parse_policy(target)
    if policy.kind in NO_REWARDS:
        mend = f"rm:{policy.target}, which transformers runs" if policy.kind == "vllm" else "rm:PATH"
        raise UsageError(
            f"judge {text!r}: {NO_REWARDS[policy.kind]}; name a reward model's folder or hub id: {mend}"
        )
    return JudgeSpec(name or policy.name, kind, spec, policy)


def open_judge(
    spec: JudgeSpec, *, open_engine: Callable[[Policy], Engine], ledger: Ledger, fresh: bool = False
) -> Judge:
    """Make the judge; a reward model is loaded when it is first asked."""
    if spec.kind == "gold":
        from alignbench.judges.gold import GoldJudge

        return GoldJudge(spec.name)
    from alignbench.judges.reward_model import RewardModelJudge

    assert spec.policy is not None  # parse_judge gives every reward model one
    return RewardModelJudge(spec.policy, open_engine, ledger, name=spec.name, note=spec.note, fresh=fresh)
