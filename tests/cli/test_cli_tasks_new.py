"""``alignbench tasks new``: the starter passes the check and runs, for every kind."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from alignbench.cli import tasks
from alignbench.cli.main import main
from alignbench.compare.results import read_results
from alignbench.pocket import base_path
from alignbench.tasks.types import Kind

KINDS = get_args(Kind)


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture
def reward_model(tmp_path: Path) -> Path:
    """The pocket base with a head that gives one number."""
    import transformers

    base = base_path()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model.save_pretrained(tmp_path / "rm")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "rm")
    return tmp_path / "rm"


def test_every_kind_can_be_asked_for() -> None:
    assert tasks.KINDS == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_writes_passes_the_check_and_runs(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    request: pytest.FixtureRequest,
) -> None:
    """The three commands that it prints, one after the other."""
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, "tasks", "new", "first_one", "--kind", kind, "--dir", "my tasks")
    assert (status, err) == (0, "")
    assert out.startswith("my tasks/first_one.yaml\nmy tasks/first_one.jsonl\n")
    commands = [shlex.split(line) for line in re.findall(r"^  alignbench (.*)$", out, flags=re.M)]
    assert [words[:2] for words in commands] == [
        ["tasks", "check"],
        ["tasks", "show"],
        ["eval", commands[2][1]],
    ]
    documents = 4 if kind == "preference" else 5
    status, out, _ = run(capsys, *commands[0])
    assert (status, out) == (0, f"my tasks/first_one.yaml: good; {documents} documents\n")
    status, out, _ = run(capsys, *commands[1])
    assert status == 0
    assert "between the bars" in out
    words = list(commands[2])
    if kind == "preference":
        assert words[1] == "REWARD_MODEL"
        words[1] = str(request.getfixturevalue("reward_model"))
    assert words[1] == "pocket" or kind == "preference"
    status, out, err = run(capsys, *words, "--out", "out")
    assert status == 0, err
    results = read_results(tmp_path / "out")
    assert {row.task for row in results.tasks} == {"first_one"}
    assert all(score.n == documents for row in results.tasks for score in row.scores.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_comments_name_keys_that_there_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    """Every commented-out line, made a line of the file, is still a good file (or wants code or a field)."""
    run(capsys, "tasks", "new", "first", "--kind", kind, "--dir", tmp_path)
    path = tmp_path / "first.yaml"
    text = path.read_text()
    assert "NAME" not in text
    commented = re.findall(r"^( *)# (-? ?\{?[a-z_]+: .*)$", text, flags=re.M)
    assert commented
    for indent, line in commented:
        path.write_text(text.replace(f"{indent}# {line}", f"{indent}{line}"))
        reports = json.loads(run(capsys, "tasks", "check", path, "--json")[1])
        unknown = [p for p in reports[0]["problems"] if "unknown key" in p or "YAML" in p or "write" in p]
        assert not unknown, (line, unknown)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rte", "the task name 'rte' is that of .*rte.yaml; choose another"),
        ("a b", "the task name 'a b' is none; write letters"),
        ("../up", "is none; write letters"),
        (".hidden", "is none"),
    ],
)
def test_names_that_cannot_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, says: str
) -> None:
    status, out, err = run(capsys, "tasks", "new", name, "--dir", tmp_path)
    assert (status, out) == (2, "")
    assert re.search(says, err)
    assert list(tmp_path.iterdir()) == []


def test_it_overwrites_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("precious")
    status, _, err = run(capsys, "tasks", "new", "mine", "--dir", tmp_path)
    assert status == 2
    assert err == (
        f"alignbench: {tmp_path}/mine.jsonl is there already, and is left as it is; "
        "choose another name, or --dir\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jsonl"]
    assert (tmp_path / "mine.jsonl").read_text() == "precious"
    status, _, err = run(capsys, "tasks", "new", "mine", "--dir", tmp_path / "mine.jsonl")
    assert status == 2
    assert "mine.jsonl is a file; name a folder" in err
