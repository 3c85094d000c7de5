"""``extends``: what a task file takes over from another, and whose line an error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignbench.errors import UsageError
from alignbench.tasks.check import check_path
from alignbench.tasks.registry import find_tasks, list_entries
from alignbench.tasks.spec import problems_of, read_spec
from alignbench.tasks.taskfile import read_taskfile

BASE = """\
task: base
area: nlp
kind: generate
description: The base.
data: {hub: rows.jsonl, split: test}
prompt: "{{ q }}"
target: a
metrics: [{name: exact_match}]
headline: exact_match
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "family"
    place.mkdir()
    (place / "base.yaml").write_text(BASE)
    (place / "rows.jsonl").write_text('{"q": "one", "a": "1"}\n{"q": "two", "a": "2"}\n')
    return place


def child(folder: Path, text: str, name: str = "child") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_keys_of_the_file_replace_those_of_the_extended_one(folder: Path) -> None:
    spec = read_spec(
        child(folder, "extends: base.yaml\ntask: child\nprompt: 'Q {{ q }}'\ndata: {hub: other.jsonl}\n")
    )
    assert (spec.task, spec.prompt, spec.target, spec.area) == ("child", "Q {{ q }}", "a", "nlp")
    assert spec.data is not None
    assert (spec.data.hub, spec.data.split) == ("other.jsonl", None)  # a mapping is replaced as a whole
    assert read_spec(child(folder, "extends: base.yaml\ntask: child\nscorers: {}\n")).scorers == {}


def test_null_takes_a_key_away(folder: Path) -> None:
    text = "extends: base.yaml\ntask: child\ntarget: null\nreferences: '[a]'\n"
    assert read_spec(child(folder, text)).target is None


def test_a_chain(folder: Path) -> None:
    child(folder, "extends: base.yaml\ntask: middle\ndescription: The middle.\nlicence: MIT\n", "middle")
    path = child(folder, "extends: middle.yaml\ntask: child\nlicence: none\n")
    spec = read_spec(path)
    assert (spec.description, spec.licence, spec.prompt) == ("The middle.", "none", "{{ q }}")
    assert [file.name for file in read_taskfile(path).files] == ["child.yaml", "middle.yaml", "base.yaml"]


def test_the_name_is_not_taken_over(folder: Path) -> None:
    path = child(folder, "extends: base.yaml\nprompt: x\n")
    assert problems_of(path) == [f"{path}: key 'task' is missing; add it"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task: child\nextends: none.yaml\n", r"child.yaml, line 2: 'extends': .*none.yaml does not exist"),
        ("task: child\nextends: ../family/base.yaml\n", r"line 2: 'extends': name a task file of the same"),
        ("task: child\nextends: base\n", r"line 2: 'extends': name a task file .* not 'base'"),
        ("task: child\nextends: [base.yaml]\n", r"line 2: 'extends': name a task file"),
        ("extends: null\ntask: child\n", r"line 1: 'extends': name a task file .* not None"),
        ("extends: child.yaml\ntask: child\n", r"in a circle \(child.yaml → child.yaml\)"),
        ("extend: base.yaml\ntask: child\n", r"line 1: unknown key 'extend' \(did you mean 'extends'\?\)"),
        ("extends: base.yaml\ntask: child\n\nprompts: x\n", r"child.yaml, line 4: unknown key 'prompts'"),
        ("extends: base.yaml\ntask: child\nmetrics: [{name: f1}]\n", r"child.yaml: headline 'exact_match'"),
    ],
)
def test_what_cannot_be_extended(folder: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_spec(child(folder, text))


def test_a_longer_circle_ends(folder: Path) -> None:
    child(folder, "extends: two.yaml\ntask: one\n", "one")
    child(folder, "extends: three.yaml\ntask: two\n", "two")
    with pytest.raises(UsageError, match=r"two.yaml, line 1: .*\(three.yaml → two.yaml → three.yaml\)"):
        read_spec(child(folder, "extends: two.yaml\ntask: three\n", "three"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("area: nlp", "area: nlpp", r"base.yaml, line 2: 'area'"),
        (
            "name: exact_match}",
            "name: exact_match, margins: 1}",
            r"base.yaml, line 8: unknown key 'metrics.0",
        ),
        ("area: nlp", "area: [", r"base.yaml, line .*not valid YAML"),
    ],
)
def test_an_error_of_the_extended_file_names_that_file(folder: Path, old: str, new: str, says: str) -> None:
    (folder / "base.yaml").write_text(BASE.replace(old, new))
    with pytest.raises(UsageError, match=says):
        read_spec(child(folder, "extends: base.yaml\ntask: child\nlicence: none\n"))


def test_a_broken_child_keeps_its_name_in_the_listing(folder: Path) -> None:
    child(folder, "extends: base.yaml\ntask: broken_child\nprompts: x\n")
    entry = next(entry for entry in list_entries([folder]) if entry.name == "broken_child")
    assert "unknown key 'prompts'" in str(entry.problem)
    with pytest.raises(UsageError, match="unknown key 'prompts'"):
        find_tasks([entry.family], tasks_dirs=[folder])


def test_check_and_the_fingerprint_follow_the_extended_file(folder: Path) -> None:
    path = child(folder, "extends: base.yaml\ntask: child\n")
    (report,) = check_path(path)
    assert report["status"] == "good; 2 documents"
    before = find_tasks(["child"], tasks_dirs=[folder])[0].fingerprint
    (folder / "base.yaml").write_text(BASE.replace("{{ q }}", "{{ q }}?"))
    assert find_tasks(["child"], tasks_dirs=[folder])[0].fingerprint != before
