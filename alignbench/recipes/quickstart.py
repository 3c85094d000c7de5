"""The whole story on the pocket world: base → SFT → reward model → PPO and PPO-ptx → compare → report.

The stages are InstructGPT's (Ouyang et al. 2022, §3.1 and figure 2); each is an ordinary alignbench run in a
folder of its own below OUT. Run again, finished stages are kept and the first unfinished one goes on.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench.errors import UsageError, WorkError
from alignbench.processes import folder_lock, tethered
from alignbench.progress import progress

if TYPE_CHECKING:
    from alignbench.compare.results import Comparison
    from alignbench.pocket.labelers import Labeler

MAX_NEW_TOKENS = 24
ARMS = ("ppo", "ppo-ptx")

# what differs from the trainers' defaults, sized for a model of a million parameters
SFT_SEED: Mapping[str, Any] = {"epochs": 3, "batch_size": 16, "lr": 3e-4}
SFT: Mapping[str, Any] = {"epochs": 4, "batch_size": 16, "lr": 3e-4}
RM: Mapping[str, Any] = {"epochs": 1, "batch_size": 8, "lr": 5e-4, "eval_fraction": 0.15}
PPO: Mapping[str, Any] = {
    "steps": 60,
    "batch_size": 64,
    "minibatches": 2,
    "lr": 6e-4,
    "kl_coef": 0.15,
    "ema_decay": 0.9,  # the paper's 0.992 would average over twice as many updates as there are
}
PTX: Mapping[str, Any] = {"ptx_coef": 0.5, "ptx_batch_size": 12}
N_RANKED = 640  # prompts whose outputs labelers rank

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "sft-seed": SFT_SEED,
    "rankings": {"prompts": N_RANKED},
    "rm": RM,
    "sft": SFT,
    "ppo": PPO,
    "ptx": PTX,
}


@dataclass(frozen=True)
class Quickstart:
    """Where things lie below OUT, and with which settings they are made."""

    out: Path
    seed: int
    quiet: bool = False
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: SETTINGS)

    def __getattr__(self, name: str) -> Path:
        """``plan.sft_seed`` is OUT/sft-seed."""
        return self.out / name.replace("_", "-")


def quickstart(
    out: Path,
    *,
    seed: int = 0,
    from_scratch: bool = False,
    quiet: bool = False,
    command: Sequence[str] = ("alignbench", "quickstart"),
) -> dict[str, Any]:
    """Run the story in ``out``; returns {verdict, report, seconds: {stage: seconds}}.

    Raises:
        UsageError: ``out`` holds the story of another seed or base, or something else.
        WorkError: a stage failed; what was finished is kept.
    """
    plan = Quickstart(out, seed, quiet)
    _claim(out, {"recipe": "quickstart", "seed": seed, "from_scratch": from_scratch})
    seconds: dict[str, float] = {}

    def stage(name: str, text: str, work: Callable[[], Any]) -> Any:
        _say(f"{text}", quiet)
        begun = time.monotonic()
        result = work()
        seconds[name] = round(time.monotonic() - begun, 1)
        return result

    with folder_lock(out, "quickstart"):
        base = stage("base", "base model", lambda: _base(plan, from_scratch))
        stage("sft-seed", "a first SFT, to have outputs to rank", lambda: make_sft_seed(plan, base))
        stage("rankings", "labelers rank its outputs, K = 4…9 for each prompt", lambda: make_rankings(plan))
        stage("rm", "reward model from the rankings", lambda: make_rm(plan))
        stage("sft", "SFT, checkpoint chosen by the reward model", lambda: make_sft(plan, base))
        stage("ppo", "PPO and PPO-ptx, side by side", lambda: _ppo(plan))
        found = stage("compare", "comparing the five policies", lambda: _compare(plan, base, command))
    seconds["total"] = round(sum(seconds.values()), 1)
    return {"verdict": found.verdict, "report": str(out / "report.html"), "seconds": seconds}


def _claim(out: Path, story: dict[str, Any]) -> None:
    """Note in ``out`` which story it holds; refuse a folder with another one or with foreign files."""
    marker = out / "quickstart.json"
    if marker.exists():
        held = json.loads(marker.read_text())
        if held != story:
            raise UsageError(f"--out {out} holds the quickstart with {_words(held)}; name another folder")
        return
    try:
        if out.exists() and any(out.iterdir()):
            raise UsageError(f"--out {out} is not empty and holds no quickstart; name another folder")
        out.mkdir(parents=True, exist_ok=True)
        marker.write_text(json.dumps(story) + "\n")
    except OSError as error:
        raise UsageError(f"--out {out} is not writable ({error.strerror}); name another folder") from error


def _words(story: Mapping[str, Any]) -> str:
    return f"seed {story.get('seed')}" + (" from scratch" if story.get("from_scratch") else "")


def _base(plan: Quickstart, from_scratch: bool) -> str:
    """The base model's specification."""
    if not from_scratch:
        return "pocket"
    folder = plan.base
    if not (folder / "recipe.json").exists():  # written last
        from alignbench.recipes.pocket_base import pretrain

        pretrain(folder, quiet=plan.quiet)
    return str(folder)


def _train_sft(plan: Quickstart, folder: Path, keys: Mapping[str, Any]) -> None:
    from alignbench.train.config import SFTConfig
    from alignbench.train.sft import train_sft

    config = SFTConfig.model_validate({"seed": plan.seed, **keys})
    train_sft(config, folder, resume=True, quiet=plan.quiet, command=_command("sft", folder, config))


def _train_rm(plan: Quickstart, folder: Path, keys: Mapping[str, Any]) -> None:
    from alignbench.train.config import RMConfig
    from alignbench.train.reward import train_rm

    config = RMConfig.model_validate({"seed": plan.seed, **keys})
    train_rm(config, folder, resume=True, quiet=plan.quiet, command=_command("rm", folder, config))


def _command(kind: str, folder: Path, config: Any) -> list[str]:
    """The command that does the same by hand."""
    keys = [f"{key}={value}" for key, value in config.model_dump(exclude_defaults=True).items()]
    return ["alignbench", "train", kind, *keys, "--out", str(folder)]


def make_sft_seed(plan: Quickstart, base: str) -> None:
    demonstrations = _written(plan.data / "demonstrations.jsonl", lambda: _demonstrations(plan.seed))
    keys = {
        **plan.settings["sft-seed"],
        "model": base,
        "data": str(demonstrations),
        "max_new_tokens": MAX_NEW_TOKENS,
    }
    _train_sft(plan, plan.sft_seed, keys)


def _demonstrations(seed: int) -> list[dict[str, Any]]:
    from alignbench.pocket.data import demonstrations

    return demonstrations(seed)


def make_rankings(plan: Quickstart, team: Sequence[Labeler] | None = None) -> None:
    """``team`` ranks the first SFT's outputs; the training labelers by default."""
    _written(plan.data / "rankings.jsonl", lambda: _ranked_outputs(plan, team))


def _ranked_outputs(plan: Quickstart, team: Sequence[Labeler] | None) -> list[dict[str, Any]]:
    """Sample K = 4…9 outputs of the first SFT to each of ``N_RANKED`` prompts; labelers rank them."""
    from alignbench.pocket import data, labelers

    n = plan.settings["rankings"]["prompts"]
    rng = random.Random(f"k {plan.seed}")
    asks = {ask.prompt: rng.randint(4, 9) for ask in data.prompts(plan.seed + 1, 2 * n)}
    counts = dict(list(asks.items())[:n])
    outputs = sample(plan.sft_seed, counts, seed=plan.seed, quiet=plan.quiet)
    return data.rankings(outputs, plan.seed, team or labelers.TRAINING)


def sample(
    folder: Path, counts: Mapping[str, int], *, seed: int, quiet: bool = False
) -> dict[str, list[str]]:
    """``counts[prompt]`` outputs to each prompt at temperature 1, each with a seed of its own, through the
    ledger."""
    from alignbench.engines import open_engine
    from alignbench.engines.policy import parse_policy
    from alignbench.engines.types import Generate, Sampling
    from alignbench.evaluation.run import ask_engine
    from alignbench.ledger import Ledger

    engine = open_engine(parse_policy(str(folder)))
    sampling = Sampling(max_tokens=MAX_NEW_TOKENS, temperature=1.0, stop=("\n",))
    prompts = [prompt for prompt, k in counts.items() for _ in range(k)]
    requests = [Generate(prompt, sampling, seed=seed * 1_000_003 + i) for i, prompt in enumerate(prompts)]
    bar = progress("sampling", len(requests), unit="outputs", quiet=quiet)
    with bar as advance, Ledger.open() as ledger:
        completions = ask_engine(engine, "generate", requests, ledger, on_done=advance)
    outputs: dict[str, list[str]] = {prompt: [] for prompt in counts}
    for prompt, completion in zip(prompts, completions):
        outputs[prompt].append(completion.text)
    return outputs


def make_rm(plan: Quickstart) -> None:
    keys = {
        **plan.settings["rm"],
        "model": str(plan.sft_seed),
        "data": str(plan.data / "rankings.jsonl"),
        "demonstrations": str(plan.data / "demonstrations.jsonl"),
    }
    _train_rm(plan, plan.rm, keys)


def make_sft(plan: Quickstart, base: str) -> None:
    keys = {
        **plan.settings["sft"],
        "model": base,
        "data": str(plan.data / "demonstrations.jsonl"),
        "reward_model": str(plan.rm),
        "max_new_tokens": MAX_NEW_TOKENS,
    }
    _train_sft(plan, plan.sft, keys)


def _ppo(plan: Quickstart) -> None:
    """Both arms at once, each in a process of its own with its share of the cores."""
    threads = max(1, (os.cpu_count() or 1) // len(ARMS))
    # one core runs them one after the other
    groups = [ARMS] if (os.cpu_count() or 1) > 1 else [(arm,) for arm in ARMS]
    for arms in groups:
        _train_apart(plan, {arm: ppo_keys(plan, arm, threads) for arm in arms})


def ppo_keys(plan: Quickstart, arm: str, threads: int) -> dict[str, Any]:
    """What the trainer of one arm is told."""
    mix = {**plan.settings["ptx"], "pretrain_data": f"pocket:corpus?seed={plan.seed}"}
    return {
        **plan.settings["ppo"],
        "model": str(plan.sft),
        "reward_model": str(plan.rm),
        "data": f"pocket:prompts?seed={plan.seed}",
        "max_new_tokens": MAX_NEW_TOKENS,
        "seed": plan.seed,
        "threads": threads,
        **(mix if arm == "ppo-ptx" else {}),
    }


def _train_apart(plan: Quickstart, arms: Mapping[str, Mapping[str, Any]]) -> None:
    total = sum(int(keys["steps"]) for keys in arms.values())
    with _processes(plan, arms) as running, progress("PPO", total, unit="steps", quiet=plan.quiet) as advance:
        done = 0
        while any(process.poll() is None for process in running.values()):
            time.sleep(0.3)
            logged = {arm: _steps(plan.out / arm) for arm in arms}
            note = "  ".join(
                f"{arm} reward {reward:.2f}" for arm, (_, reward) in logged.items() if reward is not None
            )
            now = sum(steps for steps, _ in logged.values())
            if now > done:
                advance(now - done, note=note)
                done = now
        for arm, process in running.items():
            if process.returncode != 0:
                log = (plan.out / f"{arm}.log").read_text().strip().splitlines()
                raise WorkError(
                    f"{arm} failed: {log[-1] if log else 'no message'} (log: {plan.out / arm}.log)"
                )


@contextmanager
def _processes(plan: Quickstart, arms: Mapping[str, Mapping[str, Any]]) -> Any:
    """The trainers as child processes, which end when this one does."""
    with ExitStack() as stack:
        running = {}
        for arm, keys in arms.items():
            words = [f"{key}={value}" for key, value in keys.items()]
            command = ["train", "ppo", *words, "--out", str(plan.out / arm), "--resume"]
            threads = {"OMP_NUM_THREADS": str(keys["threads"])}
            child = tethered(command, log=plan.out / f"{arm}.log", environment=threads)
            running[arm] = stack.enter_context(child)
        yield running


def _steps(folder: Path) -> tuple[int, float | None]:
    """Steps that a run has logged, and the last reward."""
    with suppress(OSError, ValueError, IndexError):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        last = json.loads(lines[-1])
        return int(last["step"]), last.get("reward")
    return 0, None


def policies(plan: Quickstart, base: str) -> list[str]:
    """The five policies that are compared; the few-shot prefix of the second is written to a file."""
    from alignbench.pocket.data import prefix

    few_shot = plan.data / "prefix.txt"
    few_shot.write_text(prefix(plan.seed))
    return [
        f"base={base}",
        f"base-prompted={base}?prefix={few_shot}",
        *(f"{name}={plan.out / name}" for name in ("sft", *ARMS)),
    ]


def _compare(plan: Quickstart, base: str, command: Sequence[str]) -> Comparison:
    from alignbench.compare.run import run_comparison

    return run_comparison(
        policies(plan, base),
        ["pocket"],
        ["gold", f"rm:{plan.rm}"],
        plan.out,
        reference="base",
        win_reference="sft",
        seed=plan.seed,
        command=command,
        quiet=plan.quiet,
        shared_out=True,
    )


def _written(path: Path, rows: Callable[[], list[dict[str, Any]]]) -> Path:
    """Write rows as JSONL once; a file that is there is kept."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows()))
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: a reader, or a resumed run, sees the old one or the new one."""
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        print(f"· {text}", file=sys.stderr, flush=True)
