"""What scores outputs: metrics of scorers, statistics of sums, and which metric is the headline."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.engines.types import Completion
from alignbench.errors import UsageError, WorkError
from alignbench.metrics import linearise
from alignbench.tasks.registry import find_tasks
from alignbench.tasks.scoring import with_scorers
from alignbench.tasks.types import Document, Task

TASK = """\
task: answers
area: truthfulness
kind: generate
description: Answers.
data: {hub: rows.jsonl}
prompt: "{{ q }}"
target: a
generation: {samples: 2, temperature: 1.0}
metrics:
  - {name: mean_x, scorer: x}
  - {name: max_x, scorer: x, summary: max}
  - {name: any_x, scorer: x, summary: any}
  - {name: both, scorer: [x, y], function: "code.py:both"}
  - {name: several, scorer: y, function: "code.py:several", bounds: [0, 10]}
  - {name: exact_match}
headline: [both, mean_x, exact_match]
scorers:
  x: {prompt: "{{ q }} {{ output }} Good?", yes: " good", no: " bad"}
"""
SUMS = """\
task: sums
area: bias
kind: generate
description: A bias score.
data: {hub: rows.jsonl}
prompt: "{{ q }}"
target: a
metrics:
  - {name: share, function: "code.py:counts", combine: "code.py:of_two"}
  - {name: named, function: "code.py:counts", combine: ratio}
  - {name: bleu}
  - {name: exact_match}
headline: share
"""
CODE = """\
def both(fields, outputs, scores):
    return min(scores["x"]) * max(scores["y"]) if fields["q"] == "q" else None


def several(fields, outputs, scores):
    return {"several": len(outputs) + scores["y"][0]}


def counts(fields, output):
    return {"share": [output.count("a"), len(output)], "named": [output.count("a"), len(output)]}


def of_two(sums):
    return sums[0] / sums[1] if sums[1] else None
"""
DOC = Document("d", {"q": "q", "a": "Rome"}, "q", references=("Rome",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "answers.yaml").write_text(TASK)
    (tmp_path / "sums.yaml").write_text(SUMS)
    (tmp_path / "code.py").write_text(CODE)
    (tmp_path / "rows.jsonl").write_text('{"q": "q", "a": "A"}\n')
    return tmp_path


def task(folder: Path, name: str = "answers") -> Task:
    return find_tasks([name], tasks_dirs=[folder])[0]


def text(output: str) -> Completion:
    return Completion(output, (), (), (), (), "eos")


# --- rate --------------------------------------------------------------------------------------------------


def test_scores_become_metrics_by_hand(folder: Path) -> None:
    found = task(folder)
    assert found.rate is not None
    values = found.rate(DOC, ["one", "two"], {"x": [0.2, 0.6], "y": [0.5, 0.25]})
    assert values == {
        "mean_x": pytest.approx(0.4),
        "max_x": 0.6,
        "any_x": 1.0,
        "both": pytest.approx(0.1),
        "several": 2.5,
    }
    assert found.score(DOC, text("Rome")) == {"exact_match": 1.0}  # by rule, and nothing of the scorers


def test_only_what_is_given_is_rated(folder: Path) -> None:
    rate = task(folder).rate
    assert rate is not None
    assert set(rate(DOC, ["one"], {"x": [0.2]})) == {"mean_x", "max_x", "any_x"}
    assert rate(DOC, ["one"], {}) == {}


def test_a_failed_score_makes_every_summary_missing(folder: Path) -> None:
    rate = task(folder).rate
    assert rate is not None
    values = rate(DOC, ["one", "two"], {"x": [0.9, None]})
    assert values == {"mean_x": None, "max_x": None, "any_x": None}


@pytest.mark.parametrize("n", [1, 3])
def test_a_maximum_over_another_number_of_outputs_is_none(folder: Path, n: int) -> None:
    rate = task(folder).rate
    assert rate is not None
    values = rate(DOC, ["o"] * n, {"x": [0.5] * n})
    assert values == {"mean_x": 0.5, "max_x": None, "any_x": None}


def test_what_a_function_may_not_give(folder: Path) -> None:
    rate = task(folder).rate
    assert rate is not None
    with pytest.raises(
        WorkError, match=r"code.py:several gives 12 for the metric 'several', outside 0 to 10"
    ):
        rate(DOC, ["one", "two"], {"y": [10.0]})
    (folder / "code.py").write_text(CODE.replace('"several": len', '"severl": len'))
    changed = task(folder.rename(folder.with_name("other"))).rate  # a module is loaded once a path
    assert changed is not None
    with pytest.raises(WorkError, match="gives no value for the metric 'several'"):
        changed(DOC, ["one"], {"y": [1.0]})


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_any_follows_from_max_and_no_mean_exceeds_it(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float]
) -> None:
    base = tmp_path_factory.getbasetemp() / "rated"
    if not base.exists():
        base.mkdir()
        (base / "answers.yaml").write_text(TASK)
        (base / "code.py").write_text(CODE)
    rate = task(base).rate
    assert rate is not None
    values = rate(DOC, ["o"] * len(scores), {"x": scores})
    mean, most = values["mean_x"], values["max_x"]
    assert mean is not None
    assert most is not None
    assert mean <= most + 1e-12
    assert values["any_x"] == float(most >= 0.5)


def test_what_a_language_model_is_asked(folder: Path) -> None:
    question = task(folder).questions["x"]
    assert question.prompt(DOC, "{{ q }}") == "q {{ q }} Good?"  # an output is text, never a template
    assert (question.yes, question.no) == (" good", " bad")


# --- combine -----------------------------------------------------------------------------------------------


def test_a_statistic_of_sums_by_hand(folder: Path) -> None:
    found = task(folder, "sums")
    outputs = ["aab", "b", "abbb"]
    rows = [found.score(DOC, text(output)) for output in outputs]
    assert [row["share"] for row in rows] == [(2.0, 3.0), (0.0, 1.0), (1.0, 4.0)]
    assert set(found.combine) == {"share", "named", "bleu"}
    assert found.combine["share"]([3.0, 8.0]) == 3 / 8
    assert found.combine["named"]([3.0, 8.0]) == 3 / 8
    spread = linearise([row["share"] for row in rows], found.combine["share"])
    assert sum(value for value in spread if value is not None) / 3 == pytest.approx(3 / 8)
    assert isinstance(rows[0]["bleu"], tuple)
    assert rows[0]["exact_match"] == 0.0


def test_a_statistic_that_is_not_defined(folder: Path) -> None:
    assert task(folder, "sums").combine["share"]([0.0, 0.0]) is None


# --- with_scorers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_names", "headline", "metrics"),
    [
        (["x", "y"], "both", ["mean_x", "max_x", "any_x", "both", "several", "exact_match"]),
        (["x"], "mean_x", ["mean_x", "max_x", "any_x", "exact_match"]),
        (["y"], "exact_match", ["several", "exact_match"]),
        ([], "exact_match", ["exact_match"]),
    ],
)
def test_the_first_headline_whose_scorers_are_at_hand(
    folder: Path, given_names: list[str], headline: str, metrics: list[str]
) -> None:
    found = with_scorers(task(folder), given_names)
    assert found.headline == headline
    assert [metric.name for metric in found.metrics] == metrics


def test_a_task_of_scorers_alone_says_what_to_give(folder: Path) -> None:
    bare = TASK.replace("  - {name: exact_match}\n", "").replace(", exact_match]", "]")
    (folder / "answers.yaml").write_text(bare)
    with pytest.raises(
        UsageError, match=r"task answers is scored by x and y, .*--scorer x=SPEC --scorer y=SPEC"
    ):
        with_scorers(task(folder), [])
    (folder / "answers.yaml").write_text(bare + "judged: true\n")
    assert with_scorers(task(folder), []).metrics == ()
