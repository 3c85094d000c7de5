"""From what was gathered to the comparison, and from the comparison to its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from alignbench import environment
from alignbench.compare import analysis, lineage, output, recordings
from alignbench.compare.alike import one_model, same_answers
from alignbench.compare.plan import Plan
from alignbench.compare.results import (
    Comparison,
    Failure,
    JudgeResult,
    ModelInputs,
    PolicyResult,
    ScorerResult,
    Training,
    write_results,
)
from alignbench.compare.verdict import compare_verdict, eval_verdict
from alignbench.engines.policy import Policy
from alignbench.errors import AlignbenchError, WorkError
from alignbench.evaluation.types import CUT, Sample
from alignbench.judges.types import Preference
from alignbench.ledger import content_key
from alignbench.tasks.documents import documents_fingerprint

ALL_PAIRS = 6
"""Up to so many policies every pair gets a win-rate; beyond, the ladder against the win reference alone."""


@dataclass
class Found:
    """What has been gathered so far."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    identities: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    described: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    preferences: list[Preference] = field(default_factory=list)
    judges: list[JudgeResult] = field(default_factory=list)
    scorers: list[ScorerResult] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Policy → hash of its identity."""
        return {name: content_key(identity=each)[:16] for name, each in self.identities.items()}


def win_pairs(names: Sequence[str], win_reference: str) -> list[tuple[str, str]]:
    """(a, b) pairs that are judged: every policy against the win reference, then, of up to ``ALL_PAIRS``
    policies, the other pairs, the later against the earlier."""
    rest = [name for name in names if name != win_reference]
    pairs = [(name, win_reference) for name in rest] if win_reference in names else []
    if len(names) <= ALL_PAIRS:
        pairs += [(b, a) for a, b in combinations(rest, 2)]
    return pairs


def assemble(plan: Plan, found: Found, provenance: dict[str, Any]) -> Comparison:
    """Compute every row and the verdict."""
    level = plan.settings.level
    table = analysis.columns(plan.tasks, found.samples)
    tasks = analysis.task_rows(table, level)
    policies = [_policy(policy, found) for policy in plan.policies]
    common: dict[str, Any] = {
        "policies": policies,
        "tasks": tasks,
        "training": _training(plan),
        "scorers": found.scorers,
        "failures": found.failures,
        "recorded": [
            row for name, each in plan.recorded.items() for row in recordings.rows(name, each, plan.documents)
        ],
        "samples_note": _samples_note(plan, found),
        "provenance": provenance,
    }
    unscored = [task.name for task in plan.tasks if not task.metrics]
    if plan.kind == "eval":
        verdict = eval_verdict(plan.names[0], tasks, found.failures, unscored)
        return Comparison(kind="eval", deltas=[], win_rates=[], tax=[], verdict=verdict, **common)
    contrasts = analysis.contrasts(table, plan.reference, level)
    deltas = analysis.deltas(contrasts, plan.reference, level)
    taxes = analysis.taxes(contrasts, deltas, plan.reference, level)
    pairs = win_pairs(plan.names, plan.win_reference)
    win_rates = analysis.win_rates(found.preferences, pairs, level)
    verdict = compare_verdict(
        plan.names,
        plan.reference,
        plan.win_reference,
        tasks,
        deltas,
        win_rates,
        taxes,
        found.failures,
        same_model=one_model(found.identities),
        same_answers=same_answers(plan.tasks, found.samples),
        judges=found.judges,
        unscored=unscored,
    )
    return Comparison(
        kind="compare",
        reference=plan.reference,
        win_reference=plan.win_reference,
        judges=found.judges,
        deltas=deltas,
        win_rates=win_rates,
        tax=taxes,
        verdict=verdict,
        **common,
    )


def _policy(policy: Policy, found: Found) -> PolicyResult:
    described = found.described.get(policy.name)
    inputs = None
    if described is not None:
        inputs = ModelInputs(
            **described,
            template_choice=policy.options.get("chat_template", "auto"),
            adapter=policy.options.get("adapter"),
            prefix=policy.options.get("prefix"),
        )
    samples = found.samples.get(policy.name, {})
    cut = {task: sum(CUT in sample.flags for sample in rows) for task, rows in samples.items()}
    return PolicyResult(
        policy.name,
        policy.spec,
        found.fingerprints.get(policy.name),
        policy.kind,
        lineage.world(policy),
        inputs,
        {task: n for task, n in cut.items() if n},
    )


def _training(plan: Plan) -> list[Training]:
    sources = [(policy.name, lineage.local_folder(policy)) for policy in plan.policies]
    sources += [(spec.name, lineage.local_folder(spec.policy)) for spec in plan.judges if spec.policy]
    curves = [lineage.training_curves(name, folder) for name, folder in sources]
    return [curve for curve in curves if curve is not None]


def _samples_note(plan: Plan, found: Found) -> str:
    n = sum(len(rows) for by_task in found.samples.values() for rows in by_task.values())
    drawn = [name for name, docs in plan.documents.items() if len(docs) < plan.available[name]]
    policies, tasks = len(plan.policies), len(plan.tasks)
    text = f"{n} samples: {policies} polic{'ies' if policies > 1 else 'y'} on {tasks} task{'s' * (tasks > 1)}"
    if drawn:
        text += f"; at most {plan.settings.limit} documents a task, drawn with seed {plan.settings.seed}"
    return text + "."


def provenance(plan: Plan, started: str, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    """How the run was made. ``counts``: answers that the ledger held, and those computed."""
    settings = plan.settings
    return {
        "command": list(settings.command),
        "started": started,
        "finished": environment.now(),
        "seed": settings.seed,
        "limit": settings.limit,
        "level": settings.level,
        "engine": settings.engine,
        "notes": list(plan.notes),
        "tasks": {
            task.name: {
                "fingerprint": task.fingerprint,
                "documents_fingerprint": documents_fingerprint(plan.documents[task.name]),
                "documents": len(plan.documents[task.name]),
                "available": plan.available[task.name],
            }
            for task in plan.tasks
        },
        "ledger": counts,
        "versions": environment.versions(),
        "hardware": environment.hardware(),
    }


def write(plan: Plan, found: Found, comparison: Comparison) -> None:
    """``results.json`` last but the report: where it lies, the rest lies too."""
    out = plan.out
    rows = [sample for by_task in found.samples.values() for tasks in by_task.values() for sample in tasks]
    metrics = list(dict.fromkeys(metric.name for task in plan.tasks for metric in task.metrics))
    output.write_samples(rows, metrics, out)
    output.write_preferences(found.preferences, out)
    drawn = {
        name: [doc.doc_id for doc in docs]
        for name, docs in plan.documents.items()
        if len(docs) < plan.available[name]
    }
    left = ("command", "quiet", "workspace", "scorers")
    settings = {k: v for k, v in asdict(plan.settings).items() if k not in left}
    settings["mirror"] = str(settings["mirror"]) if settings["mirror"] else None
    settings["tasks_dirs"] = [str(folder) for folder in settings["tasks_dirs"]]
    record = {
        "kind": plan.kind,
        **comparison.provenance,
        "config": {
            "policies": {policy.name: policy.spec for policy in plan.policies},
            "tasks": [task.name for task in plan.tasks],
            "judges": {spec.name: spec.spec for spec in plan.judges},
            "scorers": {spec.name: spec.spec for spec in plan.scorers},
            "reference": plan.reference,
            "win_reference": plan.win_reference,
            **settings,
        },
        "fingerprints": found.fingerprints,
        "documents": drawn,
        "failures": [asdict(failure) for failure in found.failures],
    }
    output.write_record(record, out)
    write_results(comparison, out)
    from alignbench.report import build

    try:
        build(out)
    except AlignbenchError:
        raise
    except Exception as error:
        raise WorkError(
            f"the results are in {out}, but the report could not be built ({type(error).__name__}: {error}); "
            f"try alignbench report {out}"
        ) from error
