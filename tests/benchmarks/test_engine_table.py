"""The page says what was measured, and who won."""

from __future__ import annotations

from typing import Any

import pytest
from engine_cases import CASES
from engine_table import written


def span(median: float, least: float, most: float) -> dict[str, float]:
    return {"median": median, "min": least, "max": most}


def line(ratio: dict[str, float], **more: Any) -> dict[str, Any]:
    side = {
        "versions": {"torch": "2.13.0"},
        "threads": 2,
        "peak_bytes": 512 * 2**20,
        "work_bytes": 128 * 2**20,
    }
    return {
        "what": "five-shot scoring",
        "checkpoint": "llama-20m",
        "dtype": "float32",
        "requests": 96,
        "rounds": 5,
        "measured": "2026-01-01T00:00:00+00:00",
        "hardware": {"processor": "a processor", "machine": "x86_64", "cpus": 2},
        "device": "cpu",
        "gemm_flops": span(1e11, 9e10, 1.1e11),
        "share_of_gemm": span(0.5, 0.4, 0.6),
        "aims": {"lm-eval": 3.5},
        "work": {"total_tokens": 900, "computed_tokens": 150, "decoded_tokens": 50, "padding_tokens": 10},
        "left_out": [],
        "sides": {
            "alignbench": {**side, "seconds": span(2.0, 1.9, 2.1), "tokens": None, "rows": None},
            "lm-eval": {**side, "seconds": span(8.0, 7.9, 8.1), "tokens": None, "rows": 7},
        },
        "peers": {
            "lm-eval": {
                "ratio": ratio,
                "per_token": False,
                "agreement": {"largest_difference": 2e-5},
                "memory_ratio": {"process": 0.5, "work": 0.25},
            }
        },
        **more,
    }


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (span(4.0, 3.6, 4.4), "≥ 3.5: reached"),
        (span(4.0, 3.4, 4.4), "≥ 3.5: not told apart"),
        (span(0.5, 0.4, 0.6), "≥ 3.5: missed"),
    ],
)
def test_an_aim_is_reached_where_every_round_says_so(ratio: dict[str, float], verdict: str) -> None:
    page = written({"lines": {"case": line(ratio)}})
    assert verdict in page
    assert f"**{ratio['median']:.2f} [{ratio['min']:.2f} – {ratio['max']:.2f}]**" in page


def test_the_page_counts_waste_and_names_who_was_left_out() -> None:
    page = written({"lines": {"case": line(span(4.0, 3.6, 4.4), left_out=["vllm"])}})
    assert "| 900 | 150 | 50 | 10 | 5.0% | 2.0 |" in page  # 10 of 150 + 50
    assert "vllm: left out" in page
    assert "2.0e-05" in page


def test_cases_have_names_of_their_own_and_aims_for_their_peers() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.aims.keys() <= set(case.peers) for case in CASES)
