"""Which engine evaluates where none was named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignbench.engines import choice
from alignbench.engines.choice import default_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.vllm_engine import versions

LLAMA = {"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "num_attention_heads": 4}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "for_cuda", lambda: True)
    monkeypatch.setattr(choice, "accelerators", lambda: {"drivers": ["/dev/nvidiactl"]})
    monkeypatch.setattr(choice, "LARGE", 100)


def model(folder: Path, weights: int = 200, **changes: object) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA | changes))
    (folder / "model.safetensors").write_bytes(b"\0" * weights)
    return str(folder)


def chosen(*specs: str) -> str | None:
    return default_engine([parse_policy(f"p{i}={spec}") for i, spec in enumerate(specs)])[0]


@pytest.mark.usefixtures("gpu")
def test_vllm_where_every_policy_suits_it(tmp_path: Path) -> None:
    good = model(tmp_path / "good")
    assert chosen(good) == "vllm"
    assert chosen(good, "recorded:outputs.json", "openai:m@http://localhost/v1") == "vllm"
    _, why = default_engine([parse_policy(good)])
    assert "--engine hf" in why
    assert chosen(good, f"{good}?device=cuda:0") is None
    assert chosen(good, f"{good}?adapter=lora") is None
    assert chosen(good, model(tmp_path / "small", weights=50)) is None
    assert chosen(good, model(tmp_path / "heads", num_attention_heads=8)) is None
    assert chosen(good, model(tmp_path / "gpt2", hidden_size=None, n_embd=256)) == "vllm"
    assert chosen(good, model(tmp_path / "rm", architectures=["LlamaForSequenceClassification"])) is None
    assert chosen(good, model(tmp_path / "t5", is_encoder_decoder=True)) is None
    assert chosen(good, str(tmp_path / "absent")) is None
    assert "--engine vllm" in default_engine([parse_policy(str(tmp_path / "small"))])[1]


def test_hf_without_vllm_or_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = parse_policy(model(tmp_path / "good"))
    monkeypatch.setattr(choice, "LARGE", 100)
    monkeypatch.setattr(choice, "accelerators", lambda: {"drivers": ["/dev/nvidiactl"]})
    monkeypatch.setattr(versions, "for_cuda", lambda: False)
    assert default_engine([policy]) == (None, "")
    monkeypatch.setattr(versions, "for_cuda", lambda: True)
    for found in ({"drivers": []}, {"drivers": ["/dev/nvidiactl"], "CUDA_VISIBLE_DEVICES": ""}):
        monkeypatch.setattr(choice, "accelerators", lambda found=found: found)
        assert default_engine([policy]) == (None, "")
