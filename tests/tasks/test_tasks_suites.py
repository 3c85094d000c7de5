"""Suites: files that name tasks, families and globs."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignbench.errors import UsageError
from alignbench.tasks import registry
from alignbench.tasks.registry import find_tasks, list_entries, look, tasks_root

TASK = """\
task: {name}
area: nlp
kind: generate
description: A task.
data: {{hub: rows.jsonl}}
prompt: "{{{{ q }}}}"
target: a
metrics: [{{name: exact_match}}]
headline: exact_match
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Families ``a`` (a1, a2) and ``b`` (b1), and an empty folder of suites."""
    (tmp_path / "none").mkdir()
    monkeypatch.setattr(registry, "tasks_root", lambda: tmp_path / "none")
    for family, name in (("a", "a1"), ("a", "a2"), ("b", "b1")):
        place = tmp_path / "dir" / family
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.yaml").write_text(TASK.format(name=name))
        (place / "rows.jsonl").write_text('{"q": "one", "a": "1"}\n')
    (tmp_path / "dir" / "suites").mkdir()
    return tmp_path / "dir"


def suite(folder: Path, text: str, name: str = "s") -> None:
    (folder / "suites" / f"{name}.yaml").write_text(text)


def names(folder: Path, *wanted: str) -> list[str]:
    return [task.name for task in find_tasks(wanted, tasks_dirs=[folder])]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("[b1, a1]", ["b1", "a1"]),
        ("[a]", ["a1", "a2"]),
        ("['*1', a2]", ["a1", "b1", "a2"]),
        ("[a1, a]", ["a1", "a2"]),
    ],
)
def test_a_suite_in_its_order(folder: Path, lines: str, found: list[str]) -> None:
    suite(folder, f"suite: s\ndescription: D.\ntasks: {lines}\n")
    assert names(folder, "s") == found


def test_a_suite_wins_over_a_family_of_its_name(folder: Path) -> None:
    suite(folder, "suite: a\ndescription: D.\ntasks: [b1]\n")
    assert names(folder, "a") == ["b1"]


def test_entries_know_their_suites_and_no_suite_is_a_task(folder: Path) -> None:
    suite(folder, "suite: s\ndescription: D.\ntasks: [a]\n")
    suite(folder, "suite: t\ndescription: D.\ntasks: ['*1']\n", "t")
    assert {e.name: e.suites for e in list_entries([folder])} == {
        "a1": ("s", "t"),
        "a2": ("s",),
        "b1": ("t",),
    }
    assert [(s.name, s.description) for s in look([folder]).suites] == [("s", "D."), ("t", "D.")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "suite: s\ndescription: D.\ntasks: [a3]\n",
            r"s\.yaml, line 3: no task or family 'a3' \(did you mean 'a",
        ),
        ("suite: s\ndescription: D.\ntask: [a1]\n", r"line 3: unknown key 'task' \(did you mean 'tasks'\?\)"),
        ("suite: s\ntasks: [a1]\n", r"s\.yaml: key 'description' is missing"),
        (
            "suite: s\ndescription: D.\ntasks: a1\n",
            r"s\.yaml, line 3: 'tasks': write a list, not 'a1'",
        ),
        ("suite: s\ndescription: D.\ntasks: []\n", r"s\.yaml, line 3: 'tasks'"),
        ("suite: s\ndescription: [\n", "not valid YAML"),
    ],
)
def test_a_broken_suite_says_what_where_and_the_mend(folder: Path, text: str, says: str) -> None:
    suite(folder, text)
    with pytest.raises(UsageError, match=says):
        names(folder, "s")
    assert names(folder, "a1") == ["a1"]  # it costs nobody else


def test_suites_of_one_name_are_one(folder: Path) -> None:
    suite(folder, "suite: s\ndescription: D.\ntasks: [b]\n")
    suite(folder, "suite: s\ndescription: E.\ntasks: [a1]\n", "too")
    assert names(folder, "s") == ["b1", "a1"]
    assert [each.description for each in look([folder]).suites] == ["D."]


def test_every_shipped_suite_names_tasks_that_there_are() -> None:
    assert tasks_root().is_dir()
    suites = look().suites
    assert {"default", "pocket"} <= {each.name for each in suites}
    for each in suites:
        assert find_tasks([each.name]), each.name
