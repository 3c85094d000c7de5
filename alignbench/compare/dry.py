"""What a plan would ask and cost, said without asking: ``--dry-run``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

from alignbench import engines
from alignbench.compare.plan import Plan
from alignbench.engines.policy import Policy
from alignbench.errors import UsageError
from alignbench.evaluation import dry_run
from alignbench.evaluation.cost import PolicyCost, policy_cost
from alignbench.evaluation.server_cost import ServerCost, server_cost
from alignbench.ledger import Ledger, ledger_path

T = TypeVar("T")


def describe(plan: Plan) -> dict[str, Any]:
    """The plan as JSON: the policies, the judges, the scorers with the outputs that they score of a policy,
    each task's documents and requests and, for each policy that is run, its ``costs`` (see ``PolicyCost``);
    where they cannot be told, ``problem`` says why. Of a server there are counts only (see
    ``ServerCost``)."""
    settings = plan.settings
    counted = dry_run(plan.tasks, limit=settings.limit, seed=settings.seed)
    return {
        "policies": {policy.name: policy.spec for policy in plan.policies},
        "judges": {spec.name: spec.spec for spec in plan.judges},
        "scorers": {spec.name: spec.spec for spec in plan.scorers},
        "scored_outputs": _scored(plan),
        "recorded": list(plan.recorded),
        "reference": plan.reference,
        "win_reference": plan.win_reference,
        "out": str(plan.out),
        "tasks": [asdict(task) for task in counted],
        "costs": [_told(plan, policy) for policy in plan.policies if policy.name not in plan.recorded],
    }


def _scored(plan: Plan) -> dict[str, int]:
    """Scorer's name → how many outputs of a policy it scores."""
    wanted = [
        (
            len(plan.documents[task.name]) * task.samples,
            {n for metric in task.metrics for n in metric.scorers},
        )
        for task in plan.tasks
    ]
    return {spec.name: sum(n for n, names in wanted if spec.name in names) for spec in plan.scorers}


def _told(plan: Plan, policy: Policy) -> dict[str, Any]:
    try:
        engine = engines.engine_of(policy, plan.settings.engine)
        if engine not in engines.ON_WEIGHTS:
            return asdict(_server_cost(plan, policy))
        return asdict(_cost(plan, policy, engine)) | {"problem": None}
    except UsageError as error:
        return {"policy": policy.name, "problem": str(error)}


def _cost(plan: Plan, policy: Policy, engine: str) -> PolicyCost:
    settings = plan.settings
    tasks = [(task, plan.documents[task.name]) for task in plan.tasks]
    cost = partial(
        policy_cost, policy, tasks, seed=settings.seed, batch_tokens=settings.batch_tokens, engine=engine
    )
    return _with_ledger(plan, cost)


def _server_cost(plan: Plan, policy: Policy) -> ServerCost:
    tasks = [(task, plan.documents[task.name]) for task in plan.tasks]
    return _with_ledger(plan, partial(server_cost, policy, tasks, seed=plan.settings.seed))


def _with_ledger(plan: Plan, cost: Callable[[Ledger | None], T]) -> T:
    settings = plan.settings
    if settings.fresh or not ledger_path(settings.workspace).exists():  # opening would make one
        return cost(None)
    with Ledger.open(settings.workspace) as ledger:
        return cost(ledger)
