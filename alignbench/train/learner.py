"""PPO against a reward model, with the pretraining term: step 3 of InstructGPT (section 3.5, appendix C.4).

One step of the run, for prompts x:

1. sample: responses y ~ π(· | x). vLLM, where it samples, is given the weights before (push), and log π of
   what it sampled is computed anew (recompute): see ``vllm_rollouts``.
2. assess: the reward model's r(x, y); rewards r_t = −β (log π − log π_ref), plus r(x, y) at the last token;
   values V_t; advantages A_t by GAE.
3. update, for each minibatch of responses: the policy on the clipped surrogate of A plus ``ptx_coef`` times
   the mean per-token loss of a batch of pretraining texts (PPO-ptx; both gradients go into one optimizer
   step), and the value model on the clipped squared error.
4. average: EMA ← d · EMA + (1 − d) · π.

The models stay in eval mode: dropout would make π differ from the policy that sampled.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alignbench.engines.hf import HFEngine
from alignbench.engines.scoring import has_separable_head
from alignbench.train import objectives
from alignbench.train.config import PPOConfig
from alignbench.train.data import Order, pad_right
from alignbench.train.loop import adamw, lr_factor, micro_batches
from alignbench.train.models import default_lr
from alignbench.train.rollouts import Rollout, policy_logprobs, request_seeds, sample_rollout, token_values
from alignbench.train.vllm_rollouts import open_sampler, sampler_gap, warn_of_gap

Score = Callable[[Rollout], Tensor]
"""Rewards ``(B,)`` of the responses of a rollout: the reward model."""

Gold = Callable[[str, str], float | None]
"""True quality of a response to a prompt, None where it is not known. Logged, never trained on."""


@dataclass(frozen=True)
class Experience:
    """A rollout and what is learned from it; shapes as in ``objectives``, per-token tensors 0 at padding.

    ``ref_logprobs`` ``(B, T)``: of the sampled tokens under the reference; ``scores`` ``(B,)``: the reward
    model's, before ``missing_eos_penalty``; ``values``, ``advantages``, ``returns`` ``(B, T)``.
    """

    rollout: Rollout
    ref_logprobs: Tensor
    scores: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    @property
    def kl(self) -> Tensor:
        """``(B,)``: summed log-ratio of each sampled response to the reference, in nats."""
        return ((self.rollout.logprobs - self.ref_logprobs) * self.rollout.mask).sum(1)

    def take(self, rows: Tensor) -> Experience:
        """The responses at ``rows`` (long), padded no wider than these need."""
        rollout = self.rollout.take(rows)
        width = rollout.mask.shape[1]
        per_token = ("ref_logprobs", "values", "advantages", "returns")
        taken = {name: getattr(self, name)[rows, :width] for name in per_token}
        return Experience(rollout, scores=self.scores[rows], **taken)


class Learner:
    """The policy, its averaged weights, the value model, and the step that improves them.

    Args:
        config: coefficients, sizes and learning rates.
        policy, reference: causal language models; ``reference`` is frozen.
        value: sequence-classification model with one label, read at every response token.
        tokenizer: the policy's.
        score: the reward model.
        prompts: what rollouts answer.
        texts: token ids of pretraining texts, two or more each; none for plain PPO.
        gold: logged beside the reward where it is known.
    """

    def __init__(
        self,
        config: PPOConfig,
        *,
        policy: Any,
        reference: Any,
        value: Any,
        tokenizer: Any,
        score: Score,
        prompts: Sequence[str],
        texts: Sequence[Sequence[int]] = (),
        gold: Gold | None = None,
    ) -> None:
        self.config, self.score, self.gold, self.prompts, self.texts = config, score, gold, prompts, texts
        self.policy, self.reference, self.value = policy.eval(), reference.eval(), value.eval()
        others = [n for model in (reference, value) if (n := HFEngine(model, tokenizer).context_length)]
        # a rollout, with the reward model's EOS behind it, must fit whoever reads it
        self.engine = HFEngine(policy, tokenizer, window=min(others) - 1 if others else None)
        engines = (self.engine, HFEngine(reference, tokenizer))
        self.separable = all(has_separable_head(engine) for engine in engines)
        self.order = Order(
            len(prompts), config.batch_size, config.seed, steps=config.steps, epochs=config.epochs
        )
        self.text_lengths = [len(text) for text in texts]
        self.text_order = Order(
            max(1, len(texts)),
            config.ptx_batch_size,
            config.seed,
            steps=self.steps * config.ppo_epochs * config.minibatches,
        )
        self.lr = config.lr or 0.3 * default_lr(policy)
        self.policy_optimizer = adamw(policy, self.lr, config.weight_decay)
        self.value_optimizer = adamw(value, config.value_lr or self.lr, config.weight_decay)
        self.vllm = None
        if config.rollout_engine == "vllm":
            self.vllm = open_sampler(config, policy, self.engine.inputs, prompts)
        self._warned = False
        self.average: AveragedModel | None = None
        if config.ema_decay is not None:
            averaging = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(policy, multi_avg_fn=averaging)
            self.average.update_parameters(policy)  # the first update copies: the average starts at π_0
        self.seconds: dict[str, float] = {}
        self.logged: list[dict[str, Any]] = []

    @property
    def steps(self) -> int:
        """How many steps the run has."""
        return self.order.steps

    def step(self, step: int) -> dict[str, float]:
        """One step of the algorithm (see the module); ``step`` counts from 1. Returns its metrics; its first
        ``config.log_rollouts`` rollouts are then in ``logged`` (see ``rollout_rows``), its times in
        ``seconds``."""
        gap: dict[str, float] = {}
        if self.vllm is not None:
            with self._timed("push"):
                self.vllm.push()
        with self._timed("sample"):
            rollout = self.sample(step)
        if self.vllm is not None:
            with self._timed("recompute"):
                rollout, gap = self.recompute(rollout)
        with self._timed("assess"):
            experience = self.assess(rollout)
        with self._timed("update"):
            lr = self.set_lr(step)
            updates = [
                {**self.update_policy(part, texts), **self.update_value(part)}
                for part, texts in self.minibatches(experience, step)
            ]
        if self.average is not None:
            self.average.update_parameters(self.policy)
        self.logged = rollout_rows(experience, self.config.log_rollouts)
        return {**self.describe(experience), **gap, **_means(updates), "lr": lr}

    def sample(self, step: int) -> Rollout:
        """Answer the step's prompts with the current policy (vLLM: with the weights that it was last given);
        each request has a seed of its own."""
        prompts = [self.prompts[i] for i in self.order.batch(step - 1)]
        return sample_rollout(
            self.engine if self.vllm is None else self.vllm,
            prompts,
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            seeds=request_seeds(self.config.seed, step, len(prompts)),
            device=self.engine.device,
        )

    def recompute(self, rollout: Rollout) -> tuple[Rollout, dict[str, float]]:
        """The rollout with the policy's own log-probabilities, and how far the sampler's were from them
        (``sampler_gap``); the first time that it is too far, a warning."""
        logprobs = torch.zeros_like(rollout.mask)
        with torch.no_grad():
            for rows in self._parts(rollout):
                part = rollout.take(rows)
                logprobs[rows, : part.mask.shape[1]] = self._logprobs(self.policy, part)[0]
        gap = sampler_gap(logprobs, rollout)
        self._warned = self._warned or warn_of_gap(gap, self.config.dtype)
        return replace(rollout, logprobs=logprobs), gap

    def assess(self, rollout: Rollout) -> Experience:
        """Scores, KL penalty, values and advantages of a rollout, with the models as they are now."""
        config, mask = self.config, rollout.mask
        scores = self.score(rollout)
        reference, values = torch.zeros_like(mask), torch.zeros_like(mask)
        with torch.no_grad():
            for rows in self._parts(rollout):
                part = rollout.take(rows)
                width = part.mask.shape[1]
                reference[rows, :width] = self._logprobs(self.reference, part)[0]
                values[rows, :width] = token_values(self.value, part)
        final = scores - config.missing_eos_penalty * (1 - rollout.ended)
        rewards = objectives.kl_penalty_rewards(rollout.logprobs, reference, final, mask, config.kl_coef)
        if config.whiten_rewards:
            rewards = objectives.masked_whiten(rewards, mask, shift_mean=False)
        advantages, returns = objectives.gae(rewards, values, mask, config.gamma, config.lam)
        if config.whiten_advantages:
            advantages = objectives.masked_whiten(advantages, mask)
        return Experience(rollout, reference, scores, values, advantages, returns)

    def minibatches(self, experience: Experience, step: int) -> Iterator[tuple[Experience, list[int]]]:
        """The rollout in shuffled parts, ``ppo_epochs`` times, each with indices of pretraining texts."""
        config = self.config
        updates = config.ppo_epochs * config.minibatches
        for epoch in range(config.ppo_epochs):
            shuffled = np.random.default_rng([config.seed, 2, step, epoch]).permutation(
                len(experience.rollout)
            )
            for k, rows in enumerate(np.array_split(shuffled, config.minibatches)):
                if len(rows):
                    update = (step - 1) * updates + epoch * config.minibatches + k
                    texts = self.text_order.batch(update) if self.texts else []
                    yield experience.take(torch.from_numpy(rows).to(experience.scores.device)), texts

    def update_policy(self, batch: Experience, texts: Sequence[int]) -> dict[str, float]:
        """One optimizer step on the surrogate loss plus ``ptx_coef`` times the pretraining loss.

        Each is a mean over its own tokens, so ``ptx_coef`` weighs nats per pretraining token against the
        (whitened) advantage per response token, whatever the two batch sizes.
        """
        config = self.config
        done: defaultdict[str, float] = defaultdict(float)
        self.policy_optimizer.zero_grad(set_to_none=True)
        for rows in self._parts(batch.rollout):
            part = batch.take(rows)
            rollout, share = part.rollout, _share(part.rollout.mask, batch.rollout.mask)
            logprobs, entropy = self._logprobs(self.policy, rollout)
            loss, clipped = objectives.ppo_policy_loss(
                logprobs, rollout.logprobs, part.advantages, rollout.mask, config.clip
            )
            torch.autograd.backward(share * loss)
            moved = objectives.approx_kl(logprobs.detach(), rollout.logprobs, rollout.mask)
            done["policy_loss"] += share * loss.item()
            done["clip_fraction"] += share * clipped.item()
            done["approx_kl"] += share * moved.item()
            done["entropy"] += share * objectives.masked_mean(entropy, rollout.mask).item()
        if texts:
            done["ptx_loss"] = self._pretraining_backward(texts)
        done["grad_norm"] = _apply(self.policy, self.policy_optimizer, config.max_grad_norm)
        return dict(done)

    def update_value(self, batch: Experience) -> dict[str, float]:
        """One optimizer step of the value model on the clipped squared error against the returns."""
        done: defaultdict[str, float] = defaultdict(float)
        self.value_optimizer.zero_grad(set_to_none=True)
        for rows in self._parts(batch.rollout):
            part = batch.take(rows)
            rollout, share = part.rollout, _share(part.rollout.mask, batch.rollout.mask)
            values = token_values(self.value, rollout)
            loss = objectives.value_loss(
                values, part.values, part.returns, rollout.mask, self.config.value_clip
            )
            torch.autograd.backward(share * loss)
            done["value_loss"] += share * loss.item()
        done["value_grad_norm"] = _apply(self.value, self.value_optimizer, self.config.max_grad_norm)
        return dict(done)

    def set_lr(self, step: int) -> float:
        """Set both learning rates for a step by the schedule; returns the policy's."""
        factor = lr_factor(step, self.steps, self.config)
        for optimizer, peak in (
            (self.policy_optimizer, self.lr),
            (self.value_optimizer, self.config.value_lr or self.lr),
        ):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
        return self.lr * factor

    def describe(self, experience: Experience) -> dict[str, float]:
        """What the policy did in a rollout: means over its ``n`` responses, with standard errors (``_se``).

        ``reward`` is the reward model's; ``kl`` the summed log-ratio of a response to the reference (nats),
        ``kl_per_token`` the same over all tokens; ``gold`` only where it is known.
        """
        rollout, mask = experience.rollout, experience.rollout.mask
        kl = experience.kl
        described = {"n": len(rollout), **_mean("reward", experience.scores), **_mean("kl", kl)}
        if self.gold is not None:
            rated = [self.gold(p, c.text) for p, c in zip(rollout.prompts, rollout.completions)]
            known = [value for value in rated if value is not None]
            described |= _mean("gold", torch.tensor(known)) if known else {}
        return {
            **described,
            "kl_per_token": (kl.sum() / mask.sum()).item(),
            "response_length": rollout.lengths.mean().item(),
            "eos_rate": rollout.ended.mean().item(),
            "explained_variance": objectives.explained_variance(
                experience.values, experience.returns, mask
            ).item(),
        }

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {name: part.state_dict() for name, part in self._stateful().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])

    def close(self) -> None:
        """Give vLLM's memory back, where it was used."""
        if self.vllm is not None:
            self.vllm.close()

    def _stateful(self) -> dict[str, Any]:
        parts = {
            "policy": self.policy,
            "value": self.value,
            "policy_optimizer": self.policy_optimizer,
            "value_optimizer": self.value_optimizer,
        }
        return parts if self.average is None else {**parts, "average": self.average}

    def _logprobs(self, model: Any, rollout: Rollout) -> tuple[Tensor, Tensor]:
        return policy_logprobs(model, rollout, temperature=self.config.temperature, separable=self.separable)

    def _parts(self, rollout: Rollout) -> Iterator[Tensor]:
        """Rows of the rollout in parts that fit into memory."""
        lengths = (rollout.starts + rollout.lengths.long()).tolist()
        for rows in micro_batches(lengths, range(len(lengths)), self.config.micro_tokens):
            yield torch.tensor(rows, device=rollout.ids.device)

    def _pretraining_backward(self, texts: Sequence[int]) -> float:
        """Accumulate the gradient of ``ptx_coef`` times the texts' mean loss a token; returns that loss."""
        total = sum(self.text_lengths[i] - 1 for i in texts)
        mean = 0.0
        for part in micro_batches(self.text_lengths, texts, self.config.micro_tokens):
            share = sum(self.text_lengths[i] - 1 for i in part) / total
            sequences = [self.texts[i] for i in part]
            logits = self.policy(
                input_ids=pad_right(sequences, 0, self.engine.device), use_cache=False
            ).logits
            labels = pad_right(sequences, objectives.IGNORE, self.engine.device)
            loss = objectives.response_lm_loss(logits, labels)
            torch.autograd.backward(self.config.ptx_coef * share * loss)
            mean += share * loss.item()
        return mean

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def rollout_rows(experience: Experience, n: int) -> list[dict[str, Any]]:
    """The first ``n`` rollouts for people to read: ``prompt``; ``response``; ``reward``, the reward model's,
    before every penalty; ``kl``, summed over the sampled tokens, in nats; ``n_tokens``, EOS included; and
    how it ended (``finish``: ``eos``, or ``length`` where it was cut off)."""
    rollout = experience.rollout
    rewards, kls = experience.scores[:n].tolist(), experience.kl[:n].tolist()
    return [
        {
            "prompt": prompt,
            "response": completion.text,
            "reward": reward,
            "kl": kl,
            "n_tokens": len(completion.token_ids),
            "finish": completion.finish,
        }
        for prompt, completion, reward, kl in zip(rollout.prompts, rollout.completions, rewards, kls)
    ]


def _apply(model: Any, optimizer: torch.optim.Optimizer, max_grad_norm: float) -> float:
    """Clip the accumulated gradient, step, and return the gradient's norm before clipping."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    return norm.item()


def _share(part: Tensor, whole: Tensor) -> float:
    return (part.sum() / whole.sum()).item()


def _mean(name: str, values: Tensor) -> dict[str, float]:
    values = values.double()
    error = values.std() / len(values) ** 0.5 if len(values) > 1 else torch.zeros(())
    return {name: values.mean().item(), f"{name}_se": error.item()}


def _means(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(update[name] for update in updates) / len(updates) for name in updates[0]}
