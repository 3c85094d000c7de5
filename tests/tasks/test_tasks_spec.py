"""A broken task file is one sentence that names the file, the key (with its line) and the mend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alignbench.errors import UsageError
from alignbench.tasks.spec import peek, problems_of, read_spec

GOOD = """\
task: riddles
area: nlp
kind: generate
description: Riddles.
data: {hub: rows.jsonl}
prompt: "{{ question }}"
target: answer
metrics:
  - {name: exact_match, chance: 0.25, margin: 0.02}
headline: exact_match
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "riddles.yaml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    spec = read_spec(write(tmp_path, GOOD))
    assert spec.metrics[0].chance == 0.25
    assert spec.generation.temperature == 0.0
    assert problems_of(write(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("headline:", "headlin:", r"line 10: unknown key 'headlin' \(did you mean 'headline'\?\)"),
        ("{hub:", "{hubb:", r"line 5: unknown key 'data.hubb' \(did you mean 'hub'\?\)"),
        ("area: nlp", "area: nlpp", r"line 2: 'area': .*, not 'nlpp'"),
        ("area: nlp\n", "", r"key 'area' is missing"),
        ("chance: 0.25", "chance: often", r"line 9: 'metrics.0.chance': .*not 'often'"),
        ("margin: 0.02", "margin: -1", r"line 9: 'metrics.0.margin'"),
        ("margin: 0.02", "margin: .inf", r"line 9: 'metrics.0.margin': write a finite number, not inf"),
        ("margin: 0.02", "ideal: .nan", r"line 9: 'metrics.0.ideal': write a finite number, not nan"),
        ("chance: 0.25", "chance: -.inf", r"line 9: 'metrics.0.chance': write a finite number .*not -inf"),
        ("exact_match, chance", "true, chance", r"line 9: 'metrics.0.name': write text in quotes, not True"),
        ("name: exact_match", "name: exact_mach", r"not built in .*did you mean 'exact_match'"),
        ("headline: exact_match", "headline: exact", r"headline 'exact' is none of the metrics"),
        ("headline: exact_match\n", "", r"'headline' is missing: name one of exact_match"),
        ("kind: generate", "kind: multiple_choice", r"needs 'choices'"),
        ("data: {hub: rows.jsonl}\n", "", r"either 'data'"),
        ("chance: 0.25", "chance: uniform", r"'chance: uniform' is for multiple_choice"),
        ("task: riddles", "task: riddles\ntask: again", r"line 2: not valid YAML \(key 'task' twice\)"),
        ("kind: generate", "kind: [", r"not valid YAML"),
        ("margin: 0.02", "unit: percent", r"line 9: 'metrics.0.unit': .*not 'percent'"),
        ("margin: 0.02", "bounds: [0, 1]", r"'exact_match' is built in and knows its unit and bounds"),
        ("exact_match, chance: 0.25", "x, function: 'x.py:f', bounds: [1, 0]", r"'bounds' are two numbers"),
        (
            "exact_match, chance: 0.25",
            "x, function: 'x.py:f', bounds: [1]",
            r"line 9: key 'metrics.0.bounds.1'",
        ),
        ("data: {hub: rows.jsonl}", "documents: ../evil.py:f", r"line 5: 'documents'"),
    ],
)
def test_a_broken_file(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(UsageError, match=says) as caught:
        read_spec(path)
    assert str(path) in str(caught.value)


def test_check_gives_every_problem(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("area: nlp", "area: x").replace("target:", "tarket:"))
    assert len(problems_of(path)) == 2
    with pytest.raises(UsageError, match="and 1 more"):
        read_spec(path)


def test_no_mapping_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mapping of keys"):
        read_spec(write(tmp_path, "- a list"))
    path = tmp_path / "riddles.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"cannot be read|not valid YAML"):
        read_spec(path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("? [a, b]\n: c", r"line 11: not valid YAML \(a key is a word, not a list or mapping\)"),
        ("? {a: b}\n: c", r"line 11: not valid YAML \(a key is a word, not a list or mapping\)"),
        ("generation: {? [a] : c}", r"line 11: not valid YAML \(a key is a word, not a list or mapping\)"),
        ("notes: &a [*a]", r"line 11: not valid YAML \(a value holds itself\)"),
        ("notes: &a\n  x: {y: *a}", r"line 11: not valid YAML \(a value holds itself\)"),
        ("? &a [*a]\n: c", r"line 11: not valid YAML \(a value holds itself\)"),
        ("notes: " + "[" * 60 + "]" * 60, r"line 11: not valid YAML \(lists or mappings over 50 deep\)"),
        ("notes: 2020-99-99", r"line 11: not valid YAML \('2020-99-99' is no timestamp\)"),
        ("notes: !!int often", r"line 11: not valid YAML \('often' is no int\)"),
        ("notes: !!bool often", r"line 11: not valid YAML \('often' is no bool\)"),
    ],
)
def test_yaml_that_no_task_can_be_read_from(line: str, says: str, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + line + "\n")
    (problem,) = problems_of(path)
    assert re.fullmatch(rf"{re.escape(str(path))}, {says}; mend this line", problem)
    with pytest.raises(UsageError, match=says):
        read_spec(path)
    peek(path)


def test_yaml_nested_deeper_than_any_parser_goes(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "notes: " + "[" * 100_000 + "]" * 100_000))
    assert problem.endswith("line 1: not valid YAML (lists or mappings over 50 deep); mend this line")


def test_anchors_that_multiply(tmp_path: Path) -> None:
    """Nine lines of ten each stand for a billion values."""
    keys = (
        "citation",
        "licence",
        "canary",
        "do_not_train",
        "notes",
        "where",
        "doc_id",
        "cluster",
        "delimiter",
    )
    held = ["x", *(f"*b{i}" for i in range(8))]
    lines = [f"{key}: &b{i} [{', '.join([held[i]] * 10)}]\n" for i, key in enumerate(keys)]
    (problem,) = problems_of(write(tmp_path, GOOD + "".join(lines)))
    assert problem.endswith("line 15: not valid YAML (over 100,000 values); mend this line")


def test_an_anchor_may_be_used_twice(tmp_path: Path) -> None:
    text = GOOD.replace("0.25, margin: 0.02", "&level 0.25, margin: *level")
    assert read_spec(write(tmp_path, text)).metrics[0].margin == 0.25


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("{prompt: p, yes: ''}", r"line 11: 'scorers.x.yes': it is empty, not ''"),
        ("{prompt: p, yes: ' a', no: ' a'}", r"line 11: scorer 'x': 'yes' and 'no' are the same"),
    ],
)
def test_two_answers_that_cannot_be_weighed(tmp_path: Path, question: str, says: str) -> None:
    text = GOOD.replace("metrics:", "metrics:\n  - {name: m, scorer: x}", 1) + f"scorers: {{x: {question}}}\n"
    (problem,) = problems_of(write(tmp_path, text))
    assert re.search(says.replace("line 11", r"line \d+"), problem)
