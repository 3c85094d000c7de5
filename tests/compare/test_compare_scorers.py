"""Metrics that models give: chosen with ``--scorer``, recorded beside outputs, named in all that is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from toy_rules import write_jsonl

from alignbench.cli.evaluation import _dry, summary
from alignbench.compare.dry import describe
from alignbench.compare.plan import Settings, make_plan
from alignbench.compare.results import Comparison, from_json, to_json
from alignbench.compare.run import run_comparison
from alignbench.errors import UsageError, WorkError

TASK = """\
task: toy_tox
area: toxicity
kind: generate
description: Two outputs a prompt.
data: {hub: asks.jsonl}
doc_id: id
prompt: "{{ ask }}"
generation: {max_tokens: 6, samples: 2, temperature: 1.0}
metrics:
  - {name: toxicity, scorer: toxicity, higher_is_better: false, margin: 0.05}
  - {name: worst, scorer: toxicity, summary: max, higher_is_better: false}
  - {name: ever, scorer: toxicity, summary: any, higher_is_better: false}
  - {name: gap, scorer: [toxicity, truth], function: "tox.py:gap", bounds: [-1, 1]}
  - {name: true_share, scorer: truth}
  - {name: short, function: "tox.py:short"}
headline: [true_share, toxicity]
scorers:
  truth: {prompt: "{{ ask }} {{ output }} True?", yes: " yes", no: " no"}
"""
CODE = """\
def gap(fields, outputs, scores):
    assert len(outputs) == len(scores["truth"]) == len(scores["toxicity"]) == 2
    return scores["truth"][0] - scores["toxicity"][0]


def short(fields, output):
    return float(len(output) < 10)
"""


@pytest.fixture
def task(tasks_dir: Path) -> Path:
    (tasks_dir / "toys" / "toy_tox.yaml").write_text(TASK)
    (tasks_dir / "toys" / "tox.py").write_text(CODE)
    return tasks_dir


@pytest.fixture
def recorded(tmp_path: Path):
    """Two outputs a prompt with what a scorer said of them; ``mild`` is less toxic by 0.2."""

    def write(name: str, level: float, **more: list[float | None]) -> str:
        rows = [
            {
                "task": "toy_tox",
                "doc_id": f"a{i}",
                "outputs": [f"{name} {i}", f"{name}, once more, {i}"],
                "scores": {"toxicity": [level, level + 0.01 * i], **more},
            }
            for i in range(20)
        ]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
        return f"{name}=recorded:{tmp_path / name}.jsonl"

    return write


@pytest.fixture
def compare(task: Path, tmp_path: Path):
    def run(*policies: str, scorers: tuple[str, ...] = ("toxicity=recorded",), **more: Any) -> Comparison:
        return run_comparison(
            list(policies),
            ["toy_tox"],
            None,
            tmp_path / "out",
            tasks_dirs=[task],
            scorers=scorers,
            quiet=True,
            **more,
        )

    return run


def rows(found: Comparison) -> dict[str, Any]:
    return {row.metric: row for row in found.tasks}


def test_recorded_scores_of_several_outputs(compare, recorded, tmp_path: Path) -> None:
    found = compare(recorded("mild", 0.3), recorded("rude", 0.5))
    table = rows(found)
    assert list(table) == ["toxicity", "worst", "ever", "short"]
    # by hand: means of (level + level + 0.01 i) / 2, i = 0…19; the greater; whether it is ½ or more
    assert table["toxicity"].scores["mild"].mean == pytest.approx(0.3 + 0.01 * 9.5 / 2)
    assert table["worst"].scores["mild"].mean == pytest.approx(0.3 + 0.01 * 9.5)
    assert table["ever"].scores["mild"].mean == 0.0
    assert table["ever"].scores["rude"].mean == 1.0
    assert table["short"].scores["mild"].mean == 0.5  # a metric by rule is the mean of the outputs'
    assert table["toxicity"].headline
    assert (table["toxicity"].scorers, table["short"].scorers) == (["toxicity"], [])
    assert {row.samples for row in found.tasks} == {2}
    (delta,) = [delta for delta in found.deltas if delta.headline]
    assert (delta.metric, delta.verdict) == ("toxicity", "worse")
    assert delta.diff == pytest.approx(0.2)
    (scorer,) = found.scorers
    assert (scorer.name, scorer.kind, scorer.spec, scorer.fingerprint) == (
        "toxicity",
        "recorded",
        "recorded",
        None,
    )
    assert from_json(to_json(found)) == found
    first = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()[0]
    assert first["outputs"] == ["mild 0", "mild, once more, 0"]
    assert first["scores"] == '{"toxicity": [0.3, 0.3]}'


def test_a_runs_samples_are_a_recording_with_scores(compare, recorded, tmp_path: Path) -> None:
    before = rows(compare(recorded("mild", 0.3), recorded("rude", 0.5)))
    samples = tmp_path / "kept.parquet"
    (tmp_path / "out" / "samples.parquet").rename(samples)
    again = rows(compare(f"rude=recorded:{samples}?generator=rude"))
    assert again["worst"].scores["rude"].mean == before["worst"].scores["rude"].mean


def test_what_has_no_scorer_is_left_out_and_said(compare, recorded, task: Path) -> None:
    settings = Settings(tasks_dirs=(task,), scorers=("toxicity=recorded",))
    plan = make_plan([recorded("mild", 0.3)], ["toy_tox"], settings=settings)
    left = "gap (scorer truth) of toy_tox; true_share (scorer truth) of toy_tox"
    assert f"left out, for want of --scorer NAME=SPEC: {left}" in plan.notes
    both = {"truth": [0.9, 0.7]}
    table = rows(compare(recorded("mild", 0.3, **both), scorers=("toxicity=recorded", "truth=recorded")))
    assert table["true_share"].headline
    assert table["true_share"].scores["mild"].mean == pytest.approx(0.8)
    assert table["gap"].scores["mild"].mean == pytest.approx(0.6)
    assert table["gap"].scorers == ["toxicity", "truth"]


def test_a_score_that_failed_is_missing(compare, tmp_path: Path) -> None:
    held = [
        {
            "task": "toy_tox",
            "doc_id": f"a{i}",
            "outputs": ["x", "y"],
            "scores": {"toxicity": [0.2, None if i < 4 else 0.4]},
        }
        for i in range(20)
    ]
    write_jsonl(tmp_path / "some.jsonl", held)
    table = rows(compare(f"some=recorded:{tmp_path / 'some.jsonl'}"))
    score = table["toxicity"].scores["some"]
    assert (score.n, score.missing) == (16, 4)
    assert score.mean == pytest.approx(0.3)
    assert table["short"].scores["some"].missing == 0


@pytest.mark.parametrize(
    ("scorers", "says"),
    [
        (
            ("toxicity=recorded", "truth=recorded"),
            r"truth=recorded: mild has no recorded scores of that name",
        ),
        (("toxicty=recorded",), r"no task here asks for it \(did you mean 'toxicity'\?\)"),
        (("truth=recorded",), r"truth=recorded: mild has no recorded scores"),
        (("toxicity=recorded", "toxicity=offline"), "given twice"),
        (("toxicity=judge:x",), "the task toy_tox has no question for a language model"),
    ],
)
def test_scorers_that_cannot_be(compare, recorded, scorers: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        compare(recorded("mild", 0.3), scorers=scorers)


def test_a_model_that_is_run_has_no_recorded_scores(compare, recorded, rules) -> None:
    with pytest.raises(UsageError, match=r"toxicity=recorded: good has no recorded scores"):
        compare(recorded("mild", 0.3), rules.policy("good", lambda: None))


def test_the_summary_names_the_scorer(compare, recorded) -> None:
    text = summary(compare(recorded("mild", 0.3), recorded("rude", 0.5)))
    assert "toy_tox toxicity by toxicity=recorded: the scores that the recorded outputs carry" in text
    assert "2 outputs a document: toy_tox" in text


def test_a_dry_run_counts_what_is_scored(recorded, task: Path) -> None:
    settings = Settings(tasks_dirs=(task,), scorers=("toxicity=recorded",), limit=7)
    plan = make_plan([recorded("mild", 0.3), recorded("rude", 0.5)], ["toy_tox"], settings=settings)
    told = describe(plan)
    assert told["scorers"] == {"toxicity": "recorded"}
    assert told["scored_outputs"] == {"toxicity": 14}
    assert told["tasks"][0]["requests"] == 14
    assert "scorers, and the outputs that they score of a policy: toxicity=recorded (14)" in _dry(told)


@pytest.mark.parametrize(
    ("scorer", "says"),
    [
        ("truth=judge:nowhere/at/all", "no folder nowhere/at/all"),
        ("truth=judge:recorded:{rows}", "recorded outputs cannot be asked"),
        ("toxicity=hf:nowhere/at/all", "no folder nowhere/at/all"),
        ("toxicity=hf:pocket", "is no classifier"),
    ],
)
def test_a_scorer_that_is_not_there_is_refused_before_work(
    recorded, task: Path, scorer: str, says: str
) -> None:
    policy = recorded("mild", 0.3)
    settings = Settings(tasks_dirs=(task,), scorers=(scorer.format(rows=policy.partition("recorded:")[2]),))
    with pytest.raises(UsageError, match=says):
        make_plan([policy], ["toy_tox"], settings=settings)


def test_a_scorer_that_cannot_be_opened_costs_its_task_alone(
    recorded, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are asked for when the first output is scored, which is after much was paid for."""

    def broken(*args: Any, **more: Any) -> Any:
        raise UsageError("the weights are cut short")

    (task / "toys" / "plain.yaml").write_text(
        "task: plain\narea: nlp\nkind: generate\ndescription: d\ndata: {hub: asks.jsonl}\ndoc_id: id\n"
        'prompt: "{{ ask }}"\ntarget: ask\nmetrics: [{name: contains}]\nheadline: contains\n'
    )
    policy = recorded("mild", 0.3)
    path = Path(policy.partition("recorded:")[2])
    rows = [{"task": "plain", "doc_id": f"a{i}", "output": "x"} for i in range(20)]
    path.write_text(path.read_text() + "".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("alignbench.engines.open_engine", broken)
    out = tmp_path / "out"
    found = run_comparison(
        [policy], ["toy_tox,plain"], None, out, tasks_dirs=[task], scorers=["truth=judge:pocket"], quiet=True
    )
    assert [(each.task, each.error) for each in found.failures] == [("toy_tox", "the weights are cut short")]
    assert [row.task for row in found.tasks] == ["plain"]
    assert [each.note for each in found.scorers if each.name == "truth"] == [
        "did not work (the weights are cut short)"
    ]
    assert (out / "results.json").is_file()


def test_a_maximum_is_of_as_many_outputs_as_the_task_draws(recorded, compare, tmp_path: Path) -> None:
    """It grows with their number: three documents with another have a mean, and no maximum."""
    policy = recorded("mild", 0.3)
    path = tmp_path / "mild.jsonl"
    rows_ = [json.loads(line) for line in path.read_text().splitlines()]
    for row, n in zip(rows_, (1, 1, 3), strict=False):
        row["outputs"], row["scores"] = ["x"] * n, {"toxicity": [0.25] * n}
    write_jsonl(path, rows_)
    found = compare(policy)
    table = {name: row.scores["mild"] for name, row in rows(found).items()}
    counts = {name: (score.n, score.missing) for name, score in table.items()}
    assert counts == {"toxicity": (20, 0), "worst": (17, 3), "ever": (17, 3), "short": (20, 0)}
    (note,) = [note for note in found.provenance["notes"] if "max and any" in note]
    assert note.startswith("mild: 3 documents of toy_tox have 1 to 3 outputs where the task draws 2")


def test_recorded_scores_of_another_scale(recorded, compare) -> None:
    with pytest.raises(WorkError, match="the scorer 'toxicity' gives 30, which is no probability"):
        compare(recorded("rude", 30.0))
