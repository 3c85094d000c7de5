"""Parity with lm-evaluation-harness itself, on a small part of the benchmark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SETS = ("hellaswag", "gsm8k_5shot", "rolling", "edge cases", "one text, many boundaries", "its own words")
ARCHITECTURES = ("gpt2", "llama", "qwen2", "t5")


@pytest.mark.slow
def test_lm_eval_gives_the_same_numbers_and_texts(shared_data: Path, tmp_path: Path) -> None:
    python = os.environ.get("ALIGNBENCH_LMEVAL_PYTHON")
    if not python:
        pytest.skip(
            "lm-eval is absent: set ALIGNBENCH_LMEVAL_PYTHON to a Python that has lm_eval[hf]==0.4.13"
        )
    command = [sys.executable, str(BENCHMARKS / "parity.py"), "--data", str(shared_data), "--scale", "0.05"]
    command += ["--peer-python", python, "--scratch", str(tmp_path / "scratch"), "--out", str(tmp_path)]
    command += [f"--only={architecture}:{name}" for architecture in ARCHITECTURES for name in SETS]
    command += ["--only=gpt2:task rte"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    models = json.loads((tmp_path / "parity.json").read_text())["models"]
    assert [model["model"] for model in models] == list(ARCHITECTURES)
    for model in models:
        found = {c["name"]: c for c in model["sets"]}
        assert found["hellaswag"]["n"] >= 40
        assert found["hellaswag"]["spread"] > 10, "log-probabilities that hardly vary would prove little"
        assert found["gsm8k_5shot"]["n"] >= 4
        assert found["rolling"]["n"] >= 4
        assert 0.1 < found["its own words"]["metrics"]["greedy_accuracy"][0] < 0.9, (
            "both flags are to be seen"
        )
        assert found["edge cases"]["n"] - len(found["edge cases"]["known"]) >= 20
    assert [task["name"] for task in models[0]["tasks"]] == ["task rte"]
    assert models[0]["tasks"][0]["metrics"]["acc"][0] == models[0]["tasks"][0]["metrics"]["acc"][1]
