"""``alignbench train``: help, one-sentence mistakes, JSON, and a real kill -9 with ``--resume``."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alignbench.cli.train import command, next_command, summary
from alignbench.errors import UsageError
from alignbench.train.config import CONFIGS


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"prompt": f"q{i % 9}:", "response": f" a{i % 9}"} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data.jsonl"


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_help_lists_every_key_with_its_default(kind: str) -> None:
    said = CliRunner().invoke(command, [kind, "--help"]).output
    for key, field in CONFIGS[kind].model_fields.items():  # type: ignore[index]
        default = "required" if field.is_required() else "null" if field.default is None else field.default
        assert f"{key} ({default})" in said
    assert "Example" in said


def test_json_goes_to_stdout_and_the_sentence_to_stderr(model: Path, data: Path, tmp_path: Path) -> None:
    settings = [f"model={model}", f"data={data}", "steps=2", "eval_fraction=0.3", "device=cpu"]
    ran = CliRunner().invoke(command, ["sft", *settings, "--out", str(tmp_path / "out"), "--json"])
    assert ran.exit_code == 0, ran.output
    record = json.loads(ran.stdout)
    assert record["config"]["steps"] == 2
    assert f"held-out loss {record['eval']['loss']:.3f} nats/token (95 % CI" in ran.stderr
    assert "prompts as plain text; the model is in" in ran.stderr
    assert ran.stderr.endswith(f"next: alignbench compare {model} {tmp_path / 'out'}\n")
    again = CliRunner().invoke(command, ["sft", *settings, "--out", str(tmp_path / "out"), "--resume"])
    assert again.exit_code == 0
    assert again.stdout == ""


def test_a_config_file_and_the_command_line_together(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text(f"model: {model}\ndata: {data}\nsteps: 1\nseed: 3\n")
    arguments = [
        "sft",
        "--config",
        str(tmp_path / "sft.yaml"),
        "seed=4",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    config = json.loads(CliRunner().invoke(command, arguments).stdout)["config"]
    assert (config["steps"], config["seed"]) == (1, 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sft", "model=m", "dta=d"], "unknown key 'dta' in dta=d (did you mean 'data'?)"),
        (["rm", "model=m"], "key 'data' is missing"),
        (["ppo", "model=m", "data=d"], "key 'reward_model' is missing"),
        (["sft", "--config", "none.yaml"], "none.yaml"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    error = CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / "out")]).exception
    assert isinstance(error, UsageError)
    assert said in str(error)
    assert not (tmp_path / "out").exists()


def test_summaries_carry_n_and_interval() -> None:
    measured: dict[str, Any] = {"accuracy": 0.625, "ci": [0.5, 0.75], "n": 80, "n_prompts": 70}
    said = summary("rm", {"eval": measured})
    assert said == "held-out accuracy 62.5 % (95 % CI 50.0 to 75.0 %, n = 80 pairs of 70 prompts)"
    assert "no interval" in summary("rm", {"eval": {**measured, "ci": None}})
    assert summary("rm", {"eval": None}) == "rm is done"


def test_ppo_says_where_it_began_where_it_ended_and_how_sure_that_is() -> None:
    first = {"n": 64, "reward": -0.5, "reward_se": 0.1, "kl": 0.0, "kl_se": 0.0}
    last = {"n": 64, "reward": 1.0, "reward_se": 0.05, "kl": 3.25, "kl_se": 0.5}
    assert summary("ppo", {"first": first, "last": last}) == (
        "reward -0.50 ± 0.20 → 1.00 ± 0.10, KL to the reference 3.25 ± 0.98 nats a response "
        "(first → last step, ± 95 % CI, n = 64 rollouts a step)"
    )
    gap = {"rollout_logprob_gap": 0.0034, "rollout_logprob_gap_max": 0.161}
    assert "vLLM's log-probabilities 0.003 nats a token from the policy's, at most 0.2 (first" in summary(
        "ppo", {"first": first, "last": last | gap}
    )
    gold = {"gold": 0.5, "gold_se": 0.1}
    assert "gold 0.50 ± 0.20 → 0.50 ± 0.20" in summary(
        "ppo", {"first": {**first, **gold}, "last": {**last, **gold}}
    )


def test_after_a_reward_model_comes_ppo_on_the_same_prompts() -> None:
    record = {"config": {"model": "runs/sft", "data": "hh_rlhf"}}
    said = next_command("rm", record, Path("runs/rm"), Path("my data"))
    assert shlex.join(said) == (
        "alignbench train ppo model=runs/sft reward_model=runs/rm data=hh_rlhf "
        "--data 'my data' --out runs/ppo"
    )


@pytest.mark.slow
def test_kill_9_and_resume_give_the_same_bytes(model: Path, data: Path, tmp_path: Path) -> None:
    def start(out: Path, *more: str) -> subprocess.Popen[bytes]:
        settings = [
            "steps=60",
            "save_every=5",
            "eval_every=20",
            "eval_fraction=0.3",
            "device=cpu",
            "threads=1",
        ]
        arguments = ["train", "sft", f"model={model}", f"data={data}", *settings, "--out", str(out), *more]
        return subprocess.Popen([sys.executable, "-m", "alignbench", *arguments], stderr=subprocess.PIPE)

    assert start(tmp_path / "whole").wait() == 0
    process = start(tmp_path / "killed")
    log, deadline = tmp_path / "killed" / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and (not log.exists() or len(log.read_text().splitlines()) < 12):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)  # it must not finish while the second one starts
    second = start(tmp_path / "killed", "--resume")
    assert second.wait() == 2
    assert second.stderr is not None
    assert f"process {process.pid} (alignbench train sft) is working there".encode() in second.stderr.read()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    refused = start(tmp_path / "killed")
    assert refused.wait() == 2
    assert refused.stderr is not None
    assert b"--resume" in refused.stderr.read()
    assert start(tmp_path / "killed", "--resume").wait() == 0
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
