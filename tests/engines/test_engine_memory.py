"""How many tokens fit: hand-worked bytes, and budgets that do not move with what happens to be free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_model

from alignbench.engines import memory
from alignbench.engines.memory import Shape, beside_weights, fitting, forward_bytes, kv_bytes

CPU = torch.device("cpu")
GIB = 2**30


def test_shapes_of_configs() -> None:
    llama = transformers.LlamaConfig(
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=80,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
    )
    assert Shape.of(llama) == Shape(layers=2, hidden=32, intermediate=80, query=64, key_value=16)
    gpt2 = transformers.GPT2Config(n_embd=48, n_layer=3, n_head=2)  # n_inner: None
    assert Shape.of(gpt2) == Shape(layers=3, hidden=48, intermediate=192, query=48, key_value=48)
    t5 = transformers.T5Config(d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=3)
    assert Shape.of(t5) == Shape(layers=2, hidden=16, intermediate=24, query=12, key_value=12)
    moe = transformers.MixtralConfig(
        hidden_size=8, intermediate_size=10, num_experts_per_tok=3, num_attention_heads=2
    )
    assert Shape.of(moe).intermediate == 30
    several = transformers.PaliGemmaConfig()  # the text model's
    assert Shape.of(several).hidden == several.text_config.hidden_size


def test_a_config_that_says_nothing_is_taken_for_a_large_model() -> None:
    shape = Shape.of(transformers.PretrainedConfig())
    assert shape == Shape(layers=32, hidden=4096, intermediate=16384, query=4096, key_value=4096)
    assert Shape.of(transformers.PretrainedConfig(intermediate_size=[64, 128])).intermediate == 128


def test_bytes_of_a_token_by_hand() -> None:
    shape = Shape(layers=2, hidden=32, intermediate=80, query=64, key_value=16)
    assert kv_bytes(shape, 2) == 2 * 2 * 16 * 2 == 128
    # 8 × 32 + 3 × 80 + 2 × (64 + 32) = 688 numbers, 64 more in float32
    assert forward_bytes(shape, 2) == 688 * 2 + 256 + 128
    assert forward_bytes(shape, 4) == 688 * 4 + 256 + 256


def test_tokens_are_a_power_of_two_between_the_least_and_the_cap() -> None:
    assert fitting(1_000_000, 100, 8_192) == 8_192  # 10,000
    assert fitting(819_100, 100, 8_192) == 4_096  # 8,191
    assert fitting(50_000, 100, 8_192) == 256  # 500
    assert fitting(0, 100, 8_192) == memory.LEAST


@given(st.floats(0, 1e13), st.integers(1, 10**8), st.sampled_from([8_192, 65_536, 2**20]))
def test_what_is_said_to_fit_fits(room: float, each: int, cap: int) -> None:
    tokens = fitting(room, each, cap)
    assert tokens & (tokens - 1) == 0
    assert memory.LEAST <= tokens <= cap
    assert tokens * each <= room or tokens == memory.LEAST
    assert 2 * tokens * each > room - each or tokens == cap


def test_room_moves_with_what_is_free_only_on_a_busy_device() -> None:
    assert beside_weights(24 * GIB, 9 * GIB, 14 * GIB, 0.9) == 10 * GIB
    assert beside_weights(24 * GIB, 10 * GIB - 1, 14 * GIB, 0.9) == 10 * GIB
    assert beside_weights(24 * GIB, 4 * GIB, 14 * GIB, 0.9) == 4 * GIB
    assert beside_weights(8 * GIB, 0, 14 * GIB, 0.9) == 0


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_both_budgets_fit_together_into_what_counts_as_free(kind: str) -> None:
    assert memory.BATCH_SHARE + memory.KV_SHARE[kind] <= memory.IDLE[kind]


def test_budgets_of_a_model(monkeypatch: pytest.MonkeyPatch, llama: Any) -> None:
    assert memory.batch_tokens(llama, CPU) == 8_192  # this machine has more than 40 MB
    assert memory.kv_tokens(llama, CPU, torch.float32) == memory.KV_CAP
    weights = sum(p.numel() for p in llama.parameters()) * 4
    shape = Shape.of(llama.config)
    # a quarter of the rest holds 1,000 tokens
    total = weights + 4_000 * forward_bytes(shape, 4)
    monkeypatch.setattr(memory, "memory_of", lambda device: (total, total - weights))
    assert memory.batch_tokens(llama, CPU) == 512
    assert memory.kv_tokens(llama, CPU, torch.bfloat16) == 2 * memory.kv_tokens(llama, CPU, torch.float32)
    half = make_model("llama").to(torch.bfloat16)
    assert memory.batch_tokens(half, CPU) == 1_024
    monkeypatch.setattr(memory, "memory_of", lambda device: (total, 0))
    assert memory.batch_tokens(llama, CPU) == memory.LEAST


def test_memory_of_a_container_is_its_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (str(limit),))
    whole, free = memory.memory_of(CPU)
    assert whole >= free > 0
    limit.write_text("max\n")
    assert memory.memory_of(CPU)[0] == whole
    limit.write_text("1048576\n")
    assert memory.memory_of(CPU) == (1048576, 1048576)


def test_what_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert memory.is_out_of_memory(caught.value)
    assert memory.is_out_of_memory(MemoryError())
    assert memory.is_out_of_memory(torch.OutOfMemoryError("x"))
    assert memory.is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert not memory.is_out_of_memory(RuntimeError("shapes do not match"))
    assert not memory.is_out_of_memory(ValueError("not enough memory"))
