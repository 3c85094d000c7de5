"""What a command shows of a task is what reaches the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignbench.cli.main import main
from alignbench.engines import open_engine
from alignbench.engines.policy import parse_policy
from alignbench.evaluation import requests_of
from alignbench.tasks.registry import find_tasks

TASK = """\
task: sums
area: nlp
kind: multiple_choice
description: Sums.
data: {hub: rows.jsonl}
prompt: "{{ question }}"
choices: '[right, wrong]'
correct: '[0]'
metrics: [{name: accuracy}]
headline: accuracy
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    rows = [
        {"question": "one and one is", "right": "two", "wrong": "three"},
        {"question": "one \x1b[31mand two is", "right": "three", "wrong": "two"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "sums.yaml").write_text(TASK)
    return tmp_path


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["tasks", "show", *words])
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


def test_a_prompt_is_that_of_the_completion(show: Any) -> None:
    shown = json.loads(show("pocket_truth", "--policy", "pocket", "--json")[1])["prompt"]
    (task,) = find_tasks(["pocket_truth"])
    requests = requests_of(task, task.load()[0])
    ((_, completion),) = next(iter(open_engine(parse_policy("pocket")).generate(requests)))
    assert shown["requests"][0]["token_ids"] == list(completion.prompt_ids)
    assert shown["requests"][0]["text"] == shown["text"]
    assert shown["sampling"]["stop"] == ["\n"]
    assert shown["delimiter"] is None


def test_every_request_of_a_choice(tasks: Path, show: Any) -> None:
    said = show("sums", "--policy", "pocket", "--tasks-dir", str(tasks), "--doc", "00001", "--json")
    shown = json.loads(said[1])["prompt"]
    first, second = shown["requests"]
    assert (first["text"], second["text"]) == (
        "one \x1b[31mand two is three",
        "one \x1b[31mand two is two",
    )
    assert first["token_ids"][: first["start"]] == second["token_ids"][: second["start"]]
    assert len(first["tokens"]) == len(first["token_ids"])
    assert first["cut"] == 0
    assert shown["delimiter"] == " "
    assert shown["sampling"] is None
    assert shown["chat_template"] == {"used": False, "choice": "auto", "has": False}


def test_the_same_ids_reach_vllm_and_it_need_not_be_here(tasks: Path, show: Any) -> None:
    def shown(policy: str) -> dict[str, Any]:
        status, out, err = show("sums", "--policy", policy, "--tasks-dir", str(tasks), "--json")
        assert status == 0, err
        prompt: dict[str, Any] = json.loads(out)["prompt"]
        assert prompt.pop("policy") == policy
        return prompt

    assert shown("vllm:pocket") == shown("pocket")


def test_the_terminal_sees_what_is_invisible(tasks: Path, show: Any) -> None:
    said = show("sums", "--policy", "pocket", "--tasks-dir", str(tasks), "--doc", "00001")[1]
    assert "\x1b" not in said
    assert "\\x1b[31m" in said
    assert "the tokenizer puts nothing in front" in said
    assert "chat_template=auto: the tokenizer has none" in said
    assert said.count("tokens of context") == 1, "the context is printed once"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ["--policy", "recorded:x.jsonl"],
            "recorded outputs are read, so no prompt reaches a model; leave --policy",
        ),
        (["--doc", "7"], "no document '7'"),
        (["--policy", "nowhere/"], "no folder"),
    ],
)
def test_errors(tasks: Path, words: list[str], reason: str, show: Any) -> None:
    status, out, err = show("sums", "--tasks-dir", str(tasks), *words)
    assert (status, out) == (2, "")
    assert reason in err
