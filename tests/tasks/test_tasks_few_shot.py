"""Exemplars from a split of their own: by ``split``, by ``files``, in a mirror and beside the task file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignbench.errors import UsageError
from alignbench.tasks.documents import load_documents
from alignbench.tasks.spec import read_spec
from alignbench.tasks.types import Document

TASK = """\
task: capitals
area: nlp
kind: generate
description: Capitals.
data: {{{data}}}
prompt: "{{{{ q }}}}"
target: a
few_shot: {{{shots}}}
metrics: [{{name: exact_match}}]
headline: exact_match
"""
TESTED = [{"q": f"test {i}", "a": f"t{i}"} for i in range(6)]
TRAIN = [{"q": f"train {i}", "a": f"r{i}"} for i in range(6)]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def load(folder: Path, data: str, shots: str, extra: str = "") -> list[Document]:
    path = folder / "tasks" / "capitals.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(TASK.format(data=data, shots=shots) + extra)
    mirror = folder / "mirror" if (folder / "mirror").is_dir() else None
    return load_documents(read_spec(path), path, mirror=mirror, seed=0, trusted=True)


def shown(document: Document) -> list[str]:
    return document.prompt.split("\n\n")[:-1]


@pytest.mark.parametrize(
    ("data", "shots"),
    [
        ("hub: org/set, split: test", "n: 2, split: train"),
        ("hub: org/set, split: test, files: ['x_test.jsonl']", "n: 2, files: ['none.jsonl', 'x_tr*.jsonl']"),
        ("hub: org/set, files: ['x_test.jsonl']", "n: 2, split: train, files: ['x_train.jsonl']"),
        ("hub: org/set, split: test, files: ['x_test.jsonl']", "n: 2, split: train"),
    ],
)
def test_exemplars_of_another_split_or_of_files(tmp_path: Path, data: str, shots: str) -> None:
    write(tmp_path / "mirror" / "org" / "set" / "x_test.jsonl", TESTED)
    write(tmp_path / "mirror" / "org" / "set" / "x_train.jsonl", TRAIN)
    documents = load(tmp_path, data, shots)
    assert [doc.prompt.rsplit("\n\n", 1)[1] for doc in documents] == [row["q"] for row in TESTED]
    # the ids are positions, which say nothing across files: all share their exemplars
    assert len({tuple(shown(doc)) for doc in documents}) == 1
    assert all(shot.startswith("train ") for shot in shown(documents[0]))
    assert len(shown(documents[0])) == 2


def test_files_beside_the_task_file(tmp_path: Path) -> None:
    write(tmp_path / "tasks" / "rows.jsonl", TESTED)
    write(tmp_path / "tasks" / "shots.jsonl", TRAIN)
    documents = load(tmp_path, "hub: rows.jsonl", "n: 3, files: [shots.jsonl]")
    assert [doc.target for doc in documents] == [row["a"] for row in TESTED]
    assert all(len(shown(doc)) == 3 and "test" not in " ".join(shown(doc)) for doc in documents)


def test_the_tested_document_is_never_among_its_exemplars(tmp_path: Path) -> None:
    """The exemplars' file holds every tested question again, in other cases and spaces."""
    copies = [{"q": row["q"].upper().replace(" ", "  "), "a": row["a"]} for row in TESTED]
    write(tmp_path / "tasks" / "rows.jsonl", TESTED)
    write(tmp_path / "tasks" / "shots.jsonl", copies)
    documents = load(tmp_path, "hub: rows.jsonl", "n: 5, files: [shots.jsonl]")
    for row, doc in zip(TESTED, documents, strict=True):
        assert len(shown(doc)) == 5
        assert not any(" ".join(shot.lower().split()).startswith(row["q"]) for shot in shown(doc))


def test_an_id_or_cluster_of_the_data_counts_across_files(tmp_path: Path) -> None:
    write(tmp_path / "tasks" / "rows.jsonl", [{"q": "a?", "a": "1", "id": "x"}])
    write(
        tmp_path / "tasks" / "shots.jsonl",
        [{"q": "a, I said?", "a": "1", "id": "x"}, {"q": "b?", "a": "2", "id": "y"}],
    )
    (document,) = load(tmp_path, "hub: rows.jsonl", "n: 1, files: [shots.jsonl]", "doc_id: id\n")
    assert shown(document) == ["b? 2"]


@pytest.mark.parametrize(
    ("data", "shots", "says"),
    [
        (
            "hub: rows.jsonl",
            "n: 1, split: train",
            r"capitals\.yaml: few_shot: its split 'train' gives the tested documents themselves; "
            r"name the exemplars' files with few_shot\.files",
        ),
        ("hub: rows.jsonl", "n: 1, files: [rows.jsonl]", r"few_shot: its files gives? the tested documents"),
        (
            "hub: rows.jsonl",
            "n: 1, files: [none.jsonl]",
            r"capitals\.yaml: few_shot: .* no file that matches",
        ),
        ("hub: rows.jsonl", "n: 1, files: ['../x.jsonl']", r"few_shot: the file pattern '../x.jsonl' leaves"),
        ("hub: rows.jsonl", "n: 9, files: [shots.jsonl]", r"few_shot.n is 9, but there are only 6 exemplars"),
    ],
)
def test_what_gives_no_exemplars(tmp_path: Path, data: str, shots: str, says: str) -> None:
    write(tmp_path / "tasks" / "rows.jsonl", TESTED)
    write(tmp_path / "tasks" / "shots.jsonl", TRAIN)
    with pytest.raises(UsageError, match=says):
        load(tmp_path, data, shots)


def test_the_hub_is_asked_for_the_exemplars_split_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def hub_rows(*words: object) -> list[dict[str, str]]:
        asked.append(words)
        return TRAIN if "train" in str(words) else TESTED

    monkeypatch.setattr("alignbench.sources.hub.hub_rows", hub_rows)
    data = "hub: org/set, config: c, revision: abc, split: test, files: [t.jsonl]"
    documents = load(tmp_path, data, "n: 2, split: train, files: [train.jsonl]")
    assert asked == [
        ("org/set", "test", "c", "abc", ("t.jsonl",)),
        ("org/set", "train", "c", "abc", ("train.jsonl",)),
    ]
    assert all("train" in doc.prompt for doc in documents)
