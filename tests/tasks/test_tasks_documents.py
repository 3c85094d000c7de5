"""From rows to documents: prompts, choices, few-shot exemplars; and the sandbox."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbench.engines.types import Completion, Scored
from alignbench.errors import UsageError, WorkError
from alignbench.tasks.documents import (
    documents_fingerprint,
    load_documents,
    majority_level,
    metrics_with_levels,
)
from alignbench.tasks.registry import find_tasks
from alignbench.tasks.spec import read_spec
from alignbench.tasks.templates import template
from alignbench.tasks.types import Document, Task

CHOICE = """\
task: capitals
area: nlp
kind: multiple_choice
description: Capitals.
data: {hub: rows.jsonl}
prompt: |
  Q: {{ question }}
  A:
choices: options
correct: "[label]"
metrics: [{name: accuracy, chance: uniform}]
headline: accuracy
"""
ROWS = [
    {"question": "France?", "options": ["Paris", "Rome"], "label": 0},
    {"question": "Italy?", "options": ["Paris", "Rome", "Bern", "Oslo"], "label": 1},
    {"question": "Norway?", "options": ["Bern", "Oslo"], "label": 1},
]


def load(folder: Path, text: str = CHOICE, rows: list[dict[str, Any]] = ROWS, **files: str) -> list[Document]:
    path = folder / "capitals.yaml"
    path.write_text(text)
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content)
    return load_documents(read_spec(path), path, mirror=None, seed=0, trusted=True)


def task_of(folder: Path) -> Task:
    return find_tasks(["capitals"], tasks_dirs=[folder])[0]


def test_a_question_as_the_model_gets_it(tmp_path: Path) -> None:
    first = load(tmp_path)[0]
    assert first.prompt == "Q: France?\nA:"
    assert first.choices == ("Paris", "Rome")
    assert (first.correct, first.target, first.delimiter) == ((0,), "Paris", " ")
    assert (first.doc_id, first.cluster) == ("00000", "00000")


def test_where_leaves_rows_out(tmp_path: Path) -> None:
    kept = load(tmp_path, CHOICE + "where: options | length == 2\n")
    # an id is the row's place in the file, whatever is left out
    assert [(doc.doc_id, doc.fields["question"]) for doc in kept] == [
        ("00000", "France?"),
        ("00002", "Norway?"),
    ]
    with pytest.raises(UsageError, match=r"capitals.yaml: where: 'label == 7' holds for no row; mend it"):
        load(tmp_path, CHOICE + "where: label == 7\n")
    with pytest.raises(UsageError, match=r"capitals.yaml: where: 'labels' is undefined; the fields are"):
        load(tmp_path, CHOICE + "where: labels == 1\n")
    shots = "few_shot: {n: 1}\nwhere: options | length == 2\n"
    assert load(tmp_path, CHOICE + shots)[0].prompt == "Q: Norway?\nA: Oslo\n\nQ: France?\nA:"


def test_chance_is_the_mean_share_of_right_choices(tmp_path: Path) -> None:
    documents = load(tmp_path)
    (metric,) = metrics_with_levels(task_of(tmp_path), documents)
    assert metric.chance == pytest.approx((1 / 2 + 1 / 4 + 1 / 2) / 3)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("{{ question }}", "{{ qestion }}", r"prompt: 'qestion' is undefined; the fields are question"),
        ("{{ question }}", "{{ question.__class__.__mro__ }}", r"prompt: .*unsafe"),
        ("{{ question }}", "{{ question", r"prompt: not a valid template"),
        ("choices: options", "choices: question", r"choices: expected a list, got 'France\?'"),
        ("choices: options", "choices: option", r"choices: 'option' is undefined"),
        ("  A:", "  A:{{ ' ' }}", r"the delimiter adds another"),
        ("choices: options", "choices: \"[' a', 'b']\"", r"the delimiter adds another"),
        ('"[label]"', '"[label + 1]"', r"correct: expected indices from 0 to 1"),
        ('"[label]"', '"[]"', r"correct: expected indices"),
        ("correct:", "doc_id: label\ncorrect:", r"two documents have the id '1'"),
    ],
)
def test_a_template_that_fails_names_file_key_and_document(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load(tmp_path, CHOICE.replace(old, new))
    assert "capitals.yaml" in str(caught.value)


def test_prepare_gives_the_fields(tmp_path: Path) -> None:
    text = CHOICE.replace("prompt:", "prepare: make.py:fields\nprompt:")
    code = "def fields(row):\n    return {**row, 'question': row['question'].upper()}\n"
    assert load(tmp_path, text, make=code)[1].prompt == "Q: ITALY?\nA:"


def test_prepare_that_fails_names_the_row(tmp_path: Path) -> None:
    text = CHOICE.replace("prompt:", "prepare: make.py:fields\nprompt:")
    with pytest.raises(UsageError, match=r"make.py:fields fails on row 0 \(KeyError: 'x'\)"):
        load(tmp_path, text, make="def fields(row):\n    return row['x']\n")


def test_documents_are_made_by_a_function_with_the_seed(tmp_path: Path) -> None:
    text = CHOICE.replace("data: {hub: rows.jsonl}", "documents: make.py:rows")
    code = (
        "def rows(seed):\n    yield {'question': seed, 'options': ['a', 'b'], 'label': 0, 'doc_id': 'one'}\n"
    )
    (document,) = load(tmp_path, text, make=code)
    assert (document.prompt, document.doc_id) == ("Q: 0\nA:", "one")


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 4), size=st.integers(6, 9), clusters=st.integers(5, 6))
def test_a_document_never_sees_itself_or_its_cluster(
    tmp_path_factory: pytest.TempPathFactory, n: int, size: int, clusters: int
) -> None:
    rows = [
        {"question": f"<{i}/{i % clusters}>", "options": ["a", "b"], "label": 0, "c": i % clusters}
        for i in range(size)
    ]
    text = CHOICE + f"cluster: c\nfew_shot: {{n: {n}}}\n"
    for position, document in enumerate(load(tmp_path_factory.mktemp("few"), text, rows)):
        *shots, own = document.prompt.split("\n\n")
        assert own == f"Q: <{position}/{position % clusters}>\nA:"
        assert len(shots) == n
        assert not any(f"/{position % clusters}>" in shot for shot in shots)
        assert all(shot.endswith("A: a") for shot in shots)


def test_documents_share_their_exemplars(tmp_path: Path) -> None:
    rows = [{"question": f"<{i}>", "options": ["a", "b"], "label": 0} for i in range(50)]
    shots = [d.prompt.rsplit("\n\n", 1)[0] for d in load(tmp_path, CHOICE + "few_shot: {n: 3}\n", rows)]
    assert max(shots.count(shot) for shot in shots) == 47


def test_too_few_exemplars(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only 2 exemplars"):
        load(tmp_path, CHOICE + "few_shot: {n: 3}\n")


def test_the_fingerprint_follows_what_is_asked(tmp_path: Path) -> None:
    before = documents_fingerprint(load(tmp_path))
    assert documents_fingerprint(load(tmp_path)) == before
    assert documents_fingerprint(load(tmp_path, CHOICE.replace("Q:", "Question:"))) != before


GENERATE = """\
task: capitals
area: nlp
kind: generate
description: Capitals.
data: {hub: rows.jsonl}
prompt: "{{ question }}"
target: "{{ options[label] }}"
score: make.py:score
metrics: [{name: right}, {name: length, higher_is_better: null}, {name: exact_match, function: "make.py:one"}]
headline: right
"""


def completion(text: str) -> Completion:
    return Completion(text, (), (1,), (0.0,), (0.0,), "eos")


def test_a_score_function_gives_several_metrics_in_one_call(tmp_path: Path) -> None:
    code = (
        "calls = []\n"
        "def score(fields, output):\n"
        "    calls.append(output)\n"
        "    assert len(calls) < 3\n"
        "    return {'right': output == 'Rome', 'length': len(output), 'unparsed': not output}\n"
        "def one(fields, output):\n"
        "    return None\n"
    )
    documents = load(tmp_path, GENERATE, make=code)
    task = task_of(tmp_path)
    assert task.score(documents[1], completion("Rome")) == {"right": 1.0, "length": 4.0, "exact_match": None}
    assert task.score(documents[1], completion(""))["unparsed"] == 1.0


def test_a_metric_that_the_function_does_not_give(tmp_path: Path) -> None:
    documents = load(
        tmp_path, GENERATE, make="def score(f, o):\n    return {}\ndef one(f, o):\n    return 1\n"
    )
    with pytest.raises(WorkError, match="no value for the metric 'right'"):
        task_of(tmp_path).score(documents[0], completion("x"))


@pytest.mark.parametrize(
    ("given", "unit", "bounds"),
    [
        ("", None, None),
        ("unit: rate", "rate", (0.0, 1.0)),
        ("unit: raw", "raw", None),
        ("bounds: [0, 0.5]", "rate", (0.0, 0.5)),
        ("bounds: [1, 7]", "raw", (1.0, 7.0)),
        ("unit: rate, bounds: [-1, 1]", "rate", (-1.0, 1.0)),
        ("unit: raw, bounds: [0, 1]", "raw", (0.0, 1.0)),
    ],
)
def test_unit_and_bounds(tmp_path: Path, given: str, unit: str | None, bounds: Any) -> None:
    metrics = f"metrics: [{{name: right, {given}}}, {{name: exact_match, function: 'make.py:one'}}]"
    load(tmp_path, re.sub("metrics: .*", metrics, GENERATE), make="")
    right = task_of(tmp_path).metrics[0]
    assert (right.unit, right.bounds, right.built_in) == (unit, bounds, False)


def test_built_in_metrics_know_their_unit(tmp_path: Path) -> None:
    load(tmp_path)
    (metric,) = task_of(tmp_path).metrics
    assert (metric.unit, metric.bounds, metric.built_in) == ("rate", (0.0, 1.0), True)


def test_a_value_outside_its_bounds_is_the_score_functions_fault(tmp_path: Path) -> None:
    text = GENERATE.replace("{name: right}", "{name: right, bounds: [1, 7]}")
    code = "def score(f, o):\n    return {'right': float(o), 'length': 1}\ndef one(f, o):\n    return 1\n"
    documents = load(tmp_path, text, make=code)
    task = task_of(tmp_path)
    assert task.score(documents[0], completion("7"))["right"] == 7.0
    with pytest.raises(WorkError, match=r"gives 7.5 for the metric 'right', outside 1 to 7"):
        task.score(documents[0], completion("7.5"))
    assert task.score(documents[0], completion("nan"))["right"] is None


def test_a_value_whose_square_is_no_number(tmp_path: Path) -> None:
    """Its interval would be no number either, and results.json holds none."""
    code = "def score(f, o):\n    return {'right': float(o), 'length': 1}\ndef one(f, o):\n    return 1\n"
    documents = load(tmp_path, GENERATE, make=code)
    with pytest.raises(WorkError, match=r"gives 1e\+200 for the metric 'right', too great"):
        task_of(tmp_path).score(documents[0], completion("1e200"))


def test_the_majority_level(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "options": ["yes", "no"], "label": int(i < 3)} for i in range(10)]
    (metric,) = metrics_with_levels(task_of_rows(tmp_path, rows), load(tmp_path, rows=rows))
    assert (metric.chance, metric.majority) == (0.5, 0.7)
    # the order of the choices does not matter, only which is right
    rows[0] = {"question": "0?", "options": ["no", "yes"], "label": 1}
    (metric,) = metrics_with_levels(task_of_rows(tmp_path, rows), load(tmp_path, rows=rows))
    assert metric.majority == pytest.approx(0.8)


def test_no_majority_level_where_the_choices_differ(tmp_path: Path) -> None:
    (metric,) = metrics_with_levels(task_of_rows(tmp_path, ROWS), load(tmp_path))
    assert metric.majority is None
    assert majority_level([]) is None


@given(labels=st.lists(st.integers(0, 2), min_size=1))
def test_the_majority_level_is_what_the_best_constant_answer_scores(labels: list[int]) -> None:
    choices = ("a", "b", "c")
    documents = [Document(f"{i}", {}, "q", choices=choices, correct=(k,)) for i, k in enumerate(labels)]
    best = max(sum(k == answer for k in labels) for answer in range(3)) / len(labels)
    assert majority_level(documents) == best
    assert majority_level(documents) >= 1 / 3 - 1e-12  # never below chance


def task_of_rows(folder: Path, rows: list[dict[str, Any]]) -> Task:
    load(folder, rows=rows)
    return task_of(folder)


def test_choices_are_scored_on_their_log_likelihoods(tmp_path: Path) -> None:
    documents = load(tmp_path)
    answer = [Scored(-1.0, 1, True), Scored(-2.0, 1, False)]
    assert task_of(tmp_path).score(documents[0], answer) == {"accuracy": 1.0}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ 'x' * 10**17 }}", "MemoryError"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ q.__class__ }}", "unsafe"),
        ("{{ [1, 2] | random }}", "No filter named 'random'"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
    ],
)
def test_a_template_that_fails_is_one_sentence(source: str, says: str) -> None:
    """Chance has no place in it: a prompt is the same in every run."""
    with pytest.raises(UsageError, match=f"^x.yaml: prompt: .*{says}"):
        template(source, "x.yaml: prompt")({"q": "hi"})
