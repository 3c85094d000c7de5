"""Step 1 of the paper: supervised fine-tuning on demonstrations (Ouyang et al. 2022, §3.5 and appendix C.1).

for each batch of (prompt, response):
    minimise −log π(response, EOS | prompt), averaged over response tokens
keep the checkpoint that a reward model likes best on held-out prompts, else the one of least held-out loss
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignbench.engines.encoding import encode_pairs
from alignbench.engines.hf import HFEngine
from alignbench.engines.types import Generate, Reward, Sampling
from alignbench.errors import UsageError
from alignbench.stats.estimate import mean_interval
from alignbench.train.config import SFTConfig
from alignbench.train.data import (
    Demonstration,
    Order,
    pad_right,
    prompts_for,
    read_demonstrations,
    split_by_prompt,
)
from alignbench.train.loop import device_of, fit, micro_batches
from alignbench.train.models import (
    add_residual_dropout,
    fitting_length,
    load_policy,
    load_reward_model,
    load_tokenizer,
    require_room,
    stop_at_eos,
    world_of,
)
from alignbench.train.objectives import IGNORE, response_lm_loss
from alignbench.train.run import Run, open_run


def train_sft(
    config: SFTConfig,
    out: Path,
    *,
    resume: bool = False,
    mirror: Path | None = None,
    quiet: bool = False,
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Fine-tune ``config.model`` on demonstrations and write the selected checkpoint to ``out``.

    Returns the run's record (run.json) with ``n_train``, ``n_eval``, ``selected_step``, ``selected_by`` and
    ``eval``: held-out loss (nats per response token) with interval, and the reward where that selects.

    Raises:
        UsageError: a wrong model, data or folder.
        WorkError: the training diverged, or a checkpoint is broken.
    """
    with open_run(out, config, kind="sft", resume=resume, command=command) as run:
        if not run.finished:
            _train(run, config, mirror, quiet)
        return run.record


def _train(run: Run, config: SFTConfig, mirror: Path | None, quiet: bool) -> None:
    tokenizer = load_tokenizer(config.model, config.chat_template)
    model = load_policy(config.model, config)
    train, held = read_split(config, tokenizer, mirror)
    run.require_same_rows(training=train, held_out=held)
    stop_at_eos(model, tokenizer)
    if config.reward_model:
        require_room(model, config.max_new_tokens)
    judge = _rewards(config, held, tokenizer, mirror) if config.reward_model else None
    parents = {"model": config.model, "reward_model": config.reward_model}
    run.note(
        parents=parents,
        world=world_of(model),
        templated=bool(tokenizer.chat_template),
        n_train=len(train),
        n_eval=len(held),
    )
    add_residual_dropout(model, config.residual_dropout)

    size = (fitting_length(model, config.max_length), config.micro_tokens)
    examples, heldout = Examples(train, tokenizer, *size), Examples(held, tokenizer, *size)
    order = Order(len(train), config.batch_size, config.seed, steps=config.steps, epochs=config.epochs)

    def backward(batch: list[int]) -> dict[str, float]:
        return {"loss": examples.backward(model, batch)}

    def evaluate() -> tuple[dict[str, Any], float]:
        metrics = heldout.loss(model)
        if judge is None:
            return metrics, -metrics["loss"]
        metrics["reward"] = judge(model)
        return metrics, metrics["reward"]["mean"]

    result = fit(
        run,
        model,
        config,
        order,
        backward,
        evaluate if held else None,
        select=bool(held),
        label="SFT",
        quiet=quiet,
    )
    selected_by = "reward" if judge else "held-out loss" if held else "last step"
    run.finish(model, tokenizer, selected_by=selected_by, **result)


def read_split(
    config: SFTConfig, tokenizer: Any, mirror: Path | None
) -> tuple[list[Demonstration], list[Demonstration]]:
    """Demonstrations to train on and those held out: ``eval_data``, else a part split off by prompt.

    Raises:
        UsageError: see ``read_demonstrations``; or a reward model is to select and nothing is held out.
    """
    train = read_demonstrations(config.data, mirror, tokenizer)
    if config.eval_data:
        held = read_demonstrations(config.eval_data, mirror, tokenizer)
    else:
        train, held = split_by_prompt(train, lambda one: one.prompt, config.eval_fraction, config.seed)
    if config.reward_model and not held:
        raise UsageError("reward_model needs held-out prompts to choose by: set eval_fraction or eval_data")
    return train, held


class Examples:
    """Demonstrations as token ids: made once, padded batch by batch."""

    def __init__(
        self, demonstrations: Sequence[Demonstration], tokenizer: Any, max_length: int, budget: int
    ) -> None:
        pairs = [(one.prompt, one.response) for one in demonstrations]
        self.encoded = encode_pairs(tokenizer, pairs, eos=True, max_length=max_length)
        self.prompts = [one.prompt for one in demonstrations]
        self.lengths = [len(ids) for ids, _ in self.encoded]
        # the first token of a text is never predicted
        self.targets = [len(ids) - max(start, 1) for ids, start in self.encoded]
        self.pad = tokenizer.pad_token_id
        self.budget = budget

    def backward(self, model: Any, batch: Sequence[int]) -> float:
        """Accumulate the gradient of the batch's mean loss per response token (nats), and return it."""
        total = max(1, sum(self.targets[i] for i in batch))
        loss_sum = 0.0
        for part in micro_batches(self.lengths, batch, self.budget):
            logits, labels = self.forward(model, part)
            loss = response_lm_loss(logits, labels) * (sum(self.targets[i] for i in part) / total)
            loss.backward()  # type: ignore[no-untyped-call]
            loss_sum += float(loss.detach())
        return loss_sum

    def forward(self, model: Any, part: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Logits ``(B, K, V)`` and labels ``(B, K)`` of the last K positions, among them every target and the
        position before it; labels of prompts and padding are ``IGNORE``."""
        device = device_of(model)
        ids = pad_right([self.encoded[i][0] for i in part], self.pad, device)
        labels = pad_right(
            [[IGNORE] * self.encoded[i][1] + self.encoded[i][0][self.encoded[i][1] :] for i in part],
            IGNORE,
            device,
        )
        first = min(max(self.encoded[i][1], 1) for i in part) - 1
        keep = ids.shape[1] - first
        # padding is on the right and attention causal: no mask is needed
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits
        return logits, labels[:, first:]

    def loss(self, model: Any) -> dict[str, Any]:
        """Mean loss per response token over all examples (nats), with a 95 % interval clustered by prompt.

        A ratio of two sums over examples: the interval is that of its linearisation, R + (s_i − R·t_i)/t̄ for
        an example's summed loss s_i and its number of targets t_i.
        """
        sums = [0.0] * len(self.encoded)
        with torch.inference_mode():
            for part in micro_batches(self.lengths, range(len(sums)), self.budget):
                logits, labels = self.forward(model, part)
                losses = torch.nn.functional.cross_entropy(
                    logits[:, :-1].float().transpose(1, 2),
                    labels[:, 1:],
                    ignore_index=IGNORE,
                    reduction="none",
                )
                for i, value in zip(part, losses.sum(1).tolist(), strict=True):
                    sums[i] = value
        tokens = sum(self.targets)
        ratio = sum(sums) / max(1, tokens)
        scale = len(sums) / max(1, tokens)
        values = [ratio + (s - ratio * t) * scale for s, t in zip(sums, self.targets, strict=True)]
        estimate = mean_interval(values, clusters=self.prompts)
        return {"loss": ratio, "stderr": estimate.stderr, "ci": estimate.ci, "n": len(sums), "tokens": tokens}


def _rewards(config: SFTConfig, held: Sequence[Demonstration], tokenizer: Any, mirror: Path | None) -> Any:
    """A function of the policy: mean reward of its sampled answers to held-out prompts, with interval."""
    assert config.reward_model is not None
    rm_tokenizer = load_tokenizer(config.reward_model)
    judge = HFEngine(load_reward_model(config.reward_model, config, trained=True), rm_tokenizer)
    prompts = list(dict.fromkeys(one.prompt for one in held))[: config.select_prompts]
    read = prompts_for(config.eval_data or config.data, mirror, tokenizer, rm_tokenizer)
    sampling = Sampling(max_tokens=config.max_new_tokens, temperature=1.0)
    asked = [Generate(prompt, sampling, seed=config.seed * 1_000_003 + i) for i, prompt in enumerate(prompts)]

    def reward(model: Any) -> dict[str, Any]:
        answers = {i: done for part in HFEngine(model, tokenizer).generate(asked) for i, done in part}
        answered = [Reward(read.get(prompt, prompt), answers[i].text) for i, prompt in enumerate(prompts)]
        values = {i: done.reward for part in judge.reward(answered) for i, done in part}
        estimate = mean_interval([values[i] for i in range(len(prompts))])
        return {"mean": estimate.mean, "stderr": estimate.stderr, "ci": estimate.ci, "n": estimate.n}

    return reward
