"""All seeds, several at a time in processes of their own; then evidence.json and evidence.md.

OUT/evidence.json, OUT/evidence.md    the answers (to be kept)
OUT/seeds/N/                          the runs of seed N, with a report each (large; can be made again)
OUT/seeds/sittings.json               how long the recipe worked, sitting by sitting
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from alignbench import environment
from alignbench.errors import WorkError
from alignbench.processes import folder_lock, tethered
from alignbench.progress import progress
from alignbench.recipes.evidence import seed as one
from alignbench.recipes.quickstart import write_whole

JSON, PAGE = "evidence.json", "evidence.md"
SCHEMA = 1
POLL_SECONDS = 0.5
NOTE_SECONDS = 5.0
CURVE_BINS = 6
SPANS = {"gold": (0.0, 1.0)}


def evidence(
    out: Path,
    *,
    n_seeds: int,
    first_seed: int,
    jobs: int | None = None,
    scale: str = "full",
    quiet: bool = False,
    command: Sequence[str] = ("alignbench", "evidence"),
) -> dict[str, Any]:
    """Run the seeds that are not finished, ``jobs`` at a time with one thread each, and write the answers.

    Returns evidence.json's content.

    Raises:
        UsageError: ``out`` holds seeds made with other settings, or other files in their place.
        WorkError: a seed failed; what is finished is kept, and the same command goes on from there.
    """
    seeds = list(range(first_seed, first_seed + n_seeds))
    chosen = one.settings(scale)
    with folder_lock(out, "evidence"):
        world = one.world_fingerprint()
        for seed in seeds:
            one.claim(_folder(out, seed), seed, chosen, world)
        _run(out, seeds, jobs or os.cpu_count() or 1, scale, quiet)
        found = collect(out, seeds, chosen, world, command)
        from alignbench.recipes.evidence.page import markdown

        write_whole(out / JSON, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        write_whole(out / PAGE, markdown(found))
    return found


def _folder(out: Path, seed: int) -> Path:
    return out / "seeds" / str(seed)


# --- the seeds ---------------------------------------------------------------------------------------------


def _run(out: Path, seeds: Sequence[int], jobs: int, scale: str, quiet: bool) -> None:
    """A process for each unfinished seed; a seed that fails does not stop the others."""
    finished = {seed: set(one.finished_stages(_folder(out, seed))) for seed in seeds}
    waiting = [seed for seed in seeds if len(finished[seed]) < len(one.STAGES)]
    if not waiting:
        return
    failed: list[str] = []
    total = sum(one.STAGES.values()) * len(seeds)
    done = sum(one.STAGES[stage] for stages in finished.values() for stage in stages)
    bar = progress(f"{len(seeds)} seeds", total, unit="% of a seed", done=done, quiet=quiet)
    with ExitStack() as every, bar as advance, _sitting(out, jobs) as tick:
        running: dict[int, tuple[ExitStack, Any]] = {}
        while waiting or running:
            while waiting and len(running) < jobs:
                seed = waiting.pop(0)
                stack = every.enter_context(ExitStack())
                running[seed] = stack, stack.enter_context(_child(out, seed, scale))
            time.sleep(POLL_SECONDS)
            for seed, (stack, process) in list(running.items()):
                ended = process.poll() is not None  # before its stages are read
                for stage in set(one.finished_stages(_folder(out, seed))) - finished[seed]:
                    finished[seed].add(stage)
                    advance(one.STAGES[stage], note=f"seed {seed}: {stage} done")
                if ended:
                    stack.close()
                    del running[seed]
                    if process.returncode != 0:
                        failed.append(_failure(out, seed))
            tick()
    if failed:
        raise WorkError(f"{'; '.join(failed)}; run the same command again to go on")


@contextmanager
def _child(out: Path, seed: int, scale: str) -> Iterator[Any]:
    words = ["evidence", "--out", str(out), "--only-seed", str(seed), "--scale", scale]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tethered(words, log=_folder(out, seed) / "log.txt", environment=threads) as process:
        yield process


def _failure(out: Path, seed: int) -> str:
    log = _folder(out, seed) / "log.txt"
    lines = log.read_text(errors="replace").strip().splitlines()
    said = lines[-1].removeprefix("alignbench: ") if lines else "it was ended from outside"
    return f"seed {seed} failed: {said} (log: {log})"


def only_seed(out: Path, seed: int, scale: str = "full", command: Sequence[str] = ()) -> None:
    """What a child does: one seed, in this process.

    Raises:
        UsageError, WorkError: see ``seed.run_seed``.
    """
    folder = _folder(out, seed)
    with folder_lock(folder, f"evidence, seed {seed}"):
        one.run_seed(folder, seed, one.settings(scale), command)


@contextmanager
def _sitting(out: Path, jobs: int) -> Iterator[Any]:
    """Keeps in seeds/sittings.json how long this invocation has worked, so that a killed one counts too."""
    path = out / "seeds" / "sittings.json"
    sittings = _sittings(out)
    begun, noted = time.monotonic(), 0.0
    this: dict[str, Any] = {"started": environment.now(), "jobs": jobs, "seconds": 0.0}

    def tick(force: bool = False) -> None:
        nonlocal noted
        now = time.monotonic() - begun
        if force or now - noted >= NOTE_SECONDS:
            noted = now
            this["seconds"] = round(now, 1)
            write_whole(path, json.dumps([*sittings, this]) + "\n")

    try:
        yield tick
    finally:
        tick(force=True)


def _sittings(out: Path) -> list[dict[str, Any]]:
    path = out / "seeds" / "sittings.json"
    held: list[dict[str, Any]] = one.read_state(path, list) if path.exists() else []
    return held


# --- the answers -------------------------------------------------------------------------------------------


def collect(
    out: Path, seeds: Sequence[int], chosen: one.Settings, world: str, command: Sequence[str]
) -> dict[str, Any]:
    """evidence.json from the seeds' folders. What differs from run to run stands under ``cost`` alone.

    Raises:
        UsageError: a seed's results cannot be read.
        WorkError: part of a seed's comparison failed.
    """
    from alignbench.compare.results import read_results
    from alignbench.recipes.evidence.measures import seed_record, skills

    records = [seed_record(_folder(out, seed), seed) for seed in seeds]
    for record in records:
        if record["failures"]:
            raise WorkError(
                f"seed {record['seed']}: {record['failures'][0]}; mend it, remove its folder, run again"
            )
    seconds = {record["seed"]: record.pop("seconds") for record in records}
    found: dict[str, Any] = rounded(
        {
            "schema": SCHEMA,
            "recipe": "evidence",
            "command": list(command),
            "seeds": list(seeds),
            "world": world,
            "settings": chosen,
            **summarise(records, skills(read_results(_folder(out, seeds[0])))),
            "per_seed": records,
            "cost": _cost(out, seconds),
        }
    )
    return found


def summarise(records: Sequence[Mapping[str, Any]], skills: Sequence[str]) -> dict[str, Any]:
    """Answers, the arms' means, the skills' table and the curves, over seeds."""
    from alignbench.recipes.evidence.questions import answer_all, estimate_fields, span_of, values
    from alignbench.stats.seeds import over_seeds

    def over(measure: str, a: str, b: str | None = None) -> dict[str, Any]:
        null = None if b is None else 0.0
        return estimate_fields(over_seeds(values(records, measure, a, b), null, span=span_of(measure, b)))

    measures = records[0]["measures"]
    contrasts = {
        "base → sft": ("sft", "base"),
        "sft → ppo": ("ppo", "sft"),
        "sft → ppo-ptx": ("ppo-ptx", "sft"),
    }
    return {
        "questions": answer_all(records),
        "means": {name: {arm: over(name, arm) for arm in arms} for name, arms in measures.items()},
        "skills": {
            name: {label: over(name, a, b) for label, (a, b) in contrasts.items()}
            for name in [*skills, "tax"]
        },
        "curves": _curves(records),
    }


def _curves(records: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Arm → parts of the training, in order: ``steps`` and the mean over seeds of KL, reward and gold."""
    from alignbench.recipes.evidence.measures import CURVES, TRAINED, bins
    from alignbench.recipes.evidence.questions import estimate_fields
    from alignbench.stats.seeds import over_seeds

    out: dict[str, list[dict[str, Any]]] = {}
    for arm in TRAINED:
        n_steps = len(records[0]["curves"][arm]["kl"])
        n_bins = min(CURVE_BINS, n_steps)
        edges = [round(i * n_steps / n_bins) for i in range(n_bins + 1)]
        parts = {name: [bins(r["curves"][arm][name], n_bins) for r in records] for name in CURVES}
        out[arm] = [
            {
                "steps": [edges[i] + 1, edges[i + 1]],
                **{
                    name: estimate_fields(over_seeds([row[i] for row in rows], None, span=SPANS.get(name)))
                    for name, rows in parts.items()
                },
            }
            for i in range(n_bins)
        ]
    return out


def _cost(out: Path, seconds: Mapping[int, one.Stages]) -> dict[str, Any]:
    sittings = _sittings(out)
    stages = {
        stage: sum(done[stage]["cpu_seconds"] for done in seconds.values()) / len(seconds)
        for stage in one.STAGES
    }
    return {
        "seconds": sum(sitting["seconds"] for sitting in sittings),
        "sittings": sittings,
        "cpu_seconds": sum(stages.values()) * len(seconds),
        "cpu_seconds_per_seed": stages,
        "written": environment.now(),
        "hardware": environment.hardware(),
        "versions": environment.versions(),
    }


def rounded(value: Any) -> Any:
    """Numbers to six digits: more say nothing, and a tracked file should not differ in rounding."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {str(key): rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value
