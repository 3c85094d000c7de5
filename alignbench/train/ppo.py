"""A PPO run: models and data in, metrics and the trained policy out. The algorithm is in ``learner``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignbench.engines.encoding import encode_texts
from alignbench.engines.hf import HFEngine
from alignbench.errors import UsageError, WorkError
from alignbench.progress import progress
from alignbench.train.config import PPOConfig
from alignbench.train.data import prompts_for, read_prompts, read_texts
from alignbench.train.learner import Gold, Learner
from alignbench.train.models import (
    arithmetic,
    fitting_length,
    load_policy,
    load_reward_model,
    load_tokenizer,
    require_room,
    stop_at_eos,
    world_of,
)
from alignbench.train.rollouts import reward_scores, share_tokenizer
from alignbench.train.run import Run, open_run, save_model


def train_ppo(
    config: PPOConfig,
    out: Path,
    *,
    resume: bool = False,
    mirror: Path | None = None,
    quiet: bool = False,
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Train ``config.model`` by PPO against ``config.reward_model`` and write the policy to ``out``: the
    averaged weights where ``ema_decay`` is set (the last ones then lie in ``out/raw``), else the last ones.

    Returns the run's record (run.json) with ``first`` and ``last``, the metrics of those steps.

    Raises:
        UsageError: a wrong model, data or folder.
        WorkError: the training diverged, or a checkpoint is broken.
    """
    with open_run(out, config, kind="ppo", resume=resume, command=command) as run:
        if not run.finished:
            _train(run, config, mirror, quiet)
        return run.record


def _train(run: Run, config: PPOConfig, mirror: Path | None, quiet: bool) -> None:
    learner, tokenizer = build_learner(config, mirror)
    try:
        _fit(run, config, learner, tokenizer, quiet)
    finally:
        learner.close()


def _fit(run: Run, config: PPOConfig, learner: Learner, tokenizer: Any, quiet: bool) -> None:
    run.require_same_rows(prompt=learner.prompts, pretraining=learner.texts)
    parents = {
        "model": config.model,
        "reward_model": config.reward_model,
        "reference": config.reference or config.model,
    }
    run.note(
        parents=parents,
        world=world_of(learner.policy),
        templated=bool(tokenizer.chat_template),
        n_prompts=len(learner.prompts),
        **({} if learner.vllm is None else {"rollouts": learner.vllm.describe()}),
    )
    start, metrics = 0, {}
    if (checkpoint := run.load_checkpoint()) is not None:
        start, state = checkpoint
        learner.restore(state["learner"])
        metrics = state["metrics"]
    label = "PPO-ptx" if learner.texts else "PPO"
    bar = progress(label, learner.steps, unit="steps", done=start, quiet=quiet)
    with bar as advance, arithmetic(config):
        for step in range(start + 1, learner.steps + 1):
            metrics = learner.step(step)
            _require_finite(metrics, step, run.out)
            run.log(step, **metrics)
            run.time(step, **learner.seconds)
            run.log_rollouts(step, learner.logged)
            if step % config.save_every == 0 or step == learner.steps:
                run.save_checkpoint(step, {"learner": learner.state(), "metrics": metrics})
            advance(1, _note(metrics))
    if learner.average is not None:
        (run.out / "raw").mkdir(exist_ok=True)
        save_model(learner.policy, tokenizer, run.out / "raw")
    written = learner.policy if learner.average is None else learner.average.module
    run.finish(written, tokenizer, first=run.first_logged(), last=metrics)


def build_learner(config: PPOConfig, mirror: Path | None = None) -> tuple[Learner, Any]:
    """Load the models and the data of a run; returns the learner and the policy's tokenizer.

    The value model starts as the reward model (appendix C.4), or as ``config.model`` with a new head where
    the reward model has another tokenizer and so cannot read the policy's tokens. With another tokenizer or
    chat template the reward model is given texts.

    Raises:
        UsageError: a model or data that cannot be read, a reward model without a reward head, or a reference
            with another tokenizer; a policy that vLLM does not sample from, where it should.
    """
    tokenizer = load_tokenizer(config.model, config.chat_template)
    rm_tokenizer = load_tokenizer(config.reward_model)
    same = share_tokenizer(tokenizer, rm_tokenizer)
    read = prompts_for(config.data, mirror, tokenizer, rm_tokenizer)
    judge = HFEngine(load_reward_model(config.reward_model, config, trained=True), rm_tokenizer)
    policy = load_policy(config.model, config)
    stop_at_eos(policy, tokenizer)
    require_room(policy, config.max_new_tokens)
    reference = load_policy(config.reference or config.model, config).requires_grad_(False)
    if config.reference and not share_tokenizer(tokenizer, load_tokenizer(config.reference)):
        raise UsageError(
            f"reference {config.reference} has another tokenizer than {config.model}; give its SFT model"
        )
    texts = read_texts(config.pretrain_data, mirror) if config.pretrain_data and config.ptx_coef else []
    learner = Learner(
        config,
        policy=policy,
        reference=reference,
        value=load_reward_model(
            config.reward_model if same else config.model, config, pad_id=tokenizer.pad_token_id
        ),
        tokenizer=tokenizer,
        score=lambda rollout: reward_scores(judge, rollout, same_tokenizer=same and not read, prompts=read),
        prompts=read_prompts(config.data, mirror, tokenizer),
        texts=encode_pretraining(tokenizer, texts, fitting_length(policy, config.max_length)),
        gold=_gold(config, world_of(policy)),
    )
    return learner, tokenizer


def encode_pretraining(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of texts, EOS behind each, cut into pieces of at most ``max_length``; a piece of one token,
    which predicts nothing, is dropped."""
    pieces = []
    for ids in encode_texts(tokenizer, texts):
        whole = [*ids, tokenizer.eos_token_id]
        pieces += [whole[at : at + max_length] for at in range(0, len(whole), max_length)]
    return [piece for piece in pieces if len(piece) > 1]


def _gold(config: PPOConfig, world: str | None) -> Gold | None:
    if not config.gold or world != "pocket":
        return None
    from alignbench.pocket import gold
    from alignbench.pocket.instructions import Instruction

    def helpfulness(prompt: str, response: str) -> float | None:
        try:
            fields = Instruction.parse(prompt).fields()
        except ValueError:  # a prompt from elsewhere, whose truth nobody knows
            return None
        return gold.rate(fields, response)["helpfulness"]

    return helpfulness


def _require_finite(metrics: Mapping[str, float], step: int, out: Path) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise WorkError(
                f"PPO diverged at step {step} ({name} is {value}); lower lr or raise kl_coef in a new run "
                f"(the last checkpoint in {out / 'checkpoints'} is from before)"
            )


def _note(metrics: Mapping[str, float]) -> str:
    gold = f", gold {metrics['gold']:.2f}" if "gold" in metrics else ""
    return f"reward {metrics['reward']:.2f}, KL {metrics['kl']:.1f}{gold}"
