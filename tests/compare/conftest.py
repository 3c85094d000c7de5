"""Fixtures of compare's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_rules import ASKS, ASKS_PY, PICK, SUITE, SUMS, RuleEngine, Rules, add, write_jsonl


@pytest.fixture
def tasks_dir(tmp_path: Path) -> Path:
    """A folder with three toy tasks of 20 documents each; two of them in the suite ``default``."""
    folder = tmp_path / "tasks" / "toys"
    folder.mkdir(parents=True)
    for name, text in (("toy_sums.yaml", SUMS), ("toy_asks.yaml", ASKS), ("toy_pick.yaml", PICK)):
        (folder / name).write_text(text)
    (folder / "asks.py").write_text(ASKS_PY)
    (folder / "suites").mkdir()
    (folder / "suites" / "default.yaml").write_text(SUITE)
    numbers = [(i, i % 7, i % 5) for i in range(20)]
    write_jsonl(
        folder / "sums.jsonl",
        [{"id": f"s{i}", "a": a, "b": b, "answer": str(a + b)} for i, a, b in numbers],
    )
    write_jsonl(folder / "asks.jsonl", [{"id": f"a{i}", "ask": f"ask {i}: "} for i in range(20)])
    write_jsonl(
        folder / "pick.jsonl",
        [
            {"id": f"p{i}", "question": f"q{i}?", "choices": ["true", "myth"], "correct": [0]}
            for i in range(20)
        ],
    )
    return folder.parent


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rules:
    """``good`` sums right, is polite and picks the truth; ``bad`` does none of it."""
    found = Rules(tmp_path / "models")
    found.policy("good", lambda: RuleEngine("good", add, prefers=1.0))
    found.policy("bad", lambda: RuleEngine("bad", lambda prompt: " you fool", prefers=-1.0))
    monkeypatch.setattr("alignbench.engines.open_engine", found.open)
    return found
