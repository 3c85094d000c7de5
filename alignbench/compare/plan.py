"""What a comparison will do, decided and checked before anything is paid for."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from alignbench import engines
from alignbench.compare import lineage, recordings
from alignbench.compare.at_hand import at_hand
from alignbench.compare.recordings import Recorded
from alignbench.compare.results import FILE, read_results
from alignbench.engines.choice import default_engine
from alignbench.engines.policy import Policy, parse_policy
from alignbench.errors import UsageError, nearest
from alignbench.evaluation import select_documents
from alignbench.judges.scorers import ScorerSpec, check_scorer, choose_scorers
from alignbench.judges.specs import JudgeSpec, parse_judge
from alignbench.processes import LOCK
from alignbench.tasks.documents import metrics_with_levels
from alignbench.tasks.registry import find_tasks, list_entries
from alignbench.tasks.types import Document, Task

LEVEL = 0.95
MAX_SLUG = 80


@dataclass(frozen=True)
class Settings:
    """How a comparison is run: what ``eval`` and ``compare`` share on the command line."""

    limit: int | None = None
    seed: int = 0
    mirror: Path | None = None
    engine: str | None = None
    batch_tokens: int | None = None
    tasks_dirs: tuple[Path, ...] = ()
    workspace: Path | None = None
    fresh: bool = False
    scorers: tuple[str, ...] = ()
    level: float = LEVEL
    command: tuple[str, ...] = ()
    quiet: bool = False


@dataclass(frozen=True)
class Plan:
    """Policies × tasks × judges. ``scorers``: those that the tasks ask for. ``documents``: task name → those
    that are asked; ``available``: how many there are. ``notes``: what was chosen by default, and why.
    ``recorded``: of policies that are not run, their outputs."""

    policies: tuple[Policy, ...]
    tasks: tuple[Task, ...]
    judges: tuple[JudgeSpec, ...]
    scorers: tuple[ScorerSpec, ...]
    documents: Mapping[str, Sequence[Document]]
    available: Mapping[str, int]
    out: Path
    reference: str
    win_reference: str
    settings: Settings = field(default_factory=Settings)
    notes: tuple[str, ...] = ()
    recorded: Mapping[str, Recorded] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [policy.name for policy in self.policies]

    @property
    def kind(self) -> str:
        return "compare" if len(self.policies) > 1 else "eval"


def make_plan(
    policies: Sequence[str],
    tasks: Sequence[str] | None = None,
    judges: Sequence[str] | None = None,
    out: Path | None = None,
    *,
    reference: str | None = None,
    win_reference: str | None = None,
    settings: Settings | None = None,
) -> Plan:
    """Parse, choose the defaults, load the documents. No model is loaded.

    ``tasks`` None: the default suite; ``judges`` None: the default judges, empty: none; ``out`` None:
    ``reports/A-vs-B``. One policy makes an evaluation, which has no judges.

    Raises:
        UsageError: an unknown or missing policy, task, judge or data set, a name given twice, a reference
            that is none of the policies, or a judge with nothing to judge.
    """
    settings = settings or Settings()
    parsed = tuple(parse_policy(text) for text in policies)
    _check_names([policy.name for policy in parsed], "policies")
    _check_limit(settings.limit)
    names = [policy.name for policy in parsed]
    reference = _member(reference, names, "--reference") or names[0]
    win_reference = _member(win_reference, names, "--win-reference") or reference
    for policy in parsed:
        _check_policy(policy, settings)
    read = recordings.read_recordings(parsed)
    notes: list[str] = []
    if settings.engine is None:
        engine, note = default_engine(parsed)
        settings = replace(settings, engine=engine)
        notes += [note] if note else []
    if tasks is None and read:
        tasks, note = recordings.tasks_named(read, settings.tasks_dirs)
        notes.append(note)
    if tasks is not None:
        found = find_tasks(tasks, tasks_dirs=settings.tasks_dirs, mirror=settings.mirror, seed=settings.seed)
    else:
        found, note = default_tasks(parsed, settings)
        notes.append(note)
    scorers = choose_scorers(settings.scorers, found)
    named = {part.strip() for text in tasks or () for part in text.split(",")}
    found, lines = at_hand(found, named, [scorer.name for scorer in scorers])
    notes += lines
    asked = {name for task in found for metric in task.metrics for name in metric.scorers}
    scorers = [scorer for scorer in scorers if scorer.name in asked]
    recorded = recordings.join_recordings(read, found)
    recordings.check_scores(scorers, parsed, recorded)
    for scorer in scorers:
        check_scorer(scorer)
    documents = {task.name: select_documents(task, settings.limit, settings.seed) for task in found}
    for task in found:
        if not documents[task.name]:
            raise UsageError(f"task {task.name} has no documents; check its data in {task.path}")
    found = [replace(task, metrics=metrics_with_levels(task, documents[task.name])) for task in found]
    for name, each in recorded.items():
        notes += recordings.notes(name, each, documents, found)
    specs: list[JudgeSpec] = []
    if len(parsed) > 1:
        specs, judge_notes = _judges(judges, parsed, found)
        notes += judge_notes
    return Plan(
        policies=parsed,
        tasks=tuple(found),
        judges=tuple(specs),
        scorers=tuple(scorers),
        documents=documents,
        available={task.name: len(task.load()) for task in found},
        out=out if out is not None else Path("reports") / slug(names),
        reference=reference,
        win_reference=win_reference,
        settings=settings,
        notes=tuple(notes),
        recorded=recorded,
    )


def _check_names(names: Sequence[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two {what} are called {name!r}; give one another name: NAME=SPEC")
    if not names:
        raise UsageError(f"no {what} were named; see --help")


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: write a number of documents, at least 1")


def _member(name: str | None, names: Sequence[str], option: str) -> str | None:
    if name is not None and name not in names:
        raise UsageError(
            f"{option} {name!r} is none of the policies{nearest(name, list(names))}: {', '.join(names)}"
        )
    return name


def _check_policy(policy: Policy, settings: Settings) -> None:
    """Find the weights of a policy without loading them, so that a wrong name fails before work begins."""
    if policy.kind == engines.RECORDED:
        return  # its file is read, and refused, by itself
    engine = engines.engine_of(policy, settings.engine)
    if engine == "vllm":
        from alignbench.engines.vllm_engine.versions import require

        require(f"policy {policy.spec!r}")
    if engine in engines.ON_WEIGHTS:
        from alignbench.engines.identity import locate

        locate(policy)


# --- defaults ----------------------------------------------------------------------------------------------


def default_tasks(policies: Sequence[Policy], settings: Settings) -> tuple[list[Task], str]:
    """The pocket suite where all policies are of the pocket world, servers aside, whose world cannot be told;
    else the general tasks whose data can be found (the suite ``default`` if there is one); for reward models,
    the tasks on preferences.

    Returns the tasks and the sentence that says what was chosen and why.

    Raises:
        UsageError: no task's data can be found.
    """
    options = {"tasks_dirs": settings.tasks_dirs, "mirror": settings.mirror, "seed": settings.seed}
    rewards = all(lineage.is_reward_model(f) for p in policies if (f := lineage.local_folder(p)))
    rewards = rewards and any(lineage.local_folder(p) for p in policies)
    weights = [policy for policy in policies if policy.kind in engines.ON_WEIGHTS]
    if not rewards and weights and all(lineage.world(policy) == "pocket" for policy in weights):
        found = find_tasks(["pocket"], **options)  # type: ignore[arg-type]
        which = "every policy" if len(weights) == len(policies) else "every policy that is weights"
        return found, f"tasks: the pocket suite ({len(found)} tasks), as {which} is of the pocket world"
    entries = [e for e in list_entries(settings.tasks_dirs) if e.spec is not None and e.spec.world is None]
    kinds = ("preference",) if rewards else ("generate", "multiple_choice", "loglikelihood")
    entries = [entry for entry in entries if entry.spec is not None and entry.spec.kind in kinds]
    chosen = [entry for entry in entries if "default" in entry.suites] or entries
    kept, missing = [], []
    # all at once: each call looks through the folders
    for task in find_tasks([entry.name for entry in chosen], **options) if chosen else ():  # type: ignore[arg-type]
        try:
            task.load()
        except UsageError:
            missing.append(task.name)
        else:
            kept.append(task)
    if not kept:
        raise UsageError(
            "no --tasks were named, and the data of no general task were found "
            f"({', '.join(missing) or 'there is none'}); name a folder with --data DIR, or tasks with --tasks"
        )
    left = f"; without data: {', '.join(missing)}" if missing else ""
    return kept, f"tasks: {', '.join(task.name for task in kept)}, whose data are at hand{left}"


def _judges(
    judges: Sequence[str] | None, policies: Sequence[Policy], tasks: Sequence[Task]
) -> tuple[list[JudgeSpec], list[str]]:
    judged = [task for task in tasks if task.judged]
    if judges is None:
        return default_judges(policies, judged)
    texts = [part.strip() for text in judges for part in text.split(",") if part.strip()]
    if not texts or texts == ["none"]:
        return [], []
    specs = [parse_judge(text) for text in texts]
    _check_names([spec.name for spec in specs], "judges")
    if not judged:
        raise UsageError(
            f"--judge {','.join(texts)}: none of the tasks has open-ended outputs to judge; "
            "add one that has (prompts:FILE), or --judge none"
        )
    for spec in specs:
        if spec.kind == "gold" and not any(task.world == "pocket" for task in judged):
            raise UsageError(
                "--judge gold knows the pocket world only, and no judged task is of it; name a reward model "
                "(rm:PATH), or a task such as pocket_instructions"
            )
        if spec.policy is not None:
            _check_judge(spec.policy)
    return [_with_note(spec, policies) for spec in specs], []


def _check_judge(policy: Policy) -> None:
    from alignbench.engines.identity import locate

    files = locate(policy, f"judge rm:{policy.spec}")
    if not files.classifies and not lineage.is_reward_model(files.model):
        raise UsageError(f"judge rm:{policy.spec}: the model has no scalar head; name a reward model")


def default_judges(policies: Sequence[Policy], judged: Sequence[Task]) -> tuple[list[JudgeSpec], list[str]]:
    """Gold for judged tasks of the pocket world; the first reward model that lies beside a policy; else none.

    Returns the judges and the sentences that say what was chosen and why.
    """
    if not judged:
        return [], ["judges: none, as no task has open-ended outputs to judge"]
    specs, notes = [], []
    if any(task.world == "pocket" for task in judged):
        specs.append(parse_judge("gold"))
        notes.append("judge: gold, which knows the pocket world")
    found = [pair for policy in policies if (pair := lineage.reward_model_of(policy)) is not None]
    if found:
        folder, why = found[0]
        specs.append(_with_note(parse_judge(f"rm:{folder}"), policies))
        notes.append(f"judge: the reward model {folder}, as {why}")
        others = {str(other) for other, _ in found if other.resolve() != folder.resolve()}
        if others:
            notes.append(f"other reward models beside policies, not used: {', '.join(sorted(others))}")
    if not specs:
        notes.append("judges: none, as no policy has a reward model beside it; name one with --judge rm:PATH")
    return specs, notes


def _with_note(spec: JudgeSpec, policies: Sequence[Policy]) -> JudgeSpec:
    """Say which policies were optimised against a reward model: for them it is a proxy, not a judge."""
    folder = lineage.local_folder(spec.policy) if spec.policy else None
    if folder is None:
        return spec
    trained = [
        policy.name
        for policy in policies
        if (against := lineage.trained_against(policy)) and against.resolve() == folder.resolve()
    ]
    if not trained:
        return spec
    return replace(
        spec, note=f"{', '.join(trained)} optimised this reward: a proxy there, not a neutral judge"
    )


# --- the folder --------------------------------------------------------------------------------------------


def slug(names: Sequence[str]) -> str:
    """``a-vs-b`` as a folder's name: safe characters only, not longer than ``MAX_SLUG``."""
    safe = [re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "policy" for name in names]
    text = "-vs-".join(safe)
    if len(text) <= MAX_SLUG:
        return text
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:8]
    return f"{text[: MAX_SLUG - 9].rstrip('-.')}-{digest}"


def prepare_folder(out: Path, *, shared: bool = False) -> None:
    """Make the folder, or check that it may be written over. With ``shared`` it may hold other files.

    Raises:
        UsageError: it is a file, cannot be written, or holds something else.
    """
    mend = "name another folder with --out"
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; {mend}")
    ours = lineage.read_record(out).get("kind") in ("eval", "compare") or (out / FILE).is_file()
    # a killed run may have left the lock's file and nothing else
    others = [path for path in out.iterdir() if path.name != LOCK] if out.is_dir() else []
    if not shared and others and not ours:
        raise UsageError(f"--out {out} holds other files and no {FILE}; {mend}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror}); {mend}") from None


def replaced(plan: Plan) -> str | None:
    """Names of the policies whose comparison lies in the folder, where they are not this plan's."""
    try:
        held = read_results(plan.out)
    except UsageError:
        return None
    before = {(policy.name, policy.spec) for policy in held.policies}
    if before == {(policy.name, policy.spec) for policy in plan.policies}:
        return None
    return ", ".join(policy.name for policy in held.policies)
