"""Evaluate policies, judge their outputs, compare them, and write the folder."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignbench import engines, environment
from alignbench.compare import lineage
from alignbench.compare.assemble import Found, assemble, provenance, win_pairs, write
from alignbench.compare.plan import Plan, Settings, make_plan, prepare_folder
from alignbench.compare.results import Comparison, Failure
from alignbench.compare.tally import CountedLedger
from alignbench.engines.plan import Work
from alignbench.engines.policy import Policy
from alignbench.engines.types import Engine
from alignbench.errors import AlignbenchError, UsageError, WorkError
from alignbench.evaluation import evaluate_policy, score_outputs
from alignbench.judges.preferences import preferences
from alignbench.judges.scorers import RECORDED, Described, RecordedScores, ScorerSpec, open_scorer
from alignbench.judges.specs import JudgeSpec, open_judge
from alignbench.judges.types import Rater
from alignbench.processes import folder_lock
from alignbench.progress import progress
from alignbench.tasks.types import WITH_CHOICES


def run_comparison(
    policies: Sequence[str],
    tasks: Sequence[str] | None = None,
    judges: Sequence[str] | None = None,
    out: Path | None = None,
    *,
    reference: str | None = None,
    win_reference: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    mirror: Path | None = None,
    engine: str | None = None,
    batch_tokens: int | None = None,
    tasks_dirs: Sequence[Path] = (),
    workspace: Path | None = None,
    fresh: bool = False,
    scorers: Sequence[str] = (),
    command: Sequence[str] = (),
    quiet: bool = False,
    shared_out: bool = False,
) -> Comparison:
    """Plan and run a comparison (of one policy: an evaluation); see ``make_plan`` and ``execute``.

    Raises:
        UsageError: the plan cannot be made, or ``out`` cannot be used.
        WorkError: nothing at all could be evaluated, or the folder cannot be written.
    """
    settings = Settings(
        limit=limit,
        seed=seed,
        mirror=mirror,
        engine=engine,
        batch_tokens=batch_tokens,
        tasks_dirs=tuple(tasks_dirs),
        workspace=workspace,
        fresh=fresh,
        scorers=tuple(scorers),
        command=tuple(command),
        quiet=quiet,
    )
    plan = make_plan(
        policies,
        tasks,
        judges,
        out,
        reference=reference,
        win_reference=win_reference,
        settings=settings,
    )
    return execute(plan, shared_out=shared_out)


def execute(plan: Plan, *, shared_out: bool = False) -> Comparison:
    """Run a plan and write its folder: results.json, the samples, the preferences, run.json and the report.

    One policy is in memory at a time; what the ledger holds is not computed again. A task, policy or judge
    that fails is named in ``failures`` and does not cost the others.

    Args:
        shared_out: the folder may hold other files (a recipe's).

    Raises:
        UsageError: the folder cannot be used, another process works in it, or a policy cannot be opened as
            it was asked for.
        WorkError: nothing at all could be evaluated, or the folder cannot be written.
    """
    started = environment.now()
    found = Found()
    prepare_folder(plan.out, shared=shared_out)
    with folder_lock(plan.out, "compare" if len(plan.policies) > 1 else "eval"):
        with CountedLedger.open(plan.settings.workspace) as ledger:
            scorers = [_scorer(plan, spec, ledger) for spec in plan.scorers]
            for policy in plan.policies:
                if policy.name in plan.recorded:
                    _read(plan, policy, scorers, found)
                else:
                    _evaluate(plan, policy, ledger, scorers, found)
            if not any(found.samples.values()):
                reason = found.failures[0].error if found.failures else "no task was evaluated"
                raise WorkError(f"nothing could be evaluated: {reason}")
            for spec in plan.judges:
                _judge(plan, spec, ledger, found)
            found.scorers = [
                lineage.scorer_card(spec, _described(scorer)) for spec, scorer in zip(plan.scorers, scorers)
            ]
            del scorers
            counts = ledger.counts()
        comparison = assemble(plan, found, provenance(plan, started, counts))
        write(plan, found, comparison)
    return comparison


def _scorer(plan: Plan, spec: ScorerSpec, ledger: CountedLedger) -> Described:
    return open_scorer(
        spec,
        open_engine=lambda policy: _open_judge(plan, policy),
        ledger=ledger,
        fresh=plan.settings.fresh,
    )


def _described(scorer: Described) -> dict[str, Any]:
    """What a scorer says of itself; one that could not be opened costs its metrics, not the run."""
    try:
        return scorer.describe()
    except Exception as error:
        return {"note": f"did not work ({_words(error)})"}


def _evaluate(
    plan: Plan, policy: Policy, ledger: CountedLedger, scorers: Sequence[Described], found: Found
) -> None:
    """All tasks on one policy, which is loaded for it and let go of afterwards."""
    settings = plan.settings
    by_task = found.samples.setdefault(policy.name, {})
    try:
        engine = _open(plan, policy)
    except UsageError:
        raise
    except Exception as error:
        found.failures.append(Failure(policy.name, None, _words(error)))
        return
    found.identities[policy.name] = dict(engine.identity)
    found.described[policy.name] = engine.describe()
    total = sum(
        len(doc.choices) if task.kind in WITH_CHOICES else task.samples
        for task in plan.tasks
        for doc in plan.documents[task.name]
    )
    with progress(policy.name, total, unit="requests", quiet=settings.quiet) as advance:
        for task in plan.tasks:

            def on_done(n: int = 1, note: str = "", name: str = task.name) -> None:
                advance(n, note or name)

            try:
                by_task[task.name] = evaluate_policy(
                    policy,
                    engine,
                    task,
                    plan.documents[task.name],
                    ledger,
                    seed=settings.seed,
                    fresh=settings.fresh,
                    scorers=scorers,
                    on_done=on_done,
                )
            except Exception as error:
                found.failures.append(Failure(policy.name, task.name, _words(error)))
    if engine.work != Work() and not settings.quiet:
        print(f"alignbench: {policy.name}: {engine.work}", file=sys.stderr)
    del engine
    _free()


def _read(plan: Plan, policy: Policy, scorers: Sequence[Described], found: Found) -> None:
    """All tasks on a recorded policy: nothing is run, and nothing is paid for."""
    recorded = plan.recorded[policy.name]
    by_task = found.samples.setdefault(policy.name, {})
    found.identities[policy.name] = dict(recorded.recording.identity)
    for task in plan.tasks:
        documents, join = plan.documents[task.name], recorded.joins[task.name]
        outputs = [join.outputs.get(document.doc_id) for document in documents]
        own = [
            RecordedScores(spec.name, join.scores) if spec.kind == RECORDED else scorer
            for spec, scorer in zip(plan.scorers, scorers)
        ]
        try:
            scored = score_outputs(policy, task, documents, outputs, own)
            by_task[task.name] = [
                replace(sample, prompt=join.prompts.get(sample.doc_id, sample.prompt)) for sample in scored
            ]
        except Exception as error:
            found.failures.append(Failure(policy.name, task.name, _words(error)))


def _open(plan: Plan, policy: Policy) -> Engine:
    settings = plan.settings
    return engines.open_engine(
        policy, engine=settings.engine, batch_tokens=settings.batch_tokens, fresh=settings.fresh
    )


def _open_judge(plan: Plan, policy: Policy) -> Engine:
    """``--engine`` is for the policies: a server that generates cannot reward."""
    settings = plan.settings
    return engines.open_engine(policy, batch_tokens=settings.batch_tokens, fresh=settings.fresh)


def _free() -> None:
    """Give a model's memory back before the next one is loaded."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _judge(plan: Plan, spec: JudgeSpec, ledger: CountedLedger, found: Found) -> None:
    """One judge over all pairs."""
    try:
        judge = open_judge(
            spec,
            open_engine=lambda policy: _open_judge(plan, policy),
            ledger=ledger,
            fresh=plan.settings.fresh,
        )
        tasks = [task for task in plan.tasks if task.judged and judge.applies(task)]
        samples = {
            name: rows
            for name, by_task in found.samples.items()
            if (rows := [s for task in tasks for s in by_task.get(task.name, [])])
        }
        pairs = win_pairs(list(samples), plan.win_reference)
        documents = {(t.name, doc.doc_id): doc for t in tasks for doc in plan.documents[t.name]}
        each = isinstance(judge, Rater)
        total = sum(
            len(samples[name]) for name in ({n for p in pairs for n in p} if each else [a for a, _ in pairs])
        )
        with progress(f"judge {spec.name}", total, unit="judgements", quiet=plan.settings.quiet) as advance:
            judged = preferences(judge, samples, documents, pairs, advance)
        described = judge.describe()
    except UsageError:
        raise
    except Exception as error:
        found.failures.append(Failure(None, None, _words(error), judge=spec.name))
        return
    found.preferences += judged
    found.judges.append(lineage.judge_card(spec, described))
    del judge
    _free()


def _words(error: BaseException) -> str:
    """An error in one line; the type where it is not one of ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, AlignbenchError) else f"{type(error).__name__}: {text}"
