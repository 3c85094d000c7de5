"""Few-shot exemplars: who may be one, who is never, and how many of each label."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbench.errors import UsageError
from alignbench.evaluation import select_documents
from alignbench.tasks.exemplars import with_exemplars
from alignbench.tasks.registry import find_tasks
from alignbench.tasks.spec import FewShotSpec
from alignbench.tasks.types import Document


def document(i: int, label: str = "x", prompt: str | None = None, cluster: str | None = None) -> Document:
    return Document(f"{i}", {}, prompt or f"<{i}>", target=label, cluster=cluster or f"{i}", delimiter=" ")


def shots(doc: Document) -> list[str]:
    return doc.prompt.split("\n\n")[:-1]


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.sampled_from("abc"), min_size=12, max_size=30),
    n=st.integers(1, 5),
    seed=st.integers(0, 3),
)
def test_balanced_exemplars_differ_in_number_by_one_at_most(labels: list[str], n: int, seed: int) -> None:
    labels = [*"abc" * 4, *labels]  # enough of each
    documents = [document(i, label) for i, label in enumerate(labels)]
    for doc in with_exemplars(documents, documents, FewShotSpec(n=n, seed=seed, balance=True), "t"):
        counts = Counter(shot[-1] for shot in shots(doc))
        assert sum(counts.values()) == n
        assert max(counts.values()) - min(counts[label] for label in "abc") <= 1


def test_unbalanced_exemplars_are_the_first_of_the_order() -> None:
    documents = [document(i, "a" if i else "b") for i in range(30)]
    found = with_exemplars(documents, documents, FewShotSpec(n=4), "t")
    commonest = Counter(shot for doc in found for shot in shots(doc)).most_common(4)
    assert all(count >= 29 for _, count in commonest)


def test_a_text_that_is_the_same_but_for_case_and_spaces_is_no_exemplar() -> None:
    documents = [document(0, prompt="A  film."), document(1, prompt="a film."), document(2), document(3)]
    found = with_exemplars(documents, documents, FewShotSpec(n=2), "t")
    assert sorted(shots(found[0])) == ["<2> x", "<3> x"]
    with pytest.raises(UsageError, match="only 2 exemplars"):
        with_exemplars(documents, documents, FewShotSpec(n=3), "t")


def test_too_few_of_one_label() -> None:
    documents = [document(0, "a"), *(document(i, "b") for i in range(1, 9))]
    with pytest.raises(UsageError, match=r"few_shot\.n is 4, but there are only"):
        with_exemplars(documents, documents, FewShotSpec(n=4, balance=True), "t")


def test_the_order_follows_seed_and_task_only() -> None:
    documents = [document(i) for i in range(20)]
    one, same, other, renamed = (
        with_exemplars(documents, documents, FewShotSpec(n=3, seed=seed), task)
        for seed, task in ((0, "t"), (0, "t"), (1, "t"), (0, "u"))
    )
    assert one == same
    assert one != other
    assert one != renamed


TASK = """\
task: few
area: nlp
kind: multiple_choice
description: Few.
data: {hub: rows.jsonl, split: test}
instruction: |
  Say a or b.
prompt: "{{ q }}"
choices: "['a', 'b']"
correct: "[label]"
metrics: [{name: accuracy}]
headline: accuracy
"""


def write(folder: Path, text: str = TASK) -> Path:
    (folder / "few.yaml").write_text(text)
    rows = [{"q": f"<{i}>", "label": i % 2} for i in range(40)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_the_instruction_stands_once_at_the_head(tmp_path: Path) -> None:
    (zero,) = find_tasks(["few"], tasks_dirs=[write(tmp_path)])
    assert zero.load()[3].prompt == "Say a or b.\n\n<3>"
    (few,) = find_tasks(["few"], tasks_dirs=[write(tmp_path, TASK + "few_shot: {n: 2, balance: true}\n")])
    head, *exemplars, own = few.load()[3].prompt.split("\n\n")
    assert (head, own) == ("Say a or b.", "<3>")
    assert {shot.split()[1] for shot in exemplars} == {"a", "b"}


def test_a_limit_takes_nothing_from_the_pool(tmp_path: Path) -> None:
    (task,) = find_tasks(["few"], tasks_dirs=[write(tmp_path, TASK + "few_shot: {n: 3}\n")])
    whole = {doc.doc_id: doc.prompt for doc in task.load()}
    drawn = select_documents(task, 3, seed=5)
    assert len(drawn) == 3
    assert all(doc.prompt == whole[doc.doc_id] for doc in drawn)
    others = {shot.split()[0] for doc in drawn for shot in doc.prompt.split("\n\n")[1:-1]}
    assert not others <= {doc.prompt.split("\n\n")[-1] for doc in drawn}


def test_exemplars_of_another_split(tmp_path: Path) -> None:
    data = tmp_path / "mirror" / "rows"
    data.mkdir(parents=True)
    for split, letter in (("train", "T"), ("test", "E")):
        rows = [{"q": f"<{letter}{i}>", "label": i % 2} for i in range(6)]
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "few.yaml").write_text(
        TASK.replace("rows.jsonl", "rows") + "few_shot: {n: 2, split: train}\n"
    )
    (task,) = find_tasks(["few"], tasks_dirs=[tmp_path], mirror=tmp_path / "mirror")
    for doc in task.load():
        _, *exemplars, own = doc.prompt.split("\n\n")
        assert own.startswith("<E")
        assert all(shot.startswith("<T") for shot in exemplars)
