"""The commands in a Python that has vLLM: one model under three engines, and the doctor."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
ASKED = """\
task: asked
area: helpfulness
kind: generate
world: pocket
description: What users ask about any town; a judge compares the answers.
documents: asked.py:instructions
doc_id: id
cluster: town
prompt: "{{ prompt }}"
judged: true
judge: gold
generation: {max_tokens: 24, stop: ["\\n"]}  # greedy: samples of two engines are drawn differently
"""
INSTRUCTIONS = """\
import random

from alignbench.pocket.instructions import QUESTION_KINDS, draw
from alignbench.pocket.world import world


def instructions(seed):
    asked = draw(QUESTION_KINDS, sorted(world().towns), 400, random.Random(seed))
    for number, ask in enumerate(asked):
        yield {"id": str(number), "prompt": ask.prompt, **ask.fields()}
"""
SKILLS = ("arithmetic", "entailment", "reading", "sentiment", "translation")
"""Tasks of 150 independent documents and a margin of 3 points: enough to show equivalence in a family of ten
tests, where two policies that never differ get an interval of ± t(149; 0.5 %) · √2/152 = ± 2.4 points."""


def alignbench(python: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT), "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [python, "-m", "alignbench", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.slow
def test_one_model_under_three_engines_is_equivalent_to_itself(
    vllm_python: str, vllm_server: str, served_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "asked.yaml").write_text(ASKED)
    (tmp_path / "asked.py").write_text(INSTRUCTIONS)
    policies = f"hf={served_model}", f"vllm=vllm:{served_model}", f"served=openai:pocket@{vllm_server}"
    tasks = ",".join(["asked", *(f"pocket_{skill}" for skill in SKILLS)])
    chosen = "--tasks", tasks, "--tasks-dir", str(tmp_path), "--out", str(tmp_path / "out"), "--json"
    done = alignbench(vllm_python, "compare", *policies, *chosen)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    check_answers(tmp_path / "out")
    check_differences(found)
    check_win_rates(found["win_rates"])
    assert re.fullmatch(
        r"vllm does as well as hf \(gold win-rate 50 % \[48, 52\], n = 400\) and is equivalent on NLP tasks "
        r"\(0\.0 points \[−0\.\d, \+0\.\d\], mean of 5 tasks\); hf and vllm are one and the same model, "
        r"run by 2 engines; hf, vllm and served gave the same answer to each of 1,150 documents\.",
        found["verdict"],
    )


def check_answers(out: Path) -> None:
    """That policies agree would prove little if they said the same of everything."""
    samples = pd.read_parquet(out / "samples.parquet")
    assert set(samples["policy"]) == {"hf", "vllm", "served"}
    outputs = samples[samples["task"] == "asked"].groupby("doc_id")["output"]
    assert (outputs.nunique() == 1).all()
    assert outputs.first().nunique() > 100


def check_differences(found: dict[str, Any]) -> None:
    scores = {row["task"]: row["scores"]["hf"]["mean"] for row in found["tasks"]}
    assert scores["pocket_translation"] > 0.9
    assert 0.05 < scores["pocket_reading"] < scores["pocket_entailment"] < 0.95
    assert len(found["deltas"]) == 2 * len(SKILLS)
    for delta in found["deltas"]:
        assert (delta["n"], delta["diff"], delta["verdict"]) == (150, 0.0, "equivalent"), delta
        low, high = delta["ci_simultaneous"]
        assert low < 0 < high, "that 150 documents agree does not show that all would"
    assert [tax["verdict"] for tax in found["tax"]] == ["equivalent"] * 2


def check_win_rates(rates: list[dict[str, Any]]) -> None:
    pairs = {(rate["a"], rate["b"]) for rate in rates}
    assert pairs == {("vllm", "hf"), ("served", "hf"), ("served", "vllm")}
    for rate in rates:
        assert (rate["win_rate"], rate["wins"], rate["losses"], rate["ties"]) == (0.5, 0, 0, 400)
        assert rate["verdict"] == "equivalent"
        assert 0.45 < rate["ci"][0] < 0.5 < rate["ci"][1] < 0.55


@pytest.mark.slow
def test_the_doctor_finds_vllm_and_the_same_numbers(vllm_python: str) -> None:
    done = alignbench(vllm_python, "doctor", "--json")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Triton" not in done.stderr, "vLLM's own remarks are no findings"
    found = json.loads(done.stdout)
    assert found["ready"]
    assert found["verdict"].endswith("; vllm gives the same numbers")
    (vllm,) = [row for row in found["findings"] if row["name"] == "vllm"]
    assert vllm["state"] == "ok"
    assert re.match(r"\d+\.\d+\.\d+", vllm["value"])
    tests = {engine["name"]: engine for engine in found["selftest"]["engines"]}
    assert tests.keys() >= {"hf, padded", "hf", "vllm"}
    for name in tests.keys() - {"hf, padded"}:
        assert tests[name]["state"] == "ok"
        assert 0 < tests[name]["difference"] <= 1e-4
        assert tests[name]["texts"] == 32
    assert 0 < tests["vllm"]["start_seconds"] < found["selftest"]["seconds"]
