"""docs/tasks.md agrees with the code: every key, every built-in name, and examples that work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from alignbench.metrics import BUILT_IN, COMBINE, CORPUS, PER_TOKEN
from alignbench.tasks import spec
from alignbench.tasks.check import check_path
from alignbench.tasks.documents import load_documents
from alignbench.tasks.spec import read_spec
from alignbench.tasks.starter import write_starter
from alignbench.tasks.suites import problems_of_suite

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
MODELS = ("TaskSpec", "DataSpec", "FewShotSpec", "GenerationSpec", "MetricSpec", "ScorerSpec")


def rows_of(model: str) -> dict[str, str]:
    """Key → what the page says of it."""
    table = PAGE.split(f"<!-- keys: {model} -->\n", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    found: dict[str, str] = {}
    for line in table:
        _, keys, words, _ = re.split(r"(?<!\\)\|", line)
        found |= dict.fromkeys(re.findall(r"`(\w+)`", keys), words)
    return found


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.M | re.S)


@pytest.mark.parametrize("name", MODELS)
def test_every_key_is_in_its_table_and_no_other(name: str) -> None:
    model: type[BaseModel] = getattr(spec, name)
    rows = rows_of(name)
    assert list(rows) == list(model.model_fields)
    needed = {key for key, field in model.model_fields.items() if field.is_required()}
    assert {key for key, words in rows.items() if "**Needed**" in words} == needed
    assert all(len(words.strip()) > 5 for words in rows.values())


def test_the_tables_are_all_there_are() -> None:
    parts = {
        name
        for name, value in vars(spec).items()
        if isinstance(value, type) and issubclass(value, spec._Part)
    }
    assert parts - {"_Part"} == set(MODELS)
    assert re.findall(r"<!-- keys: (\w+) -->", PAGE) == list(MODELS)


def test_every_built_in_metric_is_named() -> None:
    listed = PAGE.split("<!-- metrics -->\n", 1)[1].split("\n\n", 1)[0]
    for item in re.split(r"^- ", listed, flags=re.M)[1:]:
        kind, *names = re.findall(r"`(\w+)`", item)
        extra = PER_TOKEN if kind == "multiple_choice" else ()
        assert sorted(names) == sorted([*BUILT_IN[kind], *CORPUS[kind], *extra]), kind
    assert listed.count("\n- ") + 1 == len(BUILT_IN)
    named = PAGE.split("<!-- combine -->\n", 1)[1].split(". Every", 1)[0]
    assert sorted(re.findall(r"`(\w+)`", named)) == sorted(COMBINE)


def test_the_five_minutes(tmp_path: Path) -> None:
    """Step 2, done as it says."""
    path, _ = write_starter("riddles", "generate", tmp_path)
    (tmp_path / "riddles.csv").write_text(
        "number,riddle,solution\n1,What has keys?,a piano\n2,What ticks?,a clock\n3,What burns?,a log\n"
    )
    changed = next(block for block in blocks("yaml") if "riddles.csv" in block)
    text = path.read_text()
    for key, value in yaml.safe_load(changed).items():
        start = re.search(rf"^{key}:.*\n(?:  .*\n)*", text, flags=re.M)
        assert start is not None, key
        text = text.replace(start.group(), yaml.safe_dump({key: value}))
    path.write_text(text)
    (report,) = check_path(path)
    assert (report["problems"], report["status"]) == ([], "good; 3 documents")
    documents = load_documents(read_spec(path), path, mirror=None, seed=0, trusted=True)
    assert documents[0].prompt.endswith("\n\nRiddle: What has keys?\nSolution:")
    assert (documents[0].doc_id, documents[0].target) == ("1", "a piano")


def test_the_example_of_scorers_is_a_good_task(tmp_path: Path) -> None:
    example: dict[str, Any] = yaml.load(
        next(block for block in blocks("yaml") if "true_informative" in block), yaml.BaseLoader
    )
    assert set(example["scorers"]["truth"]) == {"prompt", "yes", "no"}
    text = next(block for block in blocks("yaml") if "true_informative" in block)
    head = "task: t\narea: toxicity\nkind: generate\ndescription: D.\n"
    head += "data: {hub: r.jsonl}\nprompt: '{{ question }}'\n"
    (tmp_path / "t.yaml").write_text(head + text)
    (tmp_path / "mine.py").write_text("def both(fields, outputs, scores):\n    return 1.0\n")
    (tmp_path / "r.jsonl").write_text('{"question": "q"}\n')
    (report,) = check_path(tmp_path / "t.yaml")
    assert report["problems"] == []


def test_the_example_of_a_suite_is_a_good_suite(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(next(block for block in blocks("yaml") if block.startswith("suite:")))
    assert problems_of_suite(tmp_path / "s.yaml") == []


def test_the_example_of_a_function_runs() -> None:
    space: dict[str, Any] = {}
    exec(next(block for block in blocks("python") if "def short" in block), space)
    assert (space["short"]({}, "a b c"), space["short"]({}, "a b c d e f")) == (1.0, 0.0)
