"""What vLLM is asked for a set of requests, in which order. Pure: vLLM is not imported here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignbench.engines.types import Generate
from alignbench.errors import UsageError


@dataclass
class Probe:
    """One forward pass over ``prompt``, from which sequences are scored that begin with it and have one token
    more. ``members``: (the sequence's index, its last token); ``lasts``: those tokens, each once; ``start``:
    the first target of all, the prompt's length where only last tokens are."""

    prompt: tuple[int, ...]
    start: int
    members: list[tuple[int, int]] = field(default_factory=list)
    lasts: list[int] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether tokens of the prompt itself are targets."""
        return self.start < len(self.prompt)


def plan_probes(
    sequences: Sequence[list[int]], starts: Sequence[int], rows: Sequence[int], at_once: int
) -> list[Probe]:
    """Probes for the sequences in ``rows``, which have targets: one for all that differ in their last token
    only (options of one token, or equal sequences), of no more than ``at_once`` such tokens. They are sorted
    by their ids, so that what begins alike follows one another and finds it in the prefix cache."""
    probes: list[Probe] = []
    for i in sorted(rows, key=lambda i: (sequences[i][:-1], sequences[i][-1], i)):
        prompt, last = tuple(sequences[i][:-1]), sequences[i][-1]
        probe = probes[-1] if probes else None
        full = probe is not None and len(probe.lasts) == at_once and last not in probe.lasts
        if probe is None or probe.prompt != prompt or full:
            probes.append(probe := Probe(prompt, len(prompt)))
        probe.start = min(probe.start, starts[i])
        probe.members.append((i, last))
        if last not in probe.lasts:
            probe.lasts.append(last)
    return probes


def generation_order(prompts: Sequence[list[int]], held: Collection[int]) -> list[int]:
    """The requests to ask, what begins alike one after another: samples of one prompt share its cache."""
    done = frozenset(held)
    return sorted((i for i in range(len(prompts)) if i not in done), key=lambda i: (prompts[i], i))


def generation_params(
    request: Generate, eos: Sequence[int], temperatures: tuple[float, float]
) -> dict[str, Any]:
    """Arguments of ``vllm.SamplingParams``. EOS tokens are given as tokens that stop, so that they are
    exactly the engine ``hf``'s.

    Args:
        temperatures: the lowest above 0, and the highest, that vLLM samples at.

    Raises:
        UsageError: a temperature that it cannot sample at.
    """
    sampling = request.sampling
    low, high = temperatures
    if sampling.temperature > high or 0 < sampling.temperature < low:
        raise UsageError(
            f"temperature {sampling.temperature:g}: vLLM samples at 0 or {low:g} to {high:g}; "
            "choose one of these, or --engine hf"
        )
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "stop": list(sampling.stop),
        "seed": request.seed,
        "logprobs": 0,
        "ignore_eos": True,
        "stop_token_ids": list(eos),
    }


def sampling_logprobs(request: Generate, logprobs: tuple[float, ...]) -> tuple[float, ...]:
    """Log-probabilities in the distribution that was sampled from, where they follow from the model's own;
    else empty: vLLM gives one kind of the two."""
    sampling = request.sampling
    if sampling.temperature == 0:
        return (0.0,) * len(logprobs)
    if sampling.temperature == 1 and sampling.top_k == 0 and sampling.top_p == 1:
        return logprobs
    return ()
