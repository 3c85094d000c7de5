"""Tasks and suites of another package: a wheel, installed by pip, found by the command in a process of its
own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TASK = """\
task: {name}
area: nlp
kind: generate
description: Riddles of a package.
documents: make.py:rows
prompt: "{{{{ q }}}}"
target: a
metrics: [{{name: exact_match}}]
headline: exact_match
"""
FILES = {
    "riddle_tasks/__init__.py": '"""Riddles."""\n',
    "riddle_tasks/riddles/riddle_one.yaml": TASK.format(name="riddle_one"),
    "riddle_tasks/riddles/riddle_two.yaml": TASK.format(name="riddle_two"),
    "riddle_tasks/riddles/make.py": "def rows(seed):\n    return [{'q': 'What has keys?', 'a': 'a piano'}]\n",
    "riddle_tasks/suites/puzzles.yaml": (
        "suite: puzzles\ndescription: Riddles, and a shipped task.\ntasks: [riddles, rte]\n"
    ),
    "riddle_tasks/suites/pocket.yaml": "suite: pocket\ndescription: Ours.\ntasks: [riddle_one]\n",
    "riddle_tasks/suites/odd.yaml": "suite: odd\ndescription: D.\ntasks: [ridle_one]\n",
}
METADATA = "Metadata-Version: 2.1\nName: riddle-tasks\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
POINT = "[alignbench.tasks]\nriddles = riddle_tasks\n"


def build_wheel(folder: Path) -> Path:
    """A wheel by its specification: the files, three of metadata, and a RECORD with their hashes."""
    info = "riddle_tasks-1.0.dist-info"
    files = {**FILES, f"{info}/METADATA": METADATA, f"{info}/WHEEL": WHEEL, f"{info}/entry_points.txt": POINT}
    record = ""
    path = folder / "riddle_tasks-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(text.encode())}\n"
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that holds the wheel's."""
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("package")
    words = ["install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--target"]
    subprocess.run(
        [sys.executable, "-m", "pip", *words, str(folder / "site"), str(build_wheel(folder))],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return folder / "site"


def alignbench(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{installed}"}
    return subprocess.run(
        [sys.executable, "-m", "alignbench", *words],
        capture_output=True,
        text=True,
        env=env,
        cwd=installed,
        timeout=120,
    )


def listed(installed: Path, *words: str) -> dict[str, Any]:
    done = alignbench(installed, "tasks", "list", "--json", *words)
    assert done.returncode == 0, done.stderr
    return {row.get("task") or row["suite"]: row for row in json.loads(done.stdout)}


def test_its_tasks_are_listed_and_shown(installed: Path) -> None:
    rows = listed(installed)
    assert rows["riddle_one"]["family"] == "riddles"
    assert rows["riddle_one"]["suites"] == ["pocket", "puzzles"]
    assert rows["riddle_two"]["problem"] is None
    assert Path(rows["riddle_one"]["path"]).is_relative_to(installed)
    assert rows["truthfulqa_mc1"]["problem"] is None  # beside the shipped ones
    done = alignbench(installed, "tasks", "show", "riddle_one")
    assert done.returncode == 0, done.stderr
    assert "|What has keys?|" in done.stdout
    assert "riddle_tasks/riddles/make.py, which is code beside a task file" in done.stderr


def test_its_suites_are_found_and_join_those_of_their_name(installed: Path) -> None:
    suites = listed(installed, "--suites")
    assert suites["puzzles"]["tasks"] == ["riddle_one", "riddle_two", "rte"]
    assert suites["puzzles"]["description"] == "Riddles, and a shipped task."
    assert {"riddle_one", "pocket_truth"} <= set(suites["pocket"]["tasks"])
    assert suites["pocket"]["description"] != "Ours."  # the shipped one says what it is
    assert set(listed(installed, "puzzles")) == {"riddle_one", "riddle_two", "rte"}
    done = alignbench(installed, "tasks", "list", "odd")
    assert done.returncode == 2
    assert (
        "suites/odd.yaml, line 3: no task or family 'ridle_one' (did you mean 'riddle_one'?)" in done.stderr
    )
    assert done.stderr.count("\n") == 1


def test_its_tasks_run(installed: Path, tmp_path: Path) -> None:
    done = alignbench(
        installed,
        "eval",
        "pocket",
        "--tasks",
        "riddles",
        "--out",
        str(tmp_path / "out"),
        "--dry-run",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert [task["task"] for task in json.loads(done.stdout)["tasks"]] == ["riddle_one", "riddle_two"]


def test_nothing_of_it_is_left_without_the_package(tmp_path: Path) -> None:
    assert "riddle_one" not in listed(tmp_path)
