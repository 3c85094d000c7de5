"""Fixtures of the engines' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faulty_server import FaultyServer
from tiny_models import FAMILIES, make_model, make_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="session")
def family_models() -> dict[str, Any]:
    """Causal models, one a family; read-only."""
    return {family: make_model(family) for family in FAMILIES}


@pytest.fixture
def llama(family_models: dict[str, Any]) -> Any:
    return family_models["llama"]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FaultyServer]]:
    """Starts servers; clients have no key, and do not wait before they try again."""
    monkeypatch.setattr("alignbench.engines.servers.client.pause", lambda seconds, closing: None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running: list[FaultyServer] = []

    def start(**behaviour: Any) -> FaultyServer:
        running.append(FaultyServer(**behaviour).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__()
