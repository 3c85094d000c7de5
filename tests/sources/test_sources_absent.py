"""Data that are nowhere: told from a mistake, and a hub that is not there is waited for once."""

from __future__ import annotations

from typing import Any

import pytest

from alignbench.errors import DataAbsentError, UsageError
from alignbench.sources import hub, load_rows


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No connection; the names that were asked for all the same."""
    asked: list[str] = []

    def dataset_info(self: Any, name: str, **_: Any) -> None:
        asked.append(name)
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    monkeypatch.setattr(hub, "_UNREACHABLE", [])
    return asked


def test_a_hub_that_is_not_there_is_waited_for_once(unreachable: list[str]) -> None:
    for name in ("org/one", "org/two", "org/three"):
        with pytest.raises(LookupError, match="no connection, and not in its cache"):
            hub.hub_rows(name, "test", None, None, ())
    assert unreachable == ["org/one"]


def test_data_that_is_nowhere_is_told_from_a_mistake(unreachable: list[str], tmp_path: Any) -> None:
    with pytest.raises(DataAbsentError, match="data 'org/one' not found"):
        load_rows("org/one", mirror=tmp_path)
    with pytest.raises(DataAbsentError, match=r"data 'none.jsonl' not found"):
        load_rows("none.jsonl", mirror=tmp_path)
    (tmp_path / "odd.jsonl").write_text("{")
    with pytest.raises(UsageError, match="mend this line") as caught:
        load_rows(str(tmp_path / "odd.jsonl"))
    assert not isinstance(caught.value, DataAbsentError)
