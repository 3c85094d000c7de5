"""The hub, as far as it can be played: files beside a loading script, which ``datasets`` refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest

from alignbench.errors import UsageError
from alignbench.sources import load_rows

REFUSED = "Dataset scripts are no longer supported, but found alpaca_eval.py"


class Hub:
    """A repository in a folder."""

    folder: Path
    asked: list[tuple[str, str | None]]

    def dataset_info(self, name: str, timeout: float) -> None:
        """There is a connection."""

    def list_repo_files(self, name: str, *, repo_type: str, revision: str | None) -> list[str]:
        self.asked.append((name, revision))
        return [str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()]

    def hf_hub_download(self, name: str, file: str, *, repo_type: str, revision: str | None) -> str:
        self.asked.append((file, revision))
        return str(self.folder / file)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    (tmp_path / "deep").mkdir()
    for file, word in (("one.json", "1"), ("deep/one.json", "2"), ("other.json", "3"), ("x.py", "4")):
        (tmp_path / file).write_text(json.dumps([{"word": word}]))
    Hub.folder, Hub.asked = tmp_path, []
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr("alignbench.sources.hub._UNREACHABLE", [])

    def refuse(*given: Any, **named: Any) -> None:
        raise RuntimeError(REFUSED)

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    return Hub


def test_files_beside_a_script_are_read(hub: type[Hub]) -> None:
    assert load_rows("org/name", files=["none.json", "one.json"], revision="abc") == [{"word": "1"}]
    assert hub.asked[-1] == ("one.json", "abc")
    assert {revision for _, revision in hub.asked} == {"abc"}
    assert load_rows("org/name", files=["*.json"]) == [{"word": "1"}, {"word": "3"}]
    assert load_rows("org/name", files=["deep/*.json"]) == [{"word": "2"}]


def test_without_files_the_hubs_reason_is_said(hub: type[Hub]) -> None:
    with pytest.raises(UsageError, match=f"the hub .{REFUSED}"):
        load_rows("org/name")
    with pytest.raises(UsageError, match=f"the hub .{REFUSED}"):
        load_rows("org/name", files=["none.json"])
    assert all(file.startswith("org/") for file, _ in hub.asked)


def test_another_refusal_is_none_of_it(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(*given: Any, **named: Any) -> None:
        raise RuntimeError("a gated dataset")

    monkeypatch.setattr(datasets, "load_dataset", gated)
    with pytest.raises(UsageError, match=r"the hub \(a gated dataset\)"):
        load_rows("org/name", files=["one.json"])
    assert hub.asked == []
