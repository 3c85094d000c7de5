"""``alignbench train sft|rm|ppo``: one trainer, one run folder."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from alignbench.train.config import Kind

EPILOG = """\b
Examples:
  alignbench train sft model=pocket data=pocket:demonstrations --out runs/sft
  alignbench train rm model=runs/sft data=rankings.jsonl --out runs/rm
  alignbench train rm model=gpt2 data=Anthropic/hh-rlhf epochs=1 --out runs/rm
  alignbench train ppo --config ppo.yaml reward_model=runs/rm --out runs/ppo --resume
"""


class Trainer(click.Command):
    """A command whose help ends with every key of the trainer's config."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from alignbench.train.config import defaults_table

        with formatter.section("Keys (default)"):
            formatter.write_dl(
                [(f"{key} ({default})", meaning) for key, default, meaning in defaults_table(self._kind)],
                col_max=34,
            )
        super().format_epilog(ctx, formatter)

    @property
    def _kind(self) -> Kind:
        return self.name  # type: ignore[return-value]


@click.group(name="train", epilog=EPILOG)
def command() -> None:
    """Train a policy or a reward model; DIR is then itself the finished model.

    Settings come from a YAML file, from key=value, or both (key=value wins). `alignbench train sft --help`
    lists the keys.
    """


def _options(function: Any) -> Any:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the run's record on stdout."),
        click.option(
            "--data",
            "mirror",
            metavar="DIR",
            type=click.Path(path_type=Path),
            envvar="ALIGNBENCH_DATA",
            help="Local mirror of data sets, looked up before the hub.",
        ),
        click.option("--resume", is_flag=True, help="Go on with the run in DIR from its last checkpoint."),
        click.option(
            "--out", metavar="DIR", type=click.Path(path_type=Path), required=True, help="Where the run goes."
        ),
        click.option("--config", metavar="FILE.yaml", type=click.Path(path_type=Path), help="Settings."),
        click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1),
    ):
        function = option(function)
    return function


@command.command(cls=Trainer)
@_options
def sft(**options: Any) -> None:
    """Supervised fine-tuning on demonstrations.

    \b
    Data: {prompt, response}, {prompt, completion}, {instruction[, input], output}, {messages}.

    \b
    Example:
      alignbench train sft model=pocket data=pocket:demonstrations epochs=5 --out runs/sft
    """
    _train("sft", **options)


@command.command(cls=Trainer)
@_options
def rm(**options: Any) -> None:
    """Reward model on comparisons.

    \b
    Data: {prompt, chosen, rejected}, {chosen, rejected} dialogues (HH), or rankings
    {prompt, responses: [...], ranks: [1 = best, ties allowed]}, with an optional `labeler`.

    \b
    Example:
      alignbench train rm model=runs/sft data=rankings.jsonl --out runs/rm
    """
    _train("rm", **options)


@command.command(cls=Trainer)
@_options
def ppo(**options: Any) -> None:
    """PPO against a reward model; with pretrain_data, PPO-ptx.

    \b
    Data: {prompt}, or the prompts of any of the layouts above; pretrain_data: {text}.

    \b
    Example:
      alignbench train ppo model=runs/sft reward_model=runs/rm data=pocket:prompts \\
        pretrain_data=pocket:corpus --out runs/ppo-ptx
    """
    _train("ppo", **options)


def _train(
    kind: Kind,
    *,
    config: Path | None,
    settings: tuple[str, ...],
    out: Path,
    resume: bool,
    mirror: Path | None,
    as_json: bool,
) -> None:
    from alignbench import environment
    from alignbench.train.config import load_config

    loaded: Any = load_config(kind, config, settings)
    started = environment.now()
    options: dict[str, Any] = {"resume": resume, "mirror": mirror, "command": ["alignbench", *sys.argv[1:]]}
    if kind == "sft":
        from alignbench.train.sft import train_sft

        record = train_sft(loaded, out, **options)
    elif kind == "rm":
        from alignbench.train.reward import train_rm

        record = train_rm(loaded, out, **options)
    else:
        from alignbench.train.ppo import train_ppo

        record = train_ppo(loaded, out, **options)
    earlier = "finished earlier, nothing was done now: " if record["finished"] < started else ""
    click.echo(f"{earlier}{summary(kind, record)}; {_form(record)}; the model is in {out}", err=True)
    click.echo(f"next: {shlex.join(next_command(kind, record, out, mirror))}", err=True)
    if as_json:
        click.echo(json.dumps(record, indent=2))


def summary(kind: Kind, record: dict[str, Any]) -> str:
    """One sentence on a finished run, with n and interval of what it measured."""
    if kind == "ppo":
        return _rollouts(record)
    measured = record.get("eval")
    if not measured:
        return f"{kind} is done"
    said = "no interval"
    if kind == "rm":
        if measured["ci"]:
            said = "95 % CI {:.1f} to {:.1f} %".format(*(100 * end for end in measured["ci"]))
        pairs = f"n = {measured['n']} pairs of {measured['n_prompts']} prompts"
        return f"held-out accuracy {100 * measured['accuracy']:.1f} % ({said}, {pairs})"
    if measured["ci"]:
        said = "95 % CI {:.3f} to {:.3f}".format(*measured["ci"])
    chosen = f"step {record['selected_step']} selected by {record['selected_by']}"
    return f"held-out loss {measured['loss']:.3f} nats/token ({said}, n = {measured['n']}), {chosen}"


def _rollouts(record: dict[str, Any]) -> str:
    """What the rollouts of the first and of the last step got. ± is 1.96 standard errors."""
    first, last = record.get("first"), record["last"]
    if not first:  # a run of an older version
        return "ppo is done"

    def spread(step: dict[str, Any], name: str) -> str:
        return f"{step[name]:.2f} ± {1.96 * step[f'{name}_se']:.2f}"

    parts = [f"reward {spread(first, 'reward')} → {spread(last, 'reward')}"]
    if "gold" in first and "gold" in last:
        parts.append(f"gold {spread(first, 'gold')} → {spread(last, 'gold')}")
    parts.append(f"KL to the reference {spread(last, 'kl')} nats a response")
    if "rollout_logprob_gap" in last:
        gap, worst = last["rollout_logprob_gap"], last["rollout_logprob_gap_max"]
        parts.append(
            f"vLLM's log-probabilities {gap:.1g} nats a token from the policy's, at most {worst:.1g}"
        )
    return f"{', '.join(parts)} (first → last step, ± 95 % CI, n = {last['n']} rollouts a step)"


def _form(record: dict[str, Any]) -> str:
    return "prompts in the model's chat template" if record.get("templated") else "prompts as plain text"


def next_command(kind: Kind, record: dict[str, Any], out: Path, mirror: Path | None) -> list[str]:
    """What comes next in the story: PPO after a reward model, else a comparison with the start."""
    config = record["config"]
    if kind != "rm":
        return ["alignbench", "compare", config["model"], str(out)]
    told = [f"{key}={value}" for key, value in (("model", config["model"]), ("reward_model", out))]
    data = ["--data", str(mirror)] if mirror else []
    ppo = ["alignbench", "train", "ppo", *told, f"data={config['data']}", *data]
    return [*ppo, "--out", str(out.with_name("ppo"))]
