"""What is measured: each case on which checkpoint, in which dtype, with how much work, against whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import engine_requests as requests
from engine_requests import Job

HELLASWAG = "HellaSwag, 5 shots drawn per document, scoring"


@dataclass(frozen=True)
class Case:
    """One line of the table.

    ``peers`` may be empty: then the engine alone is measured. ``n``: documents. ``budget``: tokens in a
    batch, for every side that takes one; None: each decides by itself. ``aims``: peer → what the ratio
    should be, least. ``apart``: the case has processes of its own, as its peak memory is compared; others
    share theirs with the cases beside them.
    """

    name: str
    what: str
    checkpoint: str
    dtype: str
    make: Callable[[Path, int], Job]
    n: int
    budget: int | None
    peers: tuple[str, ...]
    aims: dict[str, float]
    rounds: int | None = None
    apart: bool = False

    @property
    def group(self) -> tuple[object, ...]:
        """Cases with the same group are measured in the same processes."""
        return self.checkpoint, self.dtype, self.budget, self.peers, self.apart and self.name


def _tasks() -> list[Case]:
    """Scoring and generation of tasks beside lm-eval."""
    fixed = "GSM8K, the same 5 shots before each, ragged generation"
    drawn = "GSM8K, 5 shots drawn per document, ragged generation"
    gsm8k = partial(requests.gsm8k, drawn=False)
    table: list[tuple[str, str, str, Callable[[Path, int], Job], int, int, float]] = [
        ("mmlu-20m", "MMLU, 5-shot, scoring", "llama-20m", requests.mmlu, 48, 8192, 5.0),
        ("hellaswag-20m", HELLASWAG, "llama-20m", requests.hellaswag, 12, 8192, 3.5),
        ("gsm8k-20m", fixed, "llama-20m", partial(gsm8k, max_tokens=192), 48, 32768, 3.0),
        (
            "gsm8k-drawn-20m", drawn, "llama-20m",
            partial(requests.gsm8k, drawn=True, max_tokens=192), 24, 32768, 3.0,
        ),
        ("mmlu-124m", "MMLU, 5-shot, scoring", "gpt2-124m", requests.mmlu, 24, 8192, 5.0),
        ("hellaswag-124m", HELLASWAG, "gpt2-124m", requests.hellaswag, 5, 8192, 3.5),
        ("gsm8k-124m", fixed, "gpt2-124m", partial(gsm8k, max_tokens=96), 12, 32768, 3.0),
    ]  # fmt: skip
    return [
        Case(name, what, checkpoint, "float32", make, n, budget, ("lm-eval",), {"lm-eval": aim}, apart=True)
        for name, what, checkpoint, make, n, budget, aim in table
    ]


def _generation() -> list[Case]:
    """Plain generation beside transformers, and the small models beside vLLM's build for processors: in
    float32, as that build has no fast bfloat16 product on many processors (it warns, and falls back).

    Equal lengths: all rows fit into one batch of every side. Ragged: the budget holds 50 to 80 rows;
    beside vLLM both decide by themselves how many run together.
    """
    alone = ("generate", "generate-passive")
    small = (*alone, "vllm")
    table = [
        # checkpoint, dtype, peers, aim, equal: rows and tokens, ragged: problems and most tokens
        ("llama-1m", "float32", small, 1.5, 128, 128, 192, 256),
        ("llama-5m", "float32", small, 1.5, 96, 96, 128, 256),
        ("llama-5m", "bfloat16", alone, 1.5, 96, 96, 128, 256),
        ("llama-20m", "float32", small, 1.5, 64, 64, 96, 256),
        ("llama-20m", "bfloat16", alone, 1.5, 64, 64, 96, 256),
        ("llama-124m", "float32", alone, 1.3, 24, 32, 24, 128),
        ("llama-124m", "bfloat16", alone, 1.3, 48, 48, 48, 192),
    ]
    cases = []
    for checkpoint, dtype, peers, aim, rows, tokens, problems, most in table:
        label = f"{checkpoint.rpartition('-')[2]}-{'bf16' if dtype == 'bfloat16' else 'fp32'}"
        equal = partial(requests.equal, words=24, max_tokens=tokens)
        ragged = partial(requests.ragged, max_tokens=most)
        told = f"equal lengths, {tokens} tokens each", f"ragged lengths, at most {most} tokens"
        for kind, what, make, n, asked, least in (
            ("equal", told[0], equal, rows, peers, aim),
            ("ragged", told[1], ragged, problems, alone, 3.0),
            ("open", told[1], ragged, problems, ("vllm",), 3.0),
        ):
            if kind == "open" and "vllm" not in peers:
                continue
            aims = {peer: 1.0 if peer == "vllm" else least for peer in asked}
            budget = None if kind == "open" else 24576
            cases.append(Case(f"{kind}-{label}", what, checkpoint, dtype, make, n, budget, asked, aims))
    return cases


def _alone() -> list[Case]:
    what = "texts with a 200× spread of lengths, scoring"
    make = requests.spread
    return [Case("spread-1m", what, "llama-1m", "float32", make, 10_000, 8192, (), {}, rounds=1)]


CASES = [*_tasks(), *_generation(), *_alone()]
