"""Estimates, against arithmetic by hand; and a model's numbers against a loaded one's."""

from __future__ import annotations

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES, make_model

from alignbench.engines import memory
from alignbench.engines.estimate import (
    CALLS,
    LIBRARIES_BYTES,
    LOGITS_BYTES,
    SHARE,
    Rates,
    Size,
    Work,
    extrapolate,
    peak_bytes,
    seconds,
)
from alignbench.engines.machine import Setting, measure, size_of

SIZE = Size(
    parameters=1_200,
    body=1_000,
    head=100,
    layers=2,
    width=10,
    itemsize=4,
    kv_bytes=160,
    forward_bytes=500,
)
FREE_CALLS = Rates(flops=1e6 / SHARE, bandwidth=1e5, call=0.0)
"""A million FLOPs a second, after the share."""


def test_scoring_is_counted_in_flops() -> None:
    work = Work(total=100, tokens=100, length=50, read=10)
    # a token: 2 × 1,000, and attention to 25 others: 4 × 2 layers × 10 wide × 25; a read one: 2 × 100
    by_hand = (100 * (2_000 + 2_000) + 10 * 200) / 1e6
    assert seconds(work, SIZE, FREE_CALLS, batch_tokens=64, in_flight=1) == pytest.approx(by_hand)


def test_shared_beginnings_leave_the_ends_which_see_more() -> None:
    work = Work(total=100, tokens=20, length=50)
    by_hand = 20 * (2_000 + 4 * 2 * 10 * 50 * 0.9) / 1e6
    assert seconds(work, SIZE, FREE_CALLS, batch_tokens=64, in_flight=1) == pytest.approx(by_hand)


def test_a_unit_is_computed_whole_where_texts_share_something() -> None:
    shared = Work(total=100, tokens=20, length=50, unit=80)
    by_hand = 20 * (2_000 + 4 * 2 * 10 * 80) / 1e6
    assert seconds(shared, SIZE, FREE_CALLS, batch_tokens=64, in_flight=1) == pytest.approx(by_hand)
    apart = Work(total=100, tokens=100, length=50, unit=80)
    by_hand = 100 * (2_000 + 4 * 2 * 10 * 25) / 1e6
    assert seconds(apart, SIZE, FREE_CALLS, batch_tokens=64, in_flight=1) == pytest.approx(by_hand)


def test_calls_are_paid_a_pass() -> None:
    work = Work(total=128, tokens=128, length=0)
    rates = Rates(flops=1e30, bandwidth=1e30, call=0.001)
    assert seconds(work, SIZE, rates, batch_tokens=64, in_flight=1) == pytest.approx(2 * 2 * CALLS * 0.001)


def test_a_step_of_decoding_takes_the_slower_of_memory_and_arithmetic() -> None:
    work = Work(total=0, tokens=0, length=8, rows=4, new_tokens=16)
    head = 2 * 100 * 4 / 1e6  # the first token's logits, of every row
    # 8 steps of 2 rows: weights 4,800 bytes, keys and values of 2 × (8 + 2) tokens
    slow_memory = 8 * (4_800 + 2 * 10 * 160) / 1e5
    assert seconds(work, SIZE, FREE_CALLS, batch_tokens=64, in_flight=2) == pytest.approx(head + slow_memory)
    fast = Rates(flops=FREE_CALLS.flops, bandwidth=1e12, call=0.0)
    arithmetic = 8 * 2 * (2 * 1_100 + 4 * 2 * 10 * 10) / 1e6
    assert seconds(work, SIZE, fast, batch_tokens=64, in_flight=2) == pytest.approx(head + arithmetic)


def test_nothing_to_do_takes_no_time() -> None:
    rates = Rates(flops=1.0, bandwidth=1.0, call=1.0)
    assert seconds(Work(total=0, tokens=0, length=0), SIZE, rates, batch_tokens=64, in_flight=4) == 0


def test_memory_holds_the_larger_of_a_pass_and_what_is_kept() -> None:
    assert peak_bytes(SIZE, batch_tokens=64, on_cpu=False) == 4_800 + 64 * 500 + LOGITS_BYTES
    kept = peak_bytes(SIZE, batch_tokens=64, kv_tokens=1_000)
    assert kept == 4_800 + 1_000 * 160 + LOGITS_BYTES + LIBRARIES_BYTES


@given(shared=st.integers(0, 500), own=st.integers(1, 50), n=st.integers(1, 20), more=st.integers(0, 99))
def test_what_is_shared_is_paid_for_once(shared: int, own: int, n: int, more: int) -> None:
    half, whole = shared + own * n, shared + own * 2 * n
    assert extrapolate(half, whole, 2 * n, 2 * n + more) == pytest.approx(shared + own * (2 * n + more))


@pytest.mark.parametrize("family", [*FAMILIES])
def test_a_models_numbers_need_no_weights(family: str) -> None:
    model = make_model(family)
    size = size_of(model.config, torch.float32, transformers.AutoModelForCausalLM)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert size.head == model.get_output_embeddings().weight.numel()
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding))
    own_head = 0 if model.config.tie_word_embeddings else size.head
    assert size.body == size.parameters - tables - own_head
    assert (size.layers, size.itemsize) == (2, 4)


def test_rates_are_measured() -> None:
    config = make_model("llama").config
    size = size_of(config, torch.float32, transformers.AutoModelForCausalLM)
    shape = memory.Shape.of(config)
    rates = measure(Setting(size, shape, torch.float32, torch.device("cpu"), 64, 64, 8))
    assert 1e7 < rates.flops < 1e15
    assert 1e8 < rates.bandwidth < 1e14
    assert 1e-8 < rates.call < 1e-2
