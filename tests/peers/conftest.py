"""Fixtures of the tests that run beside other programs, each in an environment of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers
from tokenizers.processors import TemplateProcessing
from vllm_serving import serving

from alignbench.pocket import base_path

NAME = "pocket"
"""What ``vllm_server`` calls ``served_model``."""


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
