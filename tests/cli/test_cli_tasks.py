"""``alignbench tasks``, through the command's own entry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignbench.cli.main import main

TASK = """\
task: capitals
area: nlp
kind: multiple_choice
description: Capitals.
data: {hub: rows.jsonl}
prompt: |
  Q: {{ question }}
  A:
choices: "[right, wrong]"
correct: "[0]"
metrics: [{name: accuracy, chance: uniform}]
headline: accuracy
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "capitals.yaml").write_text(TASK)
    (tmp_path / "rows.jsonl").write_text('{"question": "France?", "right": "Paris", "wrong": "Rome"}\n')
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["tasks", *map(str, args)])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def test_list_shows_shipped_own_and_broken(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "broken.yaml").write_text("task: broken\n")
    status, out, _ = run(capsys, "list", "--tasks-dir", folder, "--json")
    rows = {row["task"]: row for row in json.loads(out)}
    assert status == 0
    assert rows["capitals"]["problem"] is None
    assert rows["truthfulqa_mc1"]["area"] == "truthfulness"
    assert "is missing" in rows["broken"]["problem"]
    status, out, _ = run(capsys, "list", "--tasks-dir", folder)
    assert status == 0
    lines = out.splitlines()
    assert any(line.startswith("  broken ") and "is missing" in line for line in lines)
    # by family: the two files of the folder under its name, the shipped ones under theirs
    at = {line.split()[0]: number for number, line in enumerate(lines) if line.startswith("  ")}
    heads = [number for number, line in enumerate(lines) if line and not line.startswith(" ")]
    family = {name: lines[max(head for head in heads if head < number)] for name, number in at.items()}
    assert family["capitals"] == family["broken"] == folder.name
    assert (family["sst2_5shot"], family["truthfulqa_mc1"]) == ("nlp", "truthfulqa")
    assert [lines[head] for head in heads] == sorted(lines[head] for head in heads)


def test_show_prints_the_prompt_exactly(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    status, out, _ = run(capsys, "show", "capitals", "--tasks-dir", folder)
    assert status == 0
    assert "|Q: France?\nA:|\n--- then\n| Paris|\n--- then\n| Rome|\n" in out
    facts = json.loads(run(capsys, "show", "capitals", "--tasks-dir", folder, "--json")[1])
    assert facts["prompt"]["text"] + facts["prompt"]["continuations"][0] == "Q: France?\nA: Paris"
    assert facts["metrics"][0]["chance"] == 0.5


def test_show_says_the_levels_in_words(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "capitals.yaml").write_text(TASK + "notes: >-\n  " + "many words " * 30 + "\n")
    out = run(capsys, "show", "capitals", "--tasks-dir", folder)[1]
    assert "metric accuracy        higher is better, chance 50.0 %, majority 100.0 %\n" in out
    assert "\n                       many words" in out  # wrapped


def test_show_docs(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    rows = json.loads(run(capsys, "show", "capitals", "--tasks-dir", folder, "--docs", "--json")[1])
    assert rows[0]["doc_id"] == "00000"
    assert rows[0]["correct"] == [0]
    assert run(capsys, "show", "capitals", "--tasks-dir", folder, "--docs")[1].startswith("00000\tQ: France?")


def test_check(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run(capsys, "check", folder) == (0, f"{folder}/capitals.yaml: good; 1 documents\n", "")
    (folder / "capitals.yaml").write_text(TASK.replace("area:", "aera:"))
    status, out, _ = run(capsys, "check", folder / "capitals.yaml")
    assert status == 2
    assert "line 2: unknown key 'aera' (did you mean 'area'?)" in out
    assert "key 'area' is missing" in out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["show", "truthfulqa_mc3"], "did you mean 'truthfulqa_mc"),
        (["show", "truthfulqa"], "show one of truthfulqa_gen, truthfulqa_gen_instruction"),
        (["show", "truthfulqa_mc1"], "--data DIR"),
        (["list", "--tasks-dir", "/no/such/folder"], "does not exist"),
        (["check", "/no/such/folder"], "does not exist"),
    ],
)
def test_bad_input_is_one_sentence(capsys: pytest.CaptureFixture[str], args: list[str], says: str) -> None:
    status, out, err = run(capsys, *args)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
