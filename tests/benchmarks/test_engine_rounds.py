"""What turns say, by hand; and a side in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import engine_rounds
import pytest
from engine_rounds import Seat, Worker, agreement, ratio, seconds_of_work


def test_the_ratio_is_taken_round_by_round() -> None:
    # the machine was twice as slow in the second round, for both
    assert ratio([6.0, 12.0, 8.0], [2.0, 4.0, 2.0]) == {"median": 3.0, "min": 3.0, "max": 4.0}


def test_the_ratio_needs_as_many_turns_of_both() -> None:
    with pytest.raises(ValueError):
        ratio([1.0, 2.0], [1.0])


def test_seconds_are_for_each_token_where_tokens_are_counted() -> None:
    assert seconds_of_work({"seconds": 3.0, "tokens": 12}, per_token=True) == 0.25
    assert seconds_of_work({"seconds": 3.0}, per_token=False) == 3.0


def test_answers_are_compared() -> None:
    scored = agreement({"logprobs": [-1.0, -2.0]}, {"logprobs": [-1.5, -2.25]})
    assert scored == {"largest_difference": 0.5}
    assert agreement({"texts": ["a", "b", "c", "d"]}, {"texts": ["a", "b", "c", "e"]}) == {
        "equal_texts": 0.75
    }
    with pytest.raises(ValueError):
        agreement({"logprobs": [-1.0]}, {"logprobs": []})


SIDE = """
import sys
sys.path.insert(0, {peers!r})
import serve
serve.threads = lambda: 1  # without torch

def load(setup):
    print("a library that prints to stdout")
    if setup["model"] == "broken":
        raise ValueError("no such model")
    def side(job):
        return lambda: dict(texts=[text.upper() for text, in job["requests"]], tokens=2)
    return side

serve.serve(load, [])
"""


@pytest.fixture
def seat(tmp_path: Path) -> Seat:
    script = tmp_path / "side.py"
    script.write_text(SIDE.format(peers=str(engine_rounds.PEERS)))
    return Seat("upper", sys.executable, str(script))


def test_a_side_loads_once_and_does_rounds(seat: Seat, tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"requests": [[letter] for letter in "abcdef"]}))
    with Worker(seat, {"model": "any"}, tmp_path, threads=1) as worker:
        ready = worker.ready()
        warm = worker.round(job, small=True)
        whole = worker.round(job)
    assert ready["threads"] == 1
    assert "".join(warm["texts"]) == "ABCD"
    assert "".join(whole["texts"]) == "ABCDEF"
    assert whole["seconds"] >= 0
    assert whole["peak"] is None or whole["peak"] > 2**20  # bytes, not KiB


def test_a_side_that_dies_says_why(seat: Seat, tmp_path: Path) -> None:
    with Worker(seat, {"model": "broken"}, tmp_path, threads=1) as worker, pytest.raises(SystemExit) as died:
        worker.ready()
    assert "upper" in str(died.value)
    assert "no such model" in str(died.value)
