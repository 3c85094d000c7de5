"""vLLM's answers, read: which numbers they hold, and whether those are all. Pure but for ``versions``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignbench.engines.types import Scored
from alignbench.engines.vllm_engine import versions
from alignbench.engines.vllm_engine.plan import Probe
from alignbench.errors import WorkError


@dataclass(frozen=True)
class Decoded:
    """One row as sampled; see ``decode.Decoded``."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampling_logprobs: tuple[float, ...]


def read_scores(probe: Probe, output: Any, starts: Sequence[int]) -> list[tuple[int, Scored]] | None:
    """The answers to a probe's members; None where the cache has kept a target's log-probability from us."""
    of_prompt: list[tuple[float, bool]] = []
    if probe.whole:
        places = output.prompt_logprobs or []
        n = len(probe.prompt) - probe.start
        if versions.cached_tokens(output) >= probe.start or len(places) < n:
            return None
        for token, at in zip(probe.prompt[probe.start :], places[len(places) - n :]):
            if at is None or next(iter(at), None) != token:
                return None
            of_prompt.append((float(at[token].logprob), at[token].rank == 1))
    answers = []
    for i, last in probe.members:
        targets = [*of_prompt[starts[i] - probe.start :], versions.last_token(output, last)]
        require_numbers([logprob for logprob, _ in targets])
        total = math.fsum(logprob for logprob, _ in targets)
        answers.append((i, Scored(total, len(targets), all(greedy for _, greedy in targets))))
    return answers


def require_numbers(logprobs: Sequence[float]) -> None:
    """Refuse what a broken model gives.

    Raises:
        WorkError: a log-probability is not a number.
    """
    if any(map(math.isnan, logprobs)):
        raise WorkError(
            "the model's logits are not numbers (NaN): its weights are broken or dtype is too small"
        )


def reason_of(error: BaseException) -> str:
    """The last line of what an error says, which is where vLLM has its reason."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    pydantic = [line for line in lines if line.startswith("Value error, ")]
    line = (pydantic or lines or [type(error).__name__])[-1].removeprefix("Value error, ")
    return line.split(" [type=")[0][:300].rstrip(" .")
