"""Tasks of kind loglikelihood: the schema, the requests, LAMBADA on both layouts and on the real file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignbench.engines.types import Score, Scored
from alignbench.errors import UsageError
from alignbench.evaluation import requests_of
from alignbench.tasks.registry import find_tasks
from alignbench.tasks.spec import problems_of
from alignbench.tasks.types import Task

GOOD = """\
task: t
area: nlp
kind: loglikelihood
description: d
documents: rows.py:rows
prompt: "{{ front }}"
target: text
metrics:
  - {name: accuracy}
  - {name: bits_per_byte, higher_is_better: false}
headline: accuracy
"""
ROWS = "def rows(seed):\n    return [{'front': 'a b', 'text': 'c'}, {'front': '', 'text': ' whole text'}]\n"


def write(folder: Path, text: str) -> Path:
    (folder / "rows.py").write_text(ROWS)
    (folder / "t.yaml").write_text(text)
    return folder / "t.yaml"


def load(folder: Path, name: str = "t") -> Task:
    (task,) = find_tasks([name], tasks_dirs=[folder])
    return task


def test_a_target_behind_its_prompt_or_a_whole_document(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    task = load(tmp_path)
    behind, whole = [requests_of(task, document) for document in task.load()]
    assert behind == [Score("a b", " c")]  # the delimiter between them
    assert whole == [Score("", " whole text", rolling=True)]  # nothing before it, so no delimiter either


def test_values_come_from_the_flag_and_the_targets_own_bytes(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    task = load(tmp_path)
    values = task.score(task.load()[0], [Scored(-0.6931471805599453, 1, True)])
    assert values == {"accuracy": 1.0, "bits_per_byte": pytest.approx(1.0)}
    assert [(metric.name, metric.unit) for metric in task.metrics] == [
        ("accuracy", "rate"),
        ("bits_per_byte", "raw"),
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("target: text\n", ""), "kind loglikelihood needs 'target'"),
        ((", higher_is_better: false", ""), "'bits_per_byte' is better when it is lower"),
        (("name: accuracy", "name: acuracy"), "did you mean 'accuracy'"),
    ],
)
def test_a_broken_file_is_told(change: tuple[str, str], problem: str, tmp_path: Path) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    assert any(problem in told for told in problems_of(write(tmp_path, text)))


def test_two_spaces_are_refused(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace('"{{ front }}"', "'{{ front }}.'"))
    with pytest.raises(UsageError, match="the target begins with a space and the delimiter adds"):
        load(tmp_path).load()


LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "data/lambada_test.jsonl": [{"text": "He saw the cat"}, {"text": "She said, “No”"}],
    "lambada_openai.jsonl": [
        {"context": "He saw the", "continuation": "cat"},
        {"context": "She said,", "continuation": "“No”"},
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lambada_asks_the_same_of_both_layouts(layout: str, tmp_path: Path) -> None:
    file = tmp_path / "EleutherAI" / "lambada_openai" / layout
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(map(json.dumps, LAYOUTS[layout])))
    word, text = find_tasks(["lambada", "lambada_perplexity"], mirror=tmp_path)
    assert [requests_of(word, document) for document in word.load()] == [
        [Score("He saw the", " cat")],
        [Score("She said,", " “No”")],
    ]
    assert [requests_of(text, document) for document in text.load()] == [
        [Score("", "He saw the cat", rolling=True)],
        [Score("", "She said, “No”", rolling=True)],
    ]


def test_lambada_on_the_real_file(shared_data: Path) -> None:
    (task,) = find_tasks(["lambada"], mirror=shared_data)
    documents = task.load()
    assert (len(documents), len({document.cluster for document in documents})) == (5153, 5151)
    ((request,),) = [requests_of(task, document) for document in documents[:1]]
    assert isinstance(request, Score)
    assert request.context.endswith("I don't care about")
    assert request.continuation == " signs"
