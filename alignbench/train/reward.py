"""Step 2 of the paper: a reward model on comparisons (Ouyang et al. 2022, §3.5, eq. 1, and appendix C.2).

    for each batch of prompts, each with its K ranked responses:
        r_k = reward of (prompt, response k, EOS), each response forwarded once
        minimise −1/C(K, 2) Σ log σ(r_better − r_worse), averaged over prompts
    shift the rewards so that demonstrations have mean 0

Responses of equal rank make no pair, so 1/C(K, 2) is one over the number of pairs that a prompt has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignbench.engines.encoding import encode_pairs
from alignbench.errors import UsageError
from alignbench.stats.estimate import mean_interval
from alignbench.train.config import RMConfig
from alignbench.train.data import (
    Comparison,
    Order,
    pad_right,
    read_comparisons,
    read_demonstrations,
    split_by_prompt,
)
from alignbench.train.loop import device_of, fit, micro_batches
from alignbench.train.models import (
    arithmetic,
    fitting_length,
    last_rewards,
    load_reward_model,
    load_tokenizer,
    world_of,
)
from alignbench.train.objectives import ranking_loss
from alignbench.train.run import Run, open_run

MOST_FOR_SHIFT = 1000
"""Responses that the shift is estimated from, at most: its standard error is then 3 % of their spread."""


def train_rm(
    config: RMConfig,
    out: Path,
    *,
    resume: bool = False,
    mirror: Path | None = None,
    quiet: bool = False,
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Train a reward model from ``config.model`` on comparisons and write it to ``out``, an
    ``AutoModelForSequenceClassification`` with one label and ``config.reward_offset`` to subtract.

    Returns the run's record (run.json) with ``n_train`` and ``n_eval`` (prompts), ``reward_offset``,
    ``offset_from`` and ``eval``: held-out accuracy over pairs with n and a 95 % interval clustered by prompt.

    Raises:
        UsageError: a wrong model, data or folder.
        WorkError: the training diverged, or a checkpoint is broken.
    """
    with open_run(out, config, kind="rm", resume=resume, command=command) as run:
        if not run.finished:
            _train(run, config, mirror, quiet)
        return run.record


def _train(run: Run, config: RMConfig, mirror: Path | None, quiet: bool) -> None:
    tokenizer = load_tokenizer(config.model, config.chat_template)
    train, held, unseen_labeler = read_split(config, tokenizer, mirror)
    zero, offset_from = _zero_point(config, train, tokenizer, mirror)
    run.require_same_rows(training=train, held_out=held, held_out_labeler=unseen_labeler, zero_point=zero)
    model = load_reward_model(config.model, config, pad_id=tokenizer.pad_token_id)
    run.note(
        parents={"model": config.model},
        world=world_of(model),
        templated=bool(tokenizer.chat_template),
        n_train=len(train),
        n_eval=len(held),
    )

    size = (fitting_length(model, config.max_length), config.micro_tokens)
    examples, heldout = Rankings(train, tokenizer, *size), Rankings(held, tokenizer, *size)
    unseen = Rankings(unseen_labeler, tokenizer, *size)
    order = Order(len(train), config.batch_size, config.seed, steps=config.steps, epochs=config.epochs)

    def backward(batch: list[int]) -> dict[str, float]:
        return examples.backward(model, batch)

    def evaluate() -> tuple[dict[str, Any], float]:
        metrics = heldout.accuracy(model)
        if unseen_labeler:
            metrics["holdout_labeler"] = unseen.accuracy(model)
        return metrics, metrics["accuracy"]

    result = fit(
        run, model, config, order, backward, evaluate if held else None, select=False, label="RM", quiet=quiet
    )
    shift = [ids for ids, _ in encode_pairs(tokenizer, zero, eos=True, max_length=size[0])]
    with arithmetic(config):
        offset = sum(rewards(model, shift, tokenizer.pad_token_id, config.micro_tokens)) / len(shift)
    model.config.reward_offset = offset
    run.finish(model, tokenizer, reward_offset=offset, offset_from=offset_from, **result)


def read_split(
    config: RMConfig, tokenizer: Any, mirror: Path | None
) -> tuple[list[Comparison], list[Comparison], list[Comparison]]:
    """Comparisons to train on, those held out (by prompt, never by pair), and the held-out labeler's on
    prompts that are not trained on.

    Raises:
        UsageError: see ``read_comparisons``; or an unknown labeler, or nothing is left to train on,
            or with a held-out labeler to evaluate on.
    """
    every = read_comparisons(config.data, mirror, tokenizer)
    labelers = {one.labeler for one in every if one.labeler is not None}
    if config.holdout_labeler is not None and config.holdout_labeler not in labelers:
        known = ", ".join(sorted(labelers)) or "none"
        raise UsageError(
            f"holdout_labeler: data {config.data!r} has no {config.holdout_labeler!r}; it has {known}"
        )
    if config.eval_data:
        train, held = every, read_comparisons(config.eval_data, mirror, tokenizer)
    else:
        train, held = split_by_prompt(every, lambda one: one.prompt, config.eval_fraction, config.seed)
    unseen: list[Comparison] = []
    if config.holdout_labeler is not None:
        train = [one for one in train if one.labeler != config.holdout_labeler]
        held = [one for one in held if one.labeler != config.holdout_labeler]
        trained_on = {one.prompt for one in train}
        unseen = [
            one for one in every if one.labeler == config.holdout_labeler and one.prompt not in trained_on
        ]
        if not held or not unseen:
            whose = repr(config.holdout_labeler) if held else "the other labelers"
            raise UsageError(
                f"holdout_labeler: no prompt of {whose} is held out to evaluate on; raise eval_fraction"
            )
    if not train:
        raise UsageError(
            f"data {config.data!r}: nothing is left to train on; lower eval_fraction or give more"
        )
    return train, held, unseen


class Rankings:
    """Comparisons as token ids: every response is encoded once."""

    def __init__(
        self, comparisons: Sequence[Comparison], tokenizer: Any, max_length: int, budget: int
    ) -> None:
        self.comparisons = comparisons
        texts = [(one.prompt, response) for one in comparisons for response in one.responses]
        encoded = encode_pairs(tokenizer, texts, eos=True, max_length=max_length)
        ids = iter([ids for ids, _ in encoded])
        self.ids = [[next(ids) for _ in one.responses] for one in comparisons]
        # tokens of a comparison, padded: what it costs in a batch
        self.sizes = [len(group) * max(map(len, group)) for group in self.ids]
        self.pad = tokenizer.pad_token_id
        self.budget = budget

    def forward(self, model: Any, part: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Rewards ``(N,)`` of responses; pairs ``(P, 2)`` of indices; the pairs' prompts ``(P,)``."""
        device = device_of(model)
        sequences = [ids for i in part for ids in self.ids[i]]
        pairs, owners, first = [], [], 0
        for owner, i in enumerate(part):
            for better, worse in self.comparisons[i].pairs:
                pairs.append((first + better, first + worse))
                owners.append(owner)
            first += len(self.ids[i])
        lengths = torch.tensor([len(ids) for ids in sequences], device=device)
        values = last_rewards(model, pad_right(sequences, self.pad, device), lengths)
        return values, torch.tensor(pairs, device=device), torch.tensor(owners, device=device)

    def backward(self, model: Any, batch: Sequence[int]) -> dict[str, float]:
        """Accumulate the gradient of the ranking loss; return ``loss`` (nats) and ``accuracy`` over pairs."""
        loss_sum, right, n_pairs = 0.0, 0.0, 0
        for part in micro_batches(self.sizes, batch, self.budget):
            values, pairs, owners = self.forward(model, part)
            loss = ranking_loss(values, pairs, owners) * (len(part) / len(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            loss_sum += float(loss.detach())
            right += sum(_right(values.detach(), pairs))
            n_pairs += len(pairs)
        return {"loss": loss_sum, "accuracy": right / n_pairs}

    def accuracy(self, model: Any) -> dict[str, Any]:
        """Part of the pairs whose better response gets the higher reward (equal rewards count half), with n
        and a 95 % interval clustered by prompt; and the loss, over pairs."""
        right: list[float] = []
        prompts: list[str] = []
        loss_sum = 0.0
        with torch.inference_mode():
            for part in micro_batches(self.sizes, range(len(self.sizes)), self.budget):
                values, pairs, owners = self.forward(model, part)
                right += _right(values, pairs)
                prompts += [self.comparisons[part[owner]].prompt for owner in owners.tolist()]
                loss_sum += float(ranking_loss(values, pairs)) * len(pairs)
        estimate = mean_interval(right, clusters=prompts, bounds=(0.0, 1.0))
        return {
            "accuracy": estimate.mean,
            "stderr": estimate.stderr,
            "ci": estimate.ci,
            "n": estimate.n,
            "n_prompts": estimate.n_clusters,
            "loss": loss_sum / len(right),
        }


def rewards(model: Any, sequences: Sequence[Sequence[int]], pad: int, budget: int) -> list[float]:
    """Raw rewards (no offset) of token sequences, in their order."""
    values = [0.0] * len(sequences)
    with torch.inference_mode():
        for part in micro_batches([len(ids) for ids in sequences], range(len(sequences)), budget):
            chosen = [sequences[i] for i in part]
            lengths = torch.tensor([len(ids) for ids in chosen], device=device_of(model))
            found = last_rewards(model, pad_right(chosen, pad, device_of(model)), lengths)
            for i, value in zip(part, found.tolist(), strict=True):
                values[i] = value
    return values


def _right(values: Tensor, pairs: Tensor) -> list[float]:
    better, worse = values[pairs[:, 0]], values[pairs[:, 1]]
    right: list[float] = ((better > worse).float() + 0.5 * (better == worse).float()).tolist()
    return right


def _zero_point(
    config: RMConfig, train: Sequence[Comparison], tokenizer: Any, mirror: Path | None
) -> tuple[list[tuple[str, str]], str]:
    """Prompts and responses whose mean reward is to be 0: demonstrations (as in the paper); where none are
    given, one preferred response (it loses no pair, if there is such a one) of each training prompt."""
    if config.demonstrations:
        texts = [
            (one.prompt, one.response)
            for one in read_demonstrations(config.demonstrations, mirror, tokenizer)
        ]
        name = f"demonstrations {config.demonstrations}"
    else:
        texts = [(one.prompt, one.responses[_best(one)]) for one in train]
        name = "preferred responses"
    return texts[:MOST_FOR_SHIFT], name


def _best(one: Comparison) -> int:
    losses = [sum(worse == i for _, worse in one.pairs) for i in range(len(one.responses))]
    return losses.index(min(losses))
