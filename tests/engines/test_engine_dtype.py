"""Answers in each dtype: those of float32, within what the dtype's rounding makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, make_model, make_tokenizer

from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Generate, Reward, Sampling, Score
from alignbench.engines.weights import load_policy

SCORES = [Score(c, f" {w}") for c in ("the cat", "where is the dog") for w in ("sat on the mat", "ran", "it")]
# bfloat16 keeps 8 bits: rounding errs by up to 2^-9 of a number, here of logits of some tens, layer by layer;
# float16 keeps 11. Measured: up to 0.057 and 0.005 a token
PER_TOKEN = {"bfloat16": 0.15, "float16": 0.02}


def save(place: Path, family: str = "llama", head: str = "CausalLM", dtype: Any = torch.float32) -> str:
    make_model(family, head).to(dtype).save_pretrained(place)
    make_tokenizer().save_pretrained(place)
    return str(place)


def scored(spec: str) -> list[tuple[float, int]]:
    found = {i: s for batch in load_policy(parse_policy(spec)).score(SCORES) for i, s in batch}
    return [(found[i].logprob, found[i].n_tokens) for i in range(len(SCORES))]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_within_the_dtypes_rounding(family: str, dtype: str, tmp_path: Path) -> None:
    spec = save(tmp_path, family)
    exact, rounded = scored(spec), scored(f"{spec}?dtype={dtype}")
    for (expected, n), (found, _) in zip(exact, rounded):
        assert found == pytest.approx(expected, abs=PER_TOKEN[dtype] * n)
    assert rounded != exact


def test_rewards_within_the_dtypes_rounding(tmp_path: Path) -> None:
    spec = save(tmp_path, head="SequenceClassification")
    values = []
    for dtype in ("float32", "bfloat16"):
        engine = load_policy(parse_policy(f"{spec}?dtype={dtype}"))
        (((_, rewarded),),) = engine.reward([Reward("the cat", " sat")])
        values.append(rewarded.reward)
    assert values[1] == pytest.approx(values[0], abs=0.05)
    assert values[1] != values[0]


@pytest.mark.parametrize(
    ("saved", "asked", "computed"),
    [
        (torch.bfloat16, "auto", "bfloat16"),
        (torch.float16, "auto", "float32"),  # a CPU is slow at it
        (torch.float16, "float16", "float16"),
        (torch.bfloat16, "fp32", "float32"),
        (torch.float32, "bf16", "bfloat16"),
    ],
)
def test_the_dtype_that_is_computed_in_is_recorded(
    saved: torch.dtype, asked: str, computed: str, tmp_path: Path
) -> None:
    engine = load_policy(parse_policy(f"{save(tmp_path, dtype=saved)}?dtype={asked}&device=cpu"))
    assert engine.identity["dtype"] == computed == engine.describe()["dtype"]
    assert engine.module.dtype == getattr(torch, computed)
    (((_, said),),) = engine.generate([Generate("the cat", Sampling(3))])
    assert len(said.token_ids) <= 3
