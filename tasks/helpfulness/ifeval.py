"""IFEval: how many of a prompt's verifiable instructions an output follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignbench.metrics.instructions import ifeval_instructions, instruction_scores


def followed(fields: Mapping[str, Any], output: str) -> dict[str, float | tuple[float, float]]:
    """The prompt-level scores, and for the instruction-level ones (instructions followed, instructions)."""
    told = instruction_scores(output, ifeval_instructions(fields))
    return {
        "prompt_strict": told["prompt_strict"],
        "prompt_loose": told["prompt_loose"],
        "instruction_strict": (told["followed_strict"], told["n"]),
        "instruction_loose": (told["followed_loose"], told["n"]),
    }
