"""PPO whose rollouts vLLM samples: over a stand-in; and vLLM itself, where ``ALIGNBENCH_VLLM_PYTHON`` names a
Python that has it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from alignbench.engines.vllm_engine import versions
from alignbench.errors import UsageError
from alignbench.train import ppo
from alignbench.train.config import PPOConfig
from alignbench.train.learner import Learner
from alignbench.train.objectives import approx_kl
from alignbench.train.rollouts import policy_logprobs
from alignbench.train.vllm_rollouts import GAPS, sampler_gap, warn_of_gap

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "engines"))

from fake_vllm import FakeEngine, install  # noqa: E402

SIDE = TESTS / "peers" / "vllm_rollouts.py"
KEYS = ("rollout_logprob_gap", "rollout_logprob_gap_max", "rollout_kl")


@pytest.fixture
def fake(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine(None, tokenizer, cache=lambda ids: 0)
    install(monkeypatch, engine)
    return engine


@pytest.fixture
def configure(saved: tuple[Path, Path], tmp_path: Path) -> Callable[..., PPOConfig]:
    prompts = tmp_path / "prompts.jsonl"
    asked = [{"prompt": text} for text in ("a?", "what is this, then?", "say it", "x", "and now", "who")]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in asked))

    def make(**keys: Any) -> PPOConfig:
        defaults: dict[str, Any] = {
            "model": str(saved[0]),
            "reward_model": str(saved[1]),
            "data": str(prompts),
            "rollout_engine": "vllm",
            "steps": 4,
            "batch_size": 4,
            "minibatches": 2,
            "max_new_tokens": 6,
            "lr": 1e-2,
            "warmup": 0,
            "save_every": 2,
            "device": "cpu",
        }
        return PPOConfig(**{**defaults, **keys})

    return make


def lines(out: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_each_step_samples_from_the_policy_as_it_is_then(
    configure: Callable[..., PPOConfig], fake: FakeEngine, tmp_path: Path, temperature: float
) -> None:
    record = ppo.train_ppo(configure(temperature=temperature), tmp_path / "out", quiet=True)
    logged, times = lines(tmp_path / "out"), lines(tmp_path / "out", "timings.jsonl")
    assert fake.pushed == 1 + 4, "once to find out whether it can be, and before each step"
    for step in logged:
        assert 0 <= step["rollout_logprob_gap"] <= step["rollout_logprob_gap_max"] <= 1e-4
        assert abs(step["rollout_kl"]) <= 1e-6
    assert all({"push", "sample", "recompute"} <= set(step) for step in times)
    assert logged[0]["kl"] == 0.0, "the reference's arithmetic is the policy's"
    assert record["rollouts"] == {"engine": "vllm", "vllm": "0.0", "dtype": "float32"}
    assert record["last"]["rollout_logprob_gap"] == logged[-1]["rollout_logprob_gap"]


def test_rollouts_by_the_policy_itself_say_nothing_of_a_gap(
    configure: Callable[..., PPOConfig], tmp_path: Path
) -> None:
    record = ppo.train_ppo(configure(rollout_engine="hf", steps=1), tmp_path / "out", quiet=True)
    assert "rollouts" not in record
    assert not set(KEYS) & set(lines(tmp_path / "out")[0])
    assert not {"push", "recompute"} & set(lines(tmp_path / "out", "timings.jsonl")[0])


def test_stale_weights_show_as_a_gap_and_are_said_once(
    configure: Callable[..., PPOConfig],
    fake: FakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = versions.push

    def push(llm: Any, weights: Any) -> None:
        if fake.pushed < 2:
            real(llm, weights)

    monkeypatch.setattr(versions, "push", push)
    ppo.train_ppo(configure(), tmp_path / "out", quiet=True)
    gaps = [step["rollout_logprob_gap"] for step in lines(tmp_path / "out")]
    assert gaps[0] <= 1e-5
    assert all(gap > GAPS["float32"] for gap in gaps[1:])
    said = [line for line in caplog.messages if "log-probabilities of the rollouts differ" in line]
    assert len(said) == 1
    assert "\n" not in said[0]
    assert "rollout_engine=hf" in said[0]


def test_what_is_learned_from_are_the_policys_own_log_probabilities(
    configure: Callable[..., PPOConfig], fake: FakeEngine
) -> None:
    learner, _ = ppo.build_learner(configure(micro_tokens=20))
    rollout = learner.sample(1)
    off = replace(rollout, logprobs=(rollout.logprobs - 0.25) * rollout.mask)
    own, gap = learner.recompute(off)
    with torch.no_grad():
        expected, _ = policy_logprobs(learner.policy, rollout)
    torch.testing.assert_close(own.logprobs, expected, atol=1e-5, rtol=1e-5)
    assert gap["rollout_logprob_gap"] == pytest.approx(0.25, abs=1e-4)
    metrics = learner.step(1)
    assert metrics["kl"] == 0.0
    learner.close()


def test_gaps_by_hand(configure: Callable[..., PPOConfig], fake: FakeEngine) -> None:
    learner, _ = ppo.build_learner(configure())
    rollout = learner.sample(1).take(torch.tensor([0]))
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    told = replace(rollout, mask=mask, logprobs=torch.tensor([[-1.0, -2.0, 0.0]]))
    own = torch.tensor([[-1.1, -1.7, 9.0]])
    gap = sampler_gap(own, told)
    assert gap["rollout_logprob_gap"] == pytest.approx(0.2)
    assert gap["rollout_logprob_gap_max"] == pytest.approx(0.3)
    # (e^-0.1 - 1 + 0.1 + e^0.3 - 1 - 0.3) / 2
    assert gap["rollout_kl"] == pytest.approx(0.027348, abs=1e-6)
    assert gap["rollout_kl"] == pytest.approx(approx_kl(own, told.logprobs, mask).item())


def test_a_number_that_is_none_is_no_small_gap() -> None:
    assert warn_of_gap({"rollout_logprob_gap": float("nan")}, "float32")
    assert not warn_of_gap({"rollout_logprob_gap": 1e-5}, "float32")
    assert not warn_of_gap({"rollout_logprob_gap": 0.01}, "bfloat16")


@pytest.mark.parametrize(
    ("keys", "installed", "said"),
    [
        ({}, False, r"vLLM is not installed; pip install 'alignbench\[vllm\]', or take rollout_engine=hf"),
        ({"temperature": 3.0}, True, r"temperature=3: vLLM samples at 0\.01 to 2"),
    ],
)
def test_what_cannot_be_sampled_is_said_before_a_run_is_begun(
    configure: Callable[..., PPOConfig],
    fake: FakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: dict[str, Any],
    installed: bool,
    said: str,
) -> None:
    monkeypatch.setattr(versions, "installed", lambda: installed)
    with pytest.raises(UsageError, match=said):
        ppo.train_ppo(configure(**keys), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_run_goes_on_with_the_policy_of_its_checkpoint(
    configure: Callable[..., PPOConfig], fake: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ppo.train_ppo(configure(), whole, quiet=True)
    real = Learner.step

    def dying(self: Learner, step: int) -> dict[str, float]:
        metrics = real(self, step)
        if step == 3:
            raise KeyboardInterrupt
        return metrics

    monkeypatch.setattr(Learner, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        ppo.train_ppo(configure(), broken, quiet=True)
    monkeypatch.setattr(Learner, "step", real)
    ppo.train_ppo(configure(), broken, resume=True, quiet=True)
    for name in ("metrics.jsonl", "rollouts.jsonl", "model.safetensors"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    with pytest.raises(UsageError, match="rollout_engine is 'hf' but"):
        ppo.train_ppo(configure(rollout_engine="hf"), broken, resume=True, quiet=True)


# ---- vLLM itself


@pytest.mark.slow
def test_vllm_samples_from_the_policy_in_every_step(tmp_path: Path) -> None:
    """One test, as all of it comes from one process of vLLM's Python."""
    python = os.environ.get("ALIGNBENCH_VLLM_PYTHON")
    if not python:
        pytest.skip("vLLM is absent: set ALIGNBENCH_VLLM_PYTHON to a Python that has it, and what we need")
    environment = {
        "ALIGNBENCH_HOME": str(tmp_path / "home"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    command = [python, str(SIDE), str(tmp_path / "scratch"), str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["models"]) == ["llama", "qwen2", "gpt2"]
    for name, model in found["models"].items():
        check_model(name, model)
    assert found["cache"]["kept"] > 1e-2, "keys and values of old weights would be seen"
    assert found["cache"]["dropped"] <= 1e-4
    check_run(found["run"])
    assert 1e-4 < found["bfloat16"]["rollout_logprob_gap"] < GAPS["bfloat16"]
    assert found["bfloat16"]["kl"] == 0.0
    assert found["refused"].startswith("UsageError: rollout_engine=vllm: vLLM")
    assert "cannot load the policy, a GPT2LMHeadModel: " in found["refused"]
    assert "\n" not in found["refused"]


def check_model(name: str, found: dict[str, Any]) -> None:
    for temperature, gaps in found.items():
        assert gaps["first"] <= 1e-4, (name, temperature)
        assert gaps["stale"] > 0.1, "an update that moves nothing would prove nothing"
        assert gaps["stale_is_the_same"], (name, temperature)
        assert gaps["pushed"] <= 1e-4, (name, temperature)


def check_run(found: dict[str, Any]) -> None:
    assert found["resumed_bit_for_bit"]
    assert found["record"]["engine"] == "vllm"
    assert found["record"]["vllm"]
    assert len(found["metrics"]) == 3
    for step in found["metrics"]:
        assert step["rollout_logprob_gap_max"] <= 1e-4
        assert math.isfinite(step["reward"])
        assert math.isfinite(step["gold"])
    assert found["metrics"][-1]["kl"] != 0.0, "the policy moved, and vLLM's with it"
    assert all(step["push"] > 0 for step in found["timings"])
