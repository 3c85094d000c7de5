"""Fixtures that every room shares."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# how long an example takes says more about the machine's load than about the code
hypothesis.settings.register_profile(
    "alignbench", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("alignbench")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; before torch is imported

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("ALIGNBENCH_NATIVE", str(ROOT / "build" / "native"))  # compiled once, not in every home


@pytest.fixture(autouse=True)
def _own_workspace(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's ledger, and none reaches for a hub."""
    monkeypatch.setenv("ALIGNBENCH_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("ALIGNBENCH_DATA", raising=False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data that lies beside a development checkout."""
    folder = Path(os.environ.get("ALIGNBENCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real data is absent: set ALIGNBENCH_TEST_DATA to a folder that holds it")
    return folder
