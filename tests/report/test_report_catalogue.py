"""What a folder holds: found, read once for each state, sorted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.report import catalogue
from alignbench.report.catalogue import RUN_COLUMNS, Catalogue, arrange, natural
from alignbench.report.entries import Figure, RunEntry, TrainingEntry, Unread


@pytest.fixture
def root(folder: Path, tmp_path: Path) -> Path:
    for name in ("a/run", "b"):
        (tmp_path / name).mkdir(parents=True)
        for file in ("results.json", "run.json"):
            shutil.copy(folder / file, tmp_path / name)
    return tmp_path


def test_a_run_is_read_once_for_each_state(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = catalogue.read_run
    monkeypatch.setattr(catalogue, "read_run", lambda folder: read.append(folder) or real(folder))
    held = Catalogue(root)
    held.scan()
    held.scan()
    assert isinstance(held.find("b"), RunEntry)
    assert len(read) == 2
    path = root / "b" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"verdict": "changed"}))
    os.utime(path, ns=(1, 1))
    entry = held.find("b")
    assert isinstance(entry, RunEntry)
    assert entry.verdict == "changed"
    assert len(read) == 3


def test_runs_come_and_go(root: Path) -> None:
    held = Catalogue(root)
    assert [entry.key for entry in held.scan()] == ["a/run", "b"]
    shutil.rmtree(root / "b")
    (root / "a" / "stopped").mkdir()
    (root / "c" / "notes").mkdir(parents=True)  # empty too, but no place of runs
    assert [entry.key for entry in held.scan()] == ["a/run", "a/stopped"]
    assert held.find("b") is None
    empty = held.find("a/stopped")
    assert isinstance(empty, Unread)
    assert "stopped" in empty.error


def test_a_run_whose_folder_vanished_after_the_scan(root: Path) -> None:
    held = Catalogue(root)
    held.scan()
    shutil.rmtree(root / "b")
    assert not isinstance(held.find("b"), RunEntry)


def test_one_broken_folder_hides_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = "[" * 100_000
    (root / "a" / "run" / "results.json").write_text(deep)
    for name, record, line in (("c", deep, "{}"), ("d", '{"config": {}, "kind": "sft"}', deep)):
        (root / name).mkdir()
        (root / name / "run.json").write_text(record)
        (root / name / "metrics.jsonl").write_text('{"step": 3}\n' + line[:50_000])  # within the tail
    shutil.copytree(root / "b", root / "e")
    (root / "e" / "run.json").write_text(deep)  # a manifest is a courtesy
    shutil.copytree(root / "b", root / "f")
    (root / "g").mkdir()
    (root / "g" / "results.json").symlink_to("results.json")  # a circle
    real = catalogue.read_run

    def read(folder: Path) -> Any:
        if folder.name == "f":
            raise ZeroDivisionError("a fault nobody thought of")
        return real(folder)

    monkeypatch.setattr(catalogue, "read_run", read)
    held = Catalogue(root)
    entries = {entry.key: entry for entry in held.scan()}
    kinds = {key: type(entry) for key, entry in entries.items()}
    assert kinds == {
        "a/run": Unread,
        "b": RunEntry,
        "c": Unread,
        "d": TrainingEntry,
        "e": RunEntry,
        "f": Unread,
        "g": Unread,
    }
    said = {key: entry.error for key, entry in entries.items() if isinstance(entry, Unread)}
    assert "results.json is not JSON" in said["a/run"]
    assert "run.json or metrics.jsonl cannot be read" in said["c"]
    assert "ZeroDivisionError: a fault nobody thought of" in said["f"]
    assert isinstance(entries["d"], TrainingEntry)
    assert entries["d"].step == 3
    assert isinstance(held.find("f"), Unread)


def test_links_within_the_root_are_followed_but_not_out_of_it(root: Path, folder: Path) -> None:
    (root / "b" / "samples.parquet").symlink_to(root / "a" / "run" / "results.json")
    held = Catalogue(root)
    held.scan()
    assert isinstance(held.find("b"), RunEntry)
    (root / "b" / "preferences.parquet").symlink_to(folder / "preferences.parquet")
    entry = held.find("b")
    assert isinstance(entry, Unread)
    assert "leads out" in entry.error


def entry(key: str, date: str, win: float | None) -> RunEntry:
    preferred = None if win is None else Figure(win, None, "")
    return RunEntry(key, Path(key), date, "compare", "", (), (), (), 1, 0, preferred, None, (), ())


ENTRIES = [entry("seed10", "2026-01-02", 0.4), entry("seed2", "2026-01-03", None), entry("seed1", "", 0.6)]


@pytest.mark.parametrize(
    ("asked", "order"),
    [
        ("", ["seed2", "seed10", "seed1"]),  # the newest first, unknown last
        ("zebra", ["seed2", "seed10", "seed1"]),
        ("date", ["seed10", "seed2", "seed1"]),
        ("name", ["seed1", "seed2", "seed10"]),
        ("-name", ["seed10", "seed2", "seed1"]),
        ("-win", ["seed1", "seed10", "seed2"]),
        ("win", ["seed10", "seed1", "seed2"]),
        ("documents", ["seed1", "seed2", "seed10"]),  # equal: by name
    ],
)
def test_order(asked: str, order: list[str]) -> None:
    assert [found.key for found in arrange(ENTRIES, RUN_COLUMNS, asked)] == order


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.text(max_size=6))
def test_numbers_in_names_are_compared_as_numbers(i: int, j: int, name: str) -> None:
    assert (natural(f"{name}-{i}") < natural(f"{name}-{j}")) == (i < j)
