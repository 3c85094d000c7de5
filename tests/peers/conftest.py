"""Fixtures of the tests that run beside other programs, each in an environment of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers.processors import TemplateProcessing
from vllm_serving import serving

from alignbench.pocket import base_path

NAME = "pocket"
"""What ``vllm_server`` calls ``served_model``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that need vLLM's server run in one worker, so that it is started once."""
    for item in items:
        if "vllm_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("vllm_server"))


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """A Python that has vLLM."""
    python = os.environ.get("ALIGNBENCH_VLLM_PYTHON")
    if not python:
        pytest.skip("vLLM is absent: set ALIGNBENCH_VLLM_PYTHON to a Python that has it")
    return python


@pytest.fixture(scope="session")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model that ``vllm_server`` serves: the pocket base, which has skills to measure, with
    a tokenizer that puts BOS in front, as many have."""
    folder = tmp_path_factory.mktemp("served") / "model"
    shutil.copytree(base_path(), folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = end = tokenizer.eos_token
    special = [(end, tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{end} $A", special_tokens=special
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vllm_server(
    vllm_python: str, served_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The base URL of vLLM's own server, which serves ``served_model`` under ``NAME``."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with serving(vllm_python, served_model, log, NAME) as url:
        yield url


@pytest.fixture(params=["gpt2", "qwen2"])
def other_served(
    request: pytest.FixtureRequest, vllm_python: str, served_model: Path, tmp_path: Path
) -> Iterator[tuple[str, Path]]:
    """A server's base URL, and the folder of what it serves under ``NAME``: a random model of another
    architecture with the pocket tokenizer. Its weights are large, so that no two tokens are nearly as
    likely."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(served_model)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    common = {"vocab_size": len(tokenizer), "initializer_range": 0.2, "tie_word_embeddings": True, **ends}
    if request.param == "gpt2":
        config = transformers.GPT2Config(n_embd=64, n_layer=2, n_head=2, n_positions=256, **common)
    else:
        config = transformers.Qwen2Config(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
            **common,
        )
    torch.manual_seed(0)
    folder = tmp_path / request.param
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with serving(vllm_python, folder, tmp_path / "server.log", NAME) as url:
        yield url, folder
