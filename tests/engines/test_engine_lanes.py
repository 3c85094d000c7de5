"""Work shared among threads: all of it, in order, and nothing of it left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_model, make_tokenizer

from alignbench.engines import packed, steps
from alignbench.engines.hf import HFEngine
from alignbench.engines.lanes import LANES, Lanes
from alignbench.engines.types import Generate, Sampling, Score

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=40), least=st.integers(1, 60))
def test_shares_are_all_there_is_in_order_and_about_equal(sizes: list[int], least: int) -> None:
    shares = Lanes(CPU).share(sizes, least)
    assert [i for share in shares for i in range(len(sizes))[share]] == [*range(len(sizes))]
    assert 1 <= len(shares) <= max(1, min(3, LANES, sum(sizes) // least))
    assert all(sum(sizes[share]) <= sum(sizes) / len(shares) + 2 * max(sizes) for share in shares)


def test_equal_sizes_are_shared_by_hand() -> None:
    lanes = Lanes(CPU)
    assert lanes.share([1] * 32, 8) == [slice(0, 11), slice(11, 22), slice(22, 32)]
    assert lanes.share([1] * 16, 8) == [slice(0, 8), slice(8, 16)]
    assert lanes.share([1] * 15, 8) == [slice(0, 15)]
    assert lanes.share([90, 1, 1], 8) == [slice(0, 1), slice(1, 3)]
    assert lanes.share([1] * 32, 8, most=2) == [slice(0, 16), slice(16, 32)]


def test_an_accelerator_has_one_lane() -> None:
    assert Lanes(torch.device("cuda")).share([1] * 100, 1) == [slice(0, 100)]


def test_each_part_has_a_thread_of_its_own_in_inference_mode() -> None:
    meet = threading.Barrier(3, timeout=20)

    def compute(part: int) -> tuple[int, int, bool, int]:
        meet.wait()  # all three are there at once
        return part, threading.get_ident(), torch.is_inference_mode_enabled(), torch.get_num_threads()

    with torch.inference_mode():
        results = Lanes(CPU).run(compute, [4, 5, 6])
    assert [part for part, *_ in results] == [4, 5, 6]
    assert len({thread for _, thread, *_ in results}) == 3
    assert {(inference, threads) for *_, inference, threads in results} == {(True, 1)}
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_is_raised_when_all_have_ended(bad: int) -> None:
    ended = []

    def compute(part: int) -> None:
        if part == bad:
            raise ValueError(f"part {part}")
        time.sleep(0.2)
        ended.append(part)

    with pytest.raises(ValueError, match=f"part {bad}"):
        Lanes(CPU).run(compute, [0, 1, 2])
    assert len(ended) == 2
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_threads_do_not_change_what_an_engine_says(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LEAST_WORK", 0)
    monkeypatch.setattr(packed, "LEAST_TOKENS", 4)
    shared = []
    run = Lanes.run
    monkeypatch.setattr(Lanes, "run", lambda *a: shared.append(len(a[2])) or run(*a))
    words = ["cat", "dog", "ran", "sat", "mat", "where", "the"]
    prompts = [f"{words[i % 7]} the {words[i % 5]} {words[i % 3]} on" for i in range(30)]
    asked = [Generate(p, Sampling(4 + i % 9, temperature=i % 2), seed=i) for i, p in enumerate(prompts)]
    scored = [Score(p, f" {words[i % 7]} ran") for i, p in enumerate(prompts)]

    def answers(threads: int) -> tuple[list[str], list[float]]:
        torch.set_num_threads(threads)
        engine = HFEngine(make_model(family), make_tokenizer())
        texts = dict(item for batch in engine.generate(asked) for item in batch)
        sums = dict(item for batch in engine.score(scored) for item in batch)
        return [texts[i].text for i in range(30)], [sums[i].logprob for i in range(30)]

    one_texts, one_sums = answers(1)
    assert {*shared} == {1}
    texts, sums = answers(3)
    assert {*shared} == {1, 2, 3}
    assert texts == one_texts
    assert sums == pytest.approx(one_sums, abs=1e-4)
