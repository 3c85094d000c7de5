"""``alignbench tasks``, through the command's own entry."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from alignbench.cli.main import main
from alignbench.tasks.registry import tasks_root

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
    *families, suites = [lines[head] for head in heads]
    assert families == sorted(families)
    assert suites.startswith("Suites")
    assert any(line.startswith("  pocket") and "16 tasks" in line for line in lines)


SUITE = "suite: school\ndescription: All of school.\ntasks: [capitals, 'lambada*']\n"


def test_list_of_what_was_asked_for(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "suites").mkdir()
    (folder / "suites" / "school.yaml").write_text(SUITE)
    (folder / "suites" / "odd.yaml").write_text("suite: odd\ntasks: 3\n")
    dirs = ("--tasks-dir", folder, "--json")
    for asked, found in (
        (["school"], {"capitals", "lambada", "lambada_perplexity"}),
        (["truthfulqa", "capitals"], {"capitals", *(p.stem for p in tasks_root().glob("truthfulqa/*.yaml"))}),
        (["lambada*,capitals"], {"lambada", "lambada_perplexity", "capitals"}),
    ):
        status, out, _ = run(capsys, "list", *asked, *dirs)
        rows = {row["task"]: row for row in json.loads(out)}
        assert (status, set(rows)) == (0, found)
        assert rows["capitals"]["suites"] == ["school"]
    assert run(capsys, "list", "school", "--tasks-dir", folder)[1].count("school  ") == 3
    status, out, err = run(capsys, "list", "schol", *dirs)
    assert (status, out) == (2, "")
    assert "no task, family or suite 'schol' (did you mean 'school'?)" in err
    status, _, err = run(capsys, "list", "odd", *dirs)
    assert status == 2
    assert "key 'description' is missing" in err


def test_list_of_suites(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "suites").mkdir()
    (folder / "suites" / "school.yaml").write_text(SUITE)
    (folder / "suites" / "odd.yaml").write_text("suite: odd\ntasks: 3\n")
    dirs = ("--suites", "--tasks-dir", folder)
    rows = {row["suite"]: row for row in json.loads(run(capsys, "list", *dirs, "--json")[1])}
    assert set(rows) >= {"default", "pocket", "school", "odd"}
    assert rows["school"] == {
        "suite": "school",
        "description": "All of school.",
        "tasks": ["capitals", "lambada", "lambada_perplexity"],
        "path": str(folder / "suites" / "school.yaml"),
        "problem": None,
    }
    assert "line 2: 'tasks': write a list" in rows["odd"]["problem"] or "missing" in rows["odd"]["problem"]
    text = run(capsys, "list", "school", *dirs)[1]
    assert text == "  school  3 tasks  All of school.\n    capitals, lambada, lambada_perplexity\n"
    assert re.search(r"^  odd +broken", run(capsys, "list", *dirs)[1], re.MULTILINE)
    status, _, err = run(capsys, "list", "scholl", *dirs)
    assert status == 2
    assert "no suite 'scholl' (did you mean 'school'?)" in err


SCORED = """\
task: answers
area: truthfulness
kind: generate
description: Answers.
data: {hub: rows.jsonl}
prompt: "{{ question }}"
target: right
generation: {samples: 4, temperature: 1.0}
metrics:
  - {name: exact_match}
  - {name: polite, scorer: toxicity, higher_is_better: false}
  - {name: true_share, scorer: truth}
headline: [true_share, exact_match]
scorers:
  truth: {prompt: "{{ question }} {{ output }}", yes: " yes"}
canary: "canary 1234"
do_not_train: The authors ask not to train on it.
"""


def test_show_says_what_scores_and_how_often(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "answers.yaml").write_text(SCORED)
    (folder / "rows.jsonl").write_text('{"question": "a?", "right": "1"}\n{"question": "b?", "right": "2"}\n')
    facts = json.loads(run(capsys, "show", "answers", "--tasks-dir", folder, "--json")[1])
    assert (facts["samples"], facts["documents"], facts["requests"]) == (4, 2, 8)
    assert facts["headlines"] == ["true_share", "exact_match"]
    assert facts["scorers"] == [
        {"name": "toxicity", "metrics": ["polite"], "default": "offline", "question": False},
        {"name": "truth", "metrics": ["true_share"], "default": None, "question": True},
    ]
    assert (facts["canary"], facts["do_not_train"][:11]) == ("canary 1234", "The authors")
    out = run(capsys, "show", "answers", "--tasks-dir", folder)[1]
    lines = {line[:22].strip(): line[23:] for line in out.splitlines()}
    words = " ".join(out.split())
    assert lines["samples"] == "4 outputs a document"
    assert lines["requests"] == "8"
    assert "headline true_share (with --scorer truth=SPEC), else exact_match" in words
    assert "scorer toxicity offline; another with --scorer toxicity=hf:MODEL|recorded" in words
    assert (
        "scorer truth none by default, and true_share is left out; "
        "give --scorer truth=hf:MODEL|judge:POLICY|recorded" in words
    )
    assert "metric polite lower is better, by the scorer toxicity" in words
    assert "canary canary 1234" in words
    assert "do not train The authors ask not to train on it." in words


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
    assert run(capsys, "check", folder) == (0, f"{folder}/capitals.yaml: good; 1 document\n", "")
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
