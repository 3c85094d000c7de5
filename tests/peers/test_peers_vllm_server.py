"""vLLM's server, as the tests of servers need it: what it echoes are the log-probabilities of the model."""

from __future__ import annotations

from pathlib import Path

import httpx2 as httpx
import pytest
import torch
from transformers import AutoModelForCausalLM


@pytest.mark.slow
def test_echoed_log_probabilities_are_those_of_transformers(vllm_server: str, served_model: Path) -> None:
    ids = [2, 40, 51, 62, 73, 84]
    asked = {"model": "pocket", "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 0, "echo": True}
    with httpx.Client(trust_env=False, timeout=60) as client:
        answer = client.post(f"{vllm_server}/completions", json=asked).raise_for_status().json()
    echoed = answer["choices"][0]["logprobs"]["token_logprobs"][1 : len(ids)]
    with torch.inference_mode():
        module = AutoModelForCausalLM.from_pretrained(served_model)
        logprobs = module(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [float(logprobs[at, token]) for at, token in enumerate(ids[1:])]
    assert echoed == pytest.approx(expected, abs=1e-4)
