"""``arrange``: data whose rows are no documents. And exemplars need a target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignbench.errors import UsageError
from alignbench.tasks.registry import find_tasks

TASK = """\
task: talks
area: nlp
kind: generate
description: Dialogues.
data: {hub: rows.jsonl}
arrange: talks.py:turns
prepare: talks.py:shout
doc_id: id
cluster: talk
prompt: "{{ question }}"
target: answer
metrics: [{name: exact_match}]
headline: exact_match
"""
CODE = """\
def turns(rows):
    return [
        {"talk": row["talk"], "id": f"{row['talk']}-{i}", "question": q, "answer": a}
        for row in rows
        for i, (q, a) in enumerate(row["turns"])
    ]

def shout(row):
    return {**row, "question": row["question"].upper()}

def nothing(rows):
    return []

def broken(rows):
    return rows[99]
"""
ROWS = [
    {"talk": "a", "turns": [["who?", "Ann"], ["where?", ""]]},
    {"talk": "b", "turns": [["when?", "now"]]},
    {"talk": "c", "turns": [["why?", "so"]]},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "talks"
    place.mkdir()
    (place / "talks.py").write_text(CODE)
    (place / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return place


def load(folder: Path, text: str):
    (folder / "talks.yaml").write_text(text)
    task = find_tasks(["talks"], tasks_dirs=[folder])[0]
    return task, task.load()


def test_one_row_becomes_several_documents_and_each_is_prepared(folder: Path) -> None:
    _, documents = load(folder, TASK)
    assert [(d.doc_id, d.cluster, d.prompt, d.target) for d in documents] == [
        ("a-0", "a", "WHO?", "Ann"),
        ("a-1", "a", "WHERE?", ""),
        ("b-0", "b", "WHEN?", "now"),
        ("c-0", "c", "WHY?", "so"),
    ]


def test_a_document_without_a_target_is_no_exemplar(folder: Path) -> None:
    _, documents = load(folder, TASK + "few_shot: {n: 2}\n")
    assert not any("WHERE?" in doc.prompt for doc in documents if doc.doc_id != "a-1")
    with pytest.raises(UsageError, match="only 2 exemplars"):
        load(folder, TASK + "few_shot: {n: 3}\n")


@pytest.mark.parametrize(
    ("name", "message"), [("nothing", "must give a list of mappings"), ("broken", "fails on the data's rows")]
)
def test_what_arrange_must_give(folder: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"talks.py:{name} {message}"):
        load(folder, TASK.replace("talks.py:turns", f"talks.py:{name}"))


def test_a_row_that_makes_one_document_can_be_looked_up(folder: Path) -> None:
    task, _ = load(folder, TASK)
    assert task.asks is not None
    assert task.asks(ROWS[1], True) == ("WHEN?", "now")
    with pytest.raises(UsageError, match="no single document"):
        task.asks(ROWS[0], True)
