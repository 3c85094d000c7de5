"""Rollouts by vLLM: the engine that samples them, and how far it is from the policy that learns from them.

vLLM gets the policy's weights before each step. Its kernels are others than the policy's, and in bfloat16 its
weights are rounded where the policy's are not. The policy computes log π of the sampled tokens anew, so that
the ratio of PPO's first update is 1; but the tokens are a little off the policy. This is known as the
mismatch of training and inference, and can be weighted away (truncated importance sampling). Here it is
measured in every step, and a line on stderr says so when it is more than rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from alignbench.engines.inputs import Inputs
from alignbench.engines.types import Generate, Sampling
from alignbench.errors import UsageError
from alignbench.train.config import PPOConfig
from alignbench.train.objectives import approx_kl, masked_mean
from alignbench.train.rollouts import Rollout

log = logging.getLogger(__name__)

GAPS = {"float32": 1e-3, "bfloat16": 0.03}
"""Mean difference of a token's log-probability, in nats, that is still rounding, by the dtype of the
arithmetic."""


def open_sampler(config: PPOConfig, policy: Any, inputs: Inputs, prompts: Sequence[str]) -> Any:
    """vLLM with the policy's weights as they are now, for texts as long as the longest of the prompts allows.

    Raises:
        UsageError: see ``LiveEngine``; or a temperature at which vLLM does not sample.
    """
    from alignbench.engines.vllm_engine.live import LiveEngine
    from alignbench.engines.vllm_engine.versions import TEMPERATURES

    low, high = TEMPERATURES
    if not low <= config.temperature <= high:
        raise UsageError(
            f"temperature={config.temperature:g}: vLLM samples at {low:g} to {high:g}; choose one of these, "
            "or rollout_engine=hf"
        )
    sampling = Sampling(config.max_new_tokens, config.temperature)
    read = inputs.prompts([Generate(prompt, sampling) for prompt in prompts])
    longest = max(map(len, read.sequences)) + config.max_new_tokens
    return LiveEngine(policy, inputs, length=longest, dtype=config.dtype, memory=config.rollout_memory)


def sampler_gap(logprobs: Tensor, rollout: Rollout) -> dict[str, float]:
    """How far the distribution that a rollout was sampled from is from the policy.

    Args:
        logprobs: ``(B, T)`` of the sampled tokens under the policy, at the rollout's temperature.
        rollout: with the sampler's log-probabilities.

    Returns:
        ``rollout_logprob_gap`` and ``rollout_logprob_gap_max``: mean and largest absolute difference of a
        token's log-probability, in nats; ``rollout_kl``: KL(sampler ‖ policy) in nats a token, estimated as
        in ``objectives.approx_kl``.
    """
    gap = ((logprobs - rollout.logprobs) * rollout.mask).abs()
    return {
        "rollout_logprob_gap": masked_mean(gap, rollout.mask).item(),
        "rollout_logprob_gap_max": gap.max().item(),
        "rollout_kl": approx_kl(logprobs, rollout.logprobs, rollout.mask).item(),
    }


def warn_of_gap(gap: Mapping[str, float], dtype: str) -> bool:
    """Say it where a gap is more than rounding; whether it was."""
    mean, limit = gap["rollout_logprob_gap"], GAPS[dtype]
    wide = not mean <= limit
    if wide:
        log.warning(
            "alignbench: log-probabilities of the rollouts differ by %.2g nats a token between vLLM and the "
            "policy, where rounding in %s explains %g: what is learned from is not quite the policy's own; "
            "rollout_engine=hf has no such gap",
            mean,
            dtype,
            limit,
        )
    return wide
