"""``tasks check``: every problem of a file, each with its line and the mend; suites' files too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alignbench.tasks import check, registry
from alignbench.tasks.check import check_path
from alignbench.tasks.registry import tasks_root

TASK = """\
task: riddles
area: truthfulness
kind: generate
description: Riddles.
data: {hub: rows.jsonl}
prompt: "{{ question }}"
target: answer
generation:
  samples: 3
  temperature: 0.7
metrics:
  - name: exact_match
  - name: true_share
    scorer: truth
    summary: mean
  - name: both
    scorer: [truth, info]
    function: code.py:both
headline: [both, true_share, exact_match]
scorers:
  truth:
    prompt: "{{ question }} {{ output }} True?"
    yes: " yes"
few_shot: {n: 1}
"""
CODE = "def both(fields, outputs, scores):\n    return 1.0\n\n\ndef sums(fields, output):\n    return [1.0]\n"
ROWS = '{"question": "One?", "answer": "1"}\n{"question": "Two?", "answer": "2"}\n'
BROKEN = "\n\ndef broken(row):\n    return row['none']\n\n\ndef empty(rows):\n    return []\n"
SUITE = "suite: mine\ndescription: Mine.\ntasks:\n  - riddles\n  - riddles*\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One task with everything that a task of kind generate can have; the shipped ones are out of the way."""
    (tmp_path / "none").mkdir()
    for module in (registry, check):
        monkeypatch.setattr(module, "tasks_root", lambda: tmp_path / "none")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "riddles.yaml").write_text(TASK)
    (tmp_path / "mine" / "code.py").write_text(CODE)
    (tmp_path / "mine" / "rows.jsonl").write_text(ROWS)
    return tmp_path / "mine"


def problems(folder: Path, old: str = "", new: str = "") -> list[str]:
    assert old in TASK
    path = folder / "riddles.yaml"
    path.write_text(TASK.replace(old, new, 1) if old else TASK)
    (report,) = check_path(path)
    found: list[str] = report["problems"]
    assert all(problem.startswith(str(path)) for problem in found)
    return [problem.removeprefix(str(path)) for problem in found]


def test_the_whole_is_good(folder: Path) -> None:
    assert problems(folder) == []
    (report,) = check_path(folder / "riddles.yaml")
    assert (report["status"], report["task"], report["suite"]) == ("good; 2 documents", "riddles", None)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("samples: 3", "samples: 0", ", line 9: 'generation.samples': input should be greater than or equal"),
        ("samples: 3", "samples: many", ", line 9: 'generation.samples': write a whole number, not 'many'"),
        ("samples: 3", "sample: 3", ", line 9: unknown key 'generation.sample' (did you mean 'samples'?)"),
        ("  temperature: 0.7\n", "", ", line 9: 'generation.samples' draws outputs; give 'generation.temper"),
        (
            "scorer: truth\n",
            "scorer: 3\n",
            ", line 14: 'metrics.1.scorer': write text in quotes or a list, not 3",
        ),
        ("scorer: truth\n", "scorer: tr-uth\n", ", line 14: metric 'true_share': the scorer's name 'tr-uth'"),
        ("scorer: truth\n", "scorer: []\n", ", line 14: metric 'true_share': the list of scorers is empty"),
        (
            "    scorer: truth\n",
            "    scorrer: truth\n",
            ", line 14: unknown key 'metrics.1.scorrer' (did you ",
        ),
        (
            "summary: mean",
            "summary: median",
            ", line 15: 'metrics.1.summary': write 'mean', 'max' or 'any' ",
        ),
        ("summary: mean", "summary: men", "not 'men'"),
        (
            "    scorer: truth\n",
            "",
            ", line 14: metric 'true_share': 'summary' is of a scorer's scores; it ne",
        ),
        (
            "code.py:both",
            "code.py:both\n    summary: max",
            ", line 19: metric 'both': 'summary' is of a scor",
        ),
        (
            "    function: code.py:both\n",
            "",
            ", line 17: metric 'both' has 2 scorers; say with 'function' wh",
        ),
        ("code.py:both", "code.py:bot", ", line 18: code.py has no function 'bot' (did you mean 'both'?)"),
        ("code.py:both", "kode.py:both", ", line 18: 'kode.py:both' names no file; put kode.py beside"),
        ("code.py:both", "both", ", line 18: 'metrics.2.function': write file.py:function, of a file beside"),
        (
            "code.py:both",
            "code.py:both\n    combine: code.py:sums",
            ", line 19: metric 'both': 'combine' goes",
        ),
        (
            "code.py:both",
            "code.py:both\n    combine: code.py:non",
            ", line 17: metric 'both': 'combine' goes",
        ),
        (
            "code.py:both",
            "code.py:both\n    combine: ratioo",
            ", line 19: metric 'both': 'combine' 'ratioo' is neither file.py:function nor built in (did you",
        ),
        ("summary: mean", "combine: code.py:sums", ", line 15: metric 'true_share': 'combine' needs 'functi"),
        ("[both, true_share, exact_match]", "[bot]", ", line 19: headline 'bot' is none of the metrics (did"),
        (
            "[both, true_share, exact_match]",
            "[exact_match, both]",
            ", line 19: headline 'both' never counts,",
        ),
        (
            "[both, true_share, exact_match]",
            "[]",
            ", line 19: 'headline' is missing: name one of exact_match",
        ),
        (
            "[both, true_share, exact_match]",
            "{a: b}",
            ", line 19: 'headline': write text or a list, not {'a'",
        ),
        (
            "  truth:\n",
            "  trut:\n",
            ", line 21: no metric has the scorer 'trut' (did you mean 'truth'?); write",
        ),
        (
            "    prompt:",
            "    promt:",
            ", line 22: unknown key 'scorers.truth.promt' (did you mean 'prompt'?)",
        ),
        ("    prompt:", "    promt:", ", line 21: key 'scorers.truth.prompt' is missing; add it"),
        (
            "{{ output }} True?",
            "{{ output } True?",
            ", line 22: 'scorers.truth.prompt': not a valid template",
        ),
        ('yes: " yes"', "yes: true", ", line 23: 'scorers.truth.yes': write text in quotes, not True"),
        ("scorers:\n", "scorer:\n", ", line 20: unknown key 'scorer' (did you mean 'scorers'?)"),
        (
            "few_shot: {n: 1}",
            "few_shot: {n: 1, file: [x]}",
            ", line 24: unknown key 'few_shot.file' (did you",
        ),
        (
            "few_shot: {n: 1}",
            "few_shot: {n: 1, files: x}",
            ", line 24: 'few_shot.files': write a list, not 'x'",
        ),
        ("kind: generate", "kind: generates", ", line 3: 'kind': write 'generate', 'multiple_choice', "),
        ("kind: generate", "kind: generates", "(did you mean 'generate'?), not 'generates'"),
        ("target: answer", "target: '{{ answer'", ", line 7: 'target': not a valid template"),
        (
            "target: answer",
            "target: answer\nreferences: '[answer'",
            ", line 8: 'references': not a valid expression",
        ),
        (
            "{{ question }}",
            "{{ qestion }}",
            "prompt: 'qestion' is undefined; the fields are question, answer",
        ),
    ],
)
def test_what_where_and_the_mend(folder: Path, old: str, new: str, says: str) -> None:
    found = problems(folder, old, new)
    assert any(says in problem for problem in found), found


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("kind: generate", "kind: loglikelihood", r"line 8: 'generation' is for kind generate"),
        ("kind: generate", "kind: loglikelihood", r"line 14: metric 'true_share': a scorer reads outputs"),
        ("name: exact_match", "name: both", r"line 16: two metrics have the name 'both'; rename one"),
        ("target: answer\n", "", r"line 23: 'few_shot' needs 'target'"),
        ("data: {hub: rows.jsonl}", "documents: code.py:rows\njudge: x", r"code.py has no function 'rows'"),
        ("description:", "documents: code.py:rows\ndescription:", r"line 4: give either 'data' .* not both"),
    ],
)
def test_keys_that_do_not_go_together(folder: Path, old: str, new: str, says: str) -> None:
    found = problems(folder, old, new)
    assert any(re.search(says, problem) for problem in found), found


def test_a_statistic_of_sums_is_of_one_output(folder: Path) -> None:
    (problem,) = problems(folder, "name: exact_match", "name: bleu")[:1]
    assert problem.startswith(", line 12: metric 'bleu' is a statistic of sums and goes with one out")


def test_every_problem_is_named(folder: Path) -> None:
    text = TASK.replace("code.py:both", "code.py:bot").replace('"{{ question }}"', '"{{ question"')
    (folder / "riddles.yaml").write_text(text.replace("True?", "{{ True?"))
    (report,) = check_path(folder / "riddles.yaml")
    lines = [re.search(r", line (\d+): ", problem) for problem in report["problems"]]
    assert sorted(int(line[1]) for line in lines if line) == [6, 18, 22]
    assert report["status"] == "3 problems"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("prepare: code.py:broken", "line 25: code.py:broken fails on row 0 (KeyError: 'none')"),
        ("arrange: code.py:empty", "line 25: code.py:empty must give a list of mappings"),
        ("where: question == 'None?'", "line 25: where: \"question == 'None?'\" holds for no row"),
        ("where: 'question =='", "line 25: 'where': not a valid expression"),
        ("doc_id: '{{ answer | length }}'", "line 25: doc_id: two documents have the id '1'"),
        ("references: answer", "line 25: references: expected a list, got '1'"),
    ],
)
def test_a_problem_of_the_data_has_its_keys_line(folder: Path, line: str, says: str) -> None:
    (folder / "code.py").write_text(CODE + BROKEN)
    (folder / "riddles.yaml").write_text(f"{TASK}{line}\n")
    (report,) = check_path(folder / "riddles.yaml")
    assert any(says in problem for problem in report["problems"]), report["problems"]


def test_a_key_of_an_extended_file_names_both(folder: Path) -> None:
    (folder / "child.yaml").write_text("extends: riddles.yaml\ntask: child\nheadline: bot\n")
    text = TASK.replace("code.py:both", "code.py:bot")
    (folder / "riddles.yaml").write_text(text)
    (first,) = check_path(folder / "child.yaml")
    assert first["problems"][0].startswith(f"{folder}/child.yaml, line 3: headline 'bot'")
    (folder / "child.yaml").write_text("extends: riddles.yaml\ntask: child\n")
    (second,) = check_path(folder / "child.yaml")
    (problem,) = second["problems"]
    assert problem.startswith(f"{folder}/child.yaml: code.py has no function 'bot'")
    assert problem.endswith(f"({folder}/riddles.yaml, line 18)")


def test_a_key_that_is_null_is_not_there(folder: Path) -> None:
    (folder / "child.yaml").write_text(
        "extends: riddles.yaml\ntask: child\ngeneration: null\nfew_shot: null\nnotes: null\n"
    )
    (report,) = check_path(folder / "child.yaml")
    assert report["problems"] == []


# --- suites ------------------------------------------------------------------------------------------------


def suite_problems(folder: Path, text: str) -> list[str]:
    path = folder / "suites" / "mine.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    (report,) = check_path(path)
    return [problem.removeprefix(str(path)) for problem in report["problems"]]


def test_a_good_suite(folder: Path) -> None:
    assert suite_problems(folder, SUITE) == []
    reports = {Path(report["path"]).name: report for report in check_path(folder)}
    assert set(reports) == {"riddles.yaml", "mine.yaml"}
    assert reports["mine.yaml"]["status"] == "good; 1 task"
    assert (reports["mine.yaml"]["suite"], reports["mine.yaml"]["task"]) == ("mine", None)
    assert [r["status"] for r in check_path(folder / "suites")] == ["good; 1 task"]


def test_every_problem_of_a_suite(folder: Path) -> None:
    assert suite_problems(folder, "suite: mine\ndescript: x\ntasks: riddles\n") == [
        ", line 2: unknown key 'descript' (did you mean 'description'?); known are suite, description, tasks",
        ": key 'description' is missing; add it",
        ", line 3: 'tasks': write a list, not 'riddles'",
    ]
    text = SUITE + "  - ridles\n  - mine2\n  - nothing_*\n  - other\n"
    (folder / "suites" / "other.yaml").write_text("suite: other\ndescription: D.\ntasks: [riddles]\n")
    assert suite_problems(folder, text) == [
        ", line 6: no task or family 'ridles' (did you mean 'riddles'?); mend or remove it",
        ", line 7: no task or family 'mine2' (did you mean 'mine'?); mend or remove it",
        ", line 8: no task or family 'nothing_*'; mend or remove it",
        ", line 9: 'other' is a suite; name its tasks",
    ]


def test_a_file_in_the_wrong_place(folder: Path) -> None:
    (folder / "lost.yaml").write_text(SUITE)
    (report,) = check_path(folder / "lost.yaml")
    assert report["problems"] == [
        f"{folder}/lost.yaml: this is a suite's file; put it into a folder 'suites'"
    ]
    (problem,) = suite_problems(folder, TASK)
    assert problem == ": this is a task's file, and the folder 'suites' is for suites; move it"


def test_the_shipped_files_are_good() -> None:
    bad = {report["path"]: report["problems"] for report in check_path(tasks_root()) if report["problems"]}
    assert not bad


def test_a_name_of_data_that_no_file_can_have(folder: Path) -> None:
    text = TASK.replace("rows.jsonl", "x" * 400)
    (folder / "riddles.yaml").write_text(text)
    (report,) = check_path(folder / "riddles.yaml")
    assert report["status"].startswith("good; its data was not looked at")
