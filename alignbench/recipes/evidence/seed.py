"""One seed of the evidence: the quickstart's stages by two teams of labelers, fresh rankings, the comparison.

OUT/seeds/N/          the quickstart's folders (sft-seed, rm, sft, ppo, ppo-ptx) and the comparison's files
OUT/seeds/N/other/    the independent team: its SFT is all arms' opponent, its reward model a second judge
OUT/seeds/N/seed.json    seed, settings and world that the folder belongs to
OUT/seeds/N/stages.json  finished stages with their seconds; what is named there is not done again
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

from alignbench.errors import UsageError
from alignbench.recipes import quickstart as story

BASE = "pocket"
OTHER_SEED = 1000
"""The independent team's seed is the arms' seed plus this."""

# stage → its share of a seed's time in per cent, as measured; it only serves the progress bar
STAGES: Mapping[str, int] = {
    "other sft-seed": 3,
    "other rankings": 3,
    "other rm": 4,
    "other sft": 1,
    "sft-seed": 1,
    "rankings": 3,
    "rm": 4,
    "sft": 1,
    "fresh rankings": 2,
    "ppo": 19,
    "ppo-ptx": 36,
    "compare": 23,
}
ARMS = ("base", "base-prompted", "sft", "ppo", "ppo-ptx")
OPPONENT = "opponent"

Settings = Mapping[str, Mapping[str, Any]]
Stages = dict[str, dict[str, float]]

FRESH: Mapping[str, Any] = {"prompts": 240, "outputs": 6}
"""Prompts, and outputs to each, on which agreement and the reward model's accuracy are measured."""

# for tests: every stage runs, none of them learns anything
MINIATURE: Settings = {
    "sft-seed": {"steps": 2, "epochs": None, "batch_size": 4},
    "rankings": {"prompts": 24},
    "rm": {"steps": 2, "epochs": None, "batch_size": 4, "eval_fraction": 0.3},
    "sft": {"steps": 2, "epochs": None, "batch_size": 4, "select_prompts": 4},
    "ppo": {"steps": 3, "batch_size": 8, "minibatches": 2},
    "ptx": {"ptx_batch_size": 2},
    "fresh": {"prompts": 6, "outputs": 3},
    "compare": {"limit": 4},
}


def settings(scale: str = "full") -> dict[str, dict[str, Any]]:
    """The quickstart's settings and the evidence's own; ``miniature`` shrinks them for tests.

    A checkpoint every few steps makes a killed PPO cheap to take up again.
    """
    full = {**story.SETTINGS, "fresh": FRESH, "compare": {"limit": None}}
    full["ppo"] = {**full["ppo"], "save_every": 10}
    small = MINIATURE if scale == "miniature" else {}
    merged = {name: {**keys, **small.get(name, {})} for name, keys in full.items()}
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(merged))
    return plain


def world_fingerprint() -> str:
    """What this version's world does: its data, labelers, gold and base model, hashed."""
    from alignbench.pocket import base_path, data, gold, labelers
    from alignbench.pocket.instructions import Instruction

    told = data.demonstrations(0)
    texts = {row["prompt"]: [row["response"], " that is not known.", ""] for row in told}
    ratings = [
        gold.rate(Instruction.parse(prompt).fields(), output)
        for prompt, outputs in texts.items()
        for output in outputs
    ]
    ranks = [data.rankings(texts, 0, team) for team in (labelers.TRAINING, labelers.HELD_OUT)]
    asked = [ask.prompt for ask in data.prompts(0)]
    corpus = data.records("corpus", 0)[:256]
    digest = hashlib.sha256(json.dumps([told, ratings, ranks, asked, corpus, data.prefix(0)]).encode())
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        digest.update((base_path() / name).read_bytes())
    return digest.hexdigest()[:16]


def claim(folder: Path, seed: int, chosen: Settings, world: str) -> None:
    """Note in ``folder`` what it holds.

    Raises:
        UsageError: it holds another seed's work, or work with other settings or in another world.
    """
    ours = {"recipe": "evidence", "seed": seed, "world": world, "settings": chosen}
    marker = folder / "seed.json"
    if marker.exists():
        held = read_state(marker, dict)
        if held != ours:
            raise UsageError(
                f"{folder} was made with other settings ({_difference(held, ours)}); "
                f"remove {folder.parent}, or name another folder with --out"
            )
        return
    if folder.is_dir() and any(path.name not in (".alignbench.lock", "log.txt") for path in folder.iterdir()):
        raise UsageError(f"{folder} holds other files; name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    story.write_whole(marker, json.dumps(ours) + "\n")


def _difference(held: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    flat = [
        {key: value for key, value in one.items() if key != "settings"}
        | {f"{s}.{k}": v for s, keys in dict(one.get("settings") or {}).items() for k, v in keys.items()}
        for one in (held, ours)
    ]
    names = [key for key in {**flat[0], **flat[1]} if flat[0].get(key) != flat[1].get(key)]
    first = names[0]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{first} was {flat[0].get(first)!r} and is {flat[1].get(first)!r} now{more}"


def finished_stages(folder: Path) -> Stages:
    """Stage → {seconds, cpu_seconds} of what is done."""
    path = folder / "stages.json"
    done: Stages = read_state(path, dict) if path.exists() else {}
    return done


def read_state(path: Path, kind: type) -> Any:
    """What the recipe noted in ``path``.

    Raises:
        UsageError: it is no JSON of that kind.
    """
    with suppress(ValueError, OSError):
        held = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(held, kind):
            return held
    # without its list of stages a seed's folder says nothing; times can be done without
    gone = path.parent if kind is dict else path
    raise UsageError(f"{path} is broken; remove {gone} and run the command again")


def run_seed(folder: Path, seed: int, chosen: Settings, command: Sequence[str] = ()) -> None:
    """Do all stages of one seed that are not done yet, one after the other, in this process.

    Raises:
        UsageError: the folder holds something else.
        WorkError: a stage failed; what was finished is kept.
    """
    claim(folder, seed, chosen, world_fingerprint())
    done = finished_stages(folder)
    for name, work in _works(folder, seed, chosen, command).items():
        if name in done:
            continue
        wall, cpu = time.monotonic(), time.process_time()
        work()
        done[name] = {
            "seconds": round(time.monotonic() - wall, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
        }
        story.write_whole(folder / "stages.json", json.dumps(done) + "\n")


def _works(folder: Path, seed: int, chosen: Settings, command: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Every stage and what it does, in the order of ``STAGES``."""
    from alignbench.pocket.labelers import HELD_OUT

    plan = story.Quickstart(folder, seed, quiet=True, settings=chosen)
    other = story.Quickstart(folder / "other", seed + OTHER_SEED, quiet=True, settings=chosen)
    works: dict[str, Callable[[], Any]] = {
        "other sft-seed": lambda: story.make_sft_seed(other, BASE),
        "other rankings": lambda: story.make_rankings(other, HELD_OUT),
        "other rm": lambda: story.make_rm(other),
        "other sft": lambda: story.make_sft(other, BASE),
        "sft-seed": lambda: story.make_sft_seed(plan, BASE),
        "rankings": lambda: story.make_rankings(plan),
        "rm": lambda: story.make_rm(plan),
        "sft": lambda: story.make_sft(plan, BASE),
        "fresh rankings": lambda: _fresh_rankings(plan),
        "ppo": lambda: _ppo(plan, "ppo"),
        "ppo-ptx": lambda: _ppo(plan, "ppo-ptx"),
        "compare": lambda: _compare(plan, command),
    }
    return {name: works[name] for name in STAGES}


def _ppo(plan: story.Quickstart, arm: str) -> None:
    from alignbench.train.config import PPOConfig
    from alignbench.train.ppo import train_ppo

    config = PPOConfig.model_validate(story.ppo_keys(plan, arm, threads=1))
    train_ppo(config, plan.out / arm, resume=True, quiet=True)


def _compare(plan: story.Quickstart, command: Sequence[str]) -> None:
    from alignbench.compare.run import run_comparison

    run_comparison(
        [*story.policies(plan, BASE), f"{OPPONENT}={plan.out / 'other' / 'sft'}"],
        ["pocket"],
        ["gold", f"rm=rm:{plan.rm}", f"rm-heldout=rm:{plan.out / 'other' / 'rm'}"],
        plan.out,
        reference="base",
        win_reference=OPPONENT,
        limit=plan.settings["compare"]["limit"],
        seed=plan.seed,
        command=command,
        quiet=True,
        shared_out=True,
    )


# --- fresh rankings: what labelers agree on, and how often the reward model is right ------------------------


def _fresh_rankings(plan: story.Quickstart) -> None:
    """Outputs of the first SFT to prompts that nobody has ranked, ranked by two labelers of either team."""
    from alignbench.pocket import data, labelers
    from alignbench.pocket.instructions import Instruction

    fresh = plan.settings["fresh"]
    used = {json.loads(line)["prompt"] for line in (plan.data / "rankings.jsonl").read_text().splitlines()}
    drawn = dict.fromkeys(ask.prompt for ask in data.prompts(plan.seed + 2 * OTHER_SEED))
    prompts = [prompt for prompt in drawn if prompt not in used][: fresh["prompts"]]
    counts = dict.fromkeys(prompts, fresh["outputs"])
    sampled = story.sample(plan.sft_seed, counts, seed=plan.seed + 2 * OTHER_SEED, quiet=True)
    rng = random.Random(f"fresh {plan.seed}")
    rows = []
    for prompt, outputs in sampled.items():
        different = list({text.strip(): text for text in outputs}.values())
        judges = [*rng.sample(labelers.TRAINING, 2), *rng.sample(labelers.HELD_OUT, 2)]
        ask = Instruction.parse(prompt)
        ranks = [labelers.rank(judge, ask, different, rng) for judge in judges]
        rows.append({"prompt": prompt, "responses": different, "ranks": ranks})
    rewards = _rewards(plan.rm, rows)
    story.write_whole(plan.data / "fresh.json", json.dumps(judge_fresh(rows, rewards)) + "\n")


def judge_fresh(
    rows: Sequence[Mapping[str, Any]], rewards: Sequence[Sequence[float]]
) -> dict[str, dict[str, Any]]:
    """Agreement and accuracy over all pairs of different outputs to one prompt.

    Args:
        rows: {responses (all different), ranks: four lists, of two training and two held-out labelers}.
        rewards: of each row's responses.

    Returns:
        ``agreement``: {training, held_out, between} and ``rm_accuracy``: {training, held_out}, each a share
        of pairs (None where there is no pair), and ``n_pairs``. ``between``: one labeler of either team.
    """
    same: dict[str, list[float]] = {"training": [], "held_out": [], "between": []}
    right: dict[str, list[float]] = {"training": [], "held_out": []}
    n_pairs = 0
    for row, values in zip(rows, rewards, strict=True):
        t1, t2, h1, h2 = row["ranks"]
        for i, j in combinations(range(len(row["responses"])), 2):
            n_pairs += 1
            first = [ranks[i] < ranks[j] for ranks in (t1, t2, h1, h2)]
            same["training"].append(first[0] == first[1])
            same["held_out"].append(first[2] == first[3])
            same["between"] += [first[t] == first[h] for t in (0, 1) for h in (2, 3)]
            # equal rewards are half right
            for team, who in (("training", (0, 1)), ("held_out", (2, 3))):
                right[team] += [
                    0.5 if values[i] == values[j] else float(first[k] == (values[i] > values[j])) for k in who
                ]
    return {"agreement": _shares(same), "rm_accuracy": _shares(right), "n_pairs": {"all": n_pairs}}


def _shares(columns: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    return {name: sum(values) / len(values) if values else None for name, values in columns.items()}


def _rewards(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    from alignbench.engines import open_engine
    from alignbench.engines.policy import parse_policy
    from alignbench.engines.types import Reward
    from alignbench.evaluation.run import ask_engine
    from alignbench.ledger import Ledger

    requests = [Reward(row["prompt"], text) for row in rows for text in row["responses"]]
    with Ledger.open() as ledger:
        found = iter(ask_engine(open_engine(parse_policy(str(folder))), "reward", requests, ledger))
    return [[next(found).reward for _ in row["responses"]] for row in rows]
