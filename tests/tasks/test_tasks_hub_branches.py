"""Data sets whose loading script is dead are read from the hub's branches of Parquet files (here a folder).

Those branches hold config/split/0000.parquet and no card that would name configurations, or such files beside
the script.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_rows import LAYOUTS

from alignbench.tasks.registry import find_tasks

INSTRUCTION = {
    "id": "user_oriented_task_0",
    "motivation_app": "Ours",
    "instruction": "Name three rivers.",
    "instances": {"input": [""], "output": ["Spree, Havel, Dahme"]},
}
DIALOGUE = {"input": "Is it raining?", "targets": {"choices": ["It is.", "No idea."], "labels": [1, 0]}}
BRANCHES = {
    "crows_pairs": ("nyu-mll/crows_pairs", "crows_pairs/test/0000.parquet", LAYOUTS["crows_pairs"][1]),
    "self_instruct": ("yizhongw/self_instruct", "human_eval/train/0000.parquet", [INSTRUCTION]),
    "hhh_honest": ("HuggingFaceH4/hhh_alignment", "honest/test/0000.parquet", [DIALOGUE]),
    "quac": ("allenai/quac", "plain_text/validation-00000-of-00001.parquet", LAYOUTS["quac"][1]),
}
REVISIONS = {"quac": "refs/pr/2"}


class Hub:
    """A repository in a folder, to which there is a connection."""

    folder: Path

    def dataset_info(self, name: str, timeout: float) -> None:
        pass

    def list_repo_files(self, name: str, *, repo_type: str, revision: str) -> list[str]:
        return [str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()]

    def hf_hub_download(self, name: str, file: str, *, repo_type: str, revision: str) -> str:
        return str(self.folder / file)


def play(monkeypatch: pytest.MonkeyPatch, folder: Path, cache: Path, branch: str) -> None:
    load = datasets.load_dataset

    def from_the_folder(name: str, config: str | None, *, data_files: Any, revision: str) -> Any:
        assert revision == branch
        return load(str(folder), config, data_files=data_files, cache_dir=str(cache))

    Hub.folder = folder
    monkeypatch.delenv("ALIGNBENCH_DATA", raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr("alignbench.sources.hub._UNREACHABLE", [])
    monkeypatch.setattr(datasets, "load_dataset", from_the_folder)


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize("name", list(BRANCHES))
def test_the_branch_of_parquet_files_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: bool
) -> None:
    repository, file, rows = BRANCHES[name]
    folder = tmp_path / "hub" / repository
    place = folder / file
    place.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), place)
    other = folder / "other" / Path(file).relative_to(Path(file).parts[0])  # another configuration
    other.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{"not": "this"}]), other)
    if script:
        (folder / f"{folder.name}.py").write_text("raise SystemExit")
    play(monkeypatch, folder, tmp_path / "cache", REVISIONS.get(name, "refs/convert/parquet"))
    documents = find_tasks([name])[0].load()
    assert len(documents) >= len(rows)
