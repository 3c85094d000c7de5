"""Data sets whose loading script is dead are read from the hub's branch of Parquet files, played by a folder:
config/split/0000.parquet, and no card that would name configurations."""

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
    "crows_pairs": ("nyu-mll/crows_pairs/crows_pairs/test", LAYOUTS["crows_pairs"][1]),
    "self_instruct": ("yizhongw/self_instruct/human_eval/train", [INSTRUCTION]),
    "hhh_honest": ("HuggingFaceH4/hhh_alignment/honest/test", [DIALOGUE]),
}


class Hub:
    """There is a connection."""

    def dataset_info(self, name: str, timeout: float) -> None:
        pass


@pytest.mark.parametrize("name", list(BRANCHES))
def test_the_branch_of_parquet_files_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place, rows = BRANCHES[name]
    folder = tmp_path / "hub" / place
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "0000.parquet")
    other = folder.parent.parent / "other" / folder.name  # another configuration, of other columns
    other.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{"not": "this"}]), other / "0000.parquet")
    load = datasets.load_dataset

    def from_the_folder(of: str, config: str | None, *, data_files: Any, revision: str) -> Any:
        assert revision == "refs/convert/parquet"
        where, cache = tmp_path / "hub" / of, tmp_path / "cache"
        return load(str(where), config, data_files=data_files, cache_dir=str(cache))

    monkeypatch.delenv("ALIGNBENCH_DATA", raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr("alignbench.sources.hub._UNREACHABLE", [])
    monkeypatch.setattr(datasets, "load_dataset", from_the_folder)
    assert len(find_tasks([name])[0].load()) == len(rows)
