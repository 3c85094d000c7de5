"""Discovery, and how a name finds its tasks."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from alignbench.errors import UsageError
from alignbench.tasks import registry
from alignbench.tasks.check import check_path
from alignbench.tasks.registry import find_tasks, list_entries, tasks_root

TEMPLATE = """\
task: {name}
area: nlp
kind: generate
description: A task.
documents: make.py:rows
prompt: "{{{{ q }}}}"
target: q
metrics: [{{name: exact_match}}]
headline: exact_match
"""
SUITE = "suite: mine\ndescription: All of it.\ntasks: [riddles, '*_one']\n"
CODE = "def rows(seed):\n    return [{'q': 'a'}, {'q': 'b'}]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tasks folder with two families; the shipped tasks are out of the way."""
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    monkeypatch.setattr(registry, "tasks_root", lambda: shipped)
    for family, name in (("riddles", "riddle_one"), ("riddles", "riddle_two"), ("sums", "sum_one")):
        place = tmp_path / "dir" / family
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.yaml").write_text(TEMPLATE.format(name=name))
        (place / "make.py").write_text(CODE)
    (tmp_path / "dir" / "suites").mkdir()
    (tmp_path / "dir" / "suites" / "mine.yaml").write_text(SUITE)
    return tmp_path / "dir"


def names(folder: Path, *wanted: str) -> list[str]:
    return [task.name for task in find_tasks(wanted, tasks_dirs=[folder])]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["riddle_two"], ["riddle_two"]),
        (["riddles"], ["riddle_one", "riddle_two"]),
        (["mine"], ["riddle_one", "riddle_two", "sum_one"]),
        (["*_one"], ["riddle_one", "sum_one"]),
        (["sum_one,riddle_one"], ["sum_one", "riddle_one"]),
        (["sums", "mine"], ["sum_one", "riddle_one", "riddle_two"]),
    ],
)
def test_names_families_suites_globs_and_lists(folder: Path, wanted: list[str], found: list[str]) -> None:
    assert names(folder, *wanted) == found


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("ridle_one", r"did you mean 'riddle_one'"),
        ("sms", r"did you mean 'sums'"),
        ("nothing_*", "no task, family or suite"),
        ("lm_eval:arc", "not supported yet"),
        (" , ", "no task was named"),
    ],
)
def test_an_unknown_name_and_the_nearest(folder: Path, wanted: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        names(folder, wanted)


def test_a_broken_file_is_listed_and_an_error_on_use(folder: Path) -> None:
    (folder / "riddles" / "riddle_one.yaml").write_text("task: riddle_one\nkind: generate\n")
    listed = {entry.name: entry.problem for entry in list_entries([folder])}
    assert listed["sum_one"] is None
    assert "key 'area' is missing" in str(listed["riddle_one"])
    assert names(folder, "sum_one") == ["sum_one"]
    for wanted in ("riddle_one", "riddles", "mine", "*"):
        with pytest.raises(UsageError, match=r"riddle_one\.yaml"):
            names(folder, wanted)


def test_a_file_that_is_no_yaml_is_known_by_its_own_name(folder: Path) -> None:
    (folder / "sums" / "sum_two.yaml").write_text("{")
    with pytest.raises(UsageError, match="not valid YAML"):
        names(folder, "sum_two")


def test_two_files_of_one_name_are_both_broken(folder: Path) -> None:
    (folder / "sums" / "again.yaml").write_text(TEMPLATE.format(name="riddle_one"))
    with pytest.raises(
        UsageError, match=r"two task files have the name riddle_one: .*riddle_one.yaml.*again.yaml"
    ):
        names(folder, "riddle_one")


def test_a_folder_given_twice_counts_once(folder: Path) -> None:
    assert len(list_entries([folder, folder / "sums"])) == 3


def test_a_folder_that_does_not_exist(folder: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        list_entries([folder / "none"])


def test_a_strangers_code_is_announced_once_and_only_when_it_runs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = find_tasks(["sum_one"], tasks_dirs=[folder])
    assert capsys.readouterr().err == ""
    assert [document.prompt for document in tasks[0].load()] == ["a", "b"]
    tasks[0].load()
    assert capsys.readouterr().err.count("which is code beside a task file") == 1


def test_the_fingerprint_follows_the_code_too(folder: Path) -> None:
    before = find_tasks(["sum_one"], tasks_dirs=[folder])[0].fingerprint
    (folder / "sums" / "make.py").write_text(CODE + "# changed\n")
    assert find_tasks(["sum_one"], tasks_dirs=[folder])[0].fingerprint != before


def test_a_package_with_an_entry_point(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "riddles"
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(folder))
    points = [
        EntryPoint("good", "riddles", registry.GROUP),
        EntryPoint("bad", "no_such_package", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    listed = {entry.name: entry.problem for entry in list_entries()}
    assert listed["riddle_one"] is None
    assert "gives no folder of tasks (ModuleNotFoundError" in str(listed["bad"])


def test_prompts_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Write a poem.\n\nWhy is the sky blue?\n")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a\\nb", "doc_id": "x"}\n')
    text, rows = find_tasks([f"prompts:{tmp_path}/mine.txt", f"prompts:{tmp_path}/rows.jsonl"])
    assert (text.name, text.judged, text.headline, text.area) == ("prompts:mine", True, None, "helpfulness")
    assert [document.prompt for document in text.load()] == ["Write a poem.", "Why is the sky blue?"]
    assert [(document.doc_id, document.prompt) for document in rows.load()] == [("x", "a\nb")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.txt", "\n", "holds no prompts"),
        ("p.jsonl", '{"text": "x"}', "no text in 'prompt'; its columns are text"),
        ("p.jsonl", '{"prompt": "x", "doc_id": 1}\n{"prompt": "y", "doc_id": 1}', "the doc_id '1'"),
        ("none.txt", None, "no file"),
    ],
)
def test_prompts_that_cannot_be_used(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=says):
        find_tasks([f"prompts:{tmp_path / name}"])


def test_check_names_all_problems(folder: Path) -> None:
    (folder / "sums" / "bad.yaml").write_text("task: bad\nkind: generate\nprompt: x\n")
    (folder / "sums" / "lost.yaml").write_text(
        TEMPLATE.format(name="lost").replace("make.py:rows", "make.py:row")
    )
    (folder / "sums" / "twin.yaml").write_text(TEMPLATE.format(name="sum_one"))
    reports = {Path(report["path"]).name: report for report in check_path(folder)}
    assert len(reports["bad.yaml"]["problems"]) == 2
    assert "has no function 'row' (did you mean 'rows'?)" in reports["lost.yaml"]["problems"][0]
    assert "is also that of" in reports["twin.yaml"]["problems"][0]
    assert reports["riddle_one.yaml"]["status"] == "good; 2 documents"
    assert reports["riddle_one.yaml"]["problems"] == []


def test_every_shipped_file_is_good() -> None:
    broken = [entry.problem for entry in list_entries() if entry.problem]
    assert not broken
    assert (tasks_root() / "truthfulqa").is_dir()


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from alignbench.tasks.registry import find_tasks; find_tasks(['truthfulqa'])\n"
        "heavy = {'torch', 'transformers', 'datasets', 'evaluate', 'pandas', 'plotly', 'scipy', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_prompts_that_are_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"p\.txt cannot be read .* save it as UTF-8"):
        find_tasks([f"prompts:{tmp_path / 'p.txt'}"])
