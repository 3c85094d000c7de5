"""Fixtures of the tests that run beside other programs, each in an environment of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from vllm_serving import serving

ENGINES = Path(__file__).resolve().parents[1] / "engines"


@pytest.fixture(scope="session")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model that ``vllm_server`` serves: a tiny Llama, whose head size vLLM knows."""
    sys.path.insert(0, str(ENGINES))
    from tiny_models import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("served")
    make_model("llama", head_dim=64, max_position_embeddings=256).save_pretrained(folder)
    make_tokenizer(bos=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vllm_server(served_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of vLLM's own server, which serves ``served_model`` under the name ``tiny``."""
    python = os.environ.get("ALIGNBENCH_VLLM_PYTHON")
    if not python:
        pytest.skip("vLLM is absent: set ALIGNBENCH_VLLM_PYTHON to a Python that has it")
    with serving(python, served_model, tmp_path_factory.mktemp("server") / "server.log") as url:
        yield url
