"""``openai:`` beside ``hf``: vLLM's own server on loopback, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignbench.engines import open_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Engine, Generate, Sampling, Score

STEM = "the cat sat on the mat and the dog ran to the cat; where is the mat?"
SCORES = [
    Score(STEM[:cut], f" {word}{rest}")
    for cut in (12, 23, 40, 69)
    for word in ("the cat", "dog", "it", "é ran")
    for rest in ("", " on the mat.")
]
PROMPTS = [Generate(STEM[: 7 * i + 3], Sampling(24, stop=("?",) if i % 2 else ())) for i in range(9)]


def answers(engine: Engine, verb: str, requests: list[Any]) -> list[Any]:
    found = dict(item for batch in getattr(engine, verb)(requests) for item in batch)
    return [found[i] for i in range(len(requests))]


@pytest.mark.slow
def test_a_server_gives_the_numbers_and_texts_of_its_weights(vllm_server: str, served_model: Path) -> None:
    same_answers(vllm_server, served_model)


@pytest.mark.slow
def test_so_do_those_of_other_architectures(other_served: tuple[str, Path]) -> None:
    same_answers(*other_served)


def same_answers(url: str, model: Path) -> None:
    hf = open_engine(parse_policy(f"{model}?dtype=float32"))
    served = open_engine(parse_policy(f"openai:pocket@{url}"))
    for ours, theirs in zip(answers(hf, "score", SCORES), answers(served, "score", SCORES)):
        assert theirs.logprob == pytest.approx(ours.logprob, abs=1e-4)
        assert (theirs.n_tokens, theirs.greedy) == (ours.n_tokens, ours.greedy)
    for ours, theirs in zip(answers(hf, "generate", PROMPTS), answers(served, "generate", PROMPTS)):
        assert theirs.token_ids == ours.token_ids
        # vLLM leaves out a character that the last tokens only begin
        assert theirs.text.rstrip("\ufffd") == ours.text.rstrip("\ufffd")
        assert theirs.finish == ours.finish
