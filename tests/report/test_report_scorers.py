"""What a model scored is named wherever its numbers stand; of several outputs all are shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic_run
from test_report_page import edit, shown

from alignbench.report import build
from alignbench.report.pages import Ask, read_page
from alignbench.report.run import Run, read_run
from alignbench.report.samples import column_of, side_by_side

SPEC = "hf:org/toxic-&lt;b&gt;classifier&lt;/b&gt;"


def plain(html: str) -> str:
    """The text of the page, without the places where a line may break."""
    return re.sub(r"\s+", " ", shown(html).replace("<wbr>", ""))


def section(html: str, name: str) -> str:
    start = html.index(f'<section id="{name}"')
    return html[start : html.index("</section>", start)]


def test_the_scorer_is_named_at_its_rows_and_below_the_table(html: str) -> None:
    tasks = plain(section(html, "tasks"))
    assert tasks.count(f"scorer toxicity={SPEC}") == 2
    assert f"scorer toxicity={SPEC} · 4 outputs a document" in tasks
    assert f"<code>toxicity={SPEC}?label=toxic</code>" in tasks
    assert "text classifier, the probability of &lt;i&gt;toxic&lt;/i&gt;; 12 outputs were longer" in tasks
    assert "77aa01bc55de3210" in tasks
    assert f"scorer toxicity={SPEC}" in plain(section(html, "gain"))
    provenance = plain(section(html, "provenance"))
    assert "<h3>Policies, judges and scorers</h3>" in provenance
    assert f"<td>scorer, hf</td><td><code>{SPEC}?label=toxic</code></td>" in provenance


def test_what_a_scorer_is_called_stays_text(html: str) -> None:
    assert "<b>classifier" not in html
    assert "<i>toxic" not in html


def test_without_scorers_nothing_is_said_of_them(folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "results.json").read_text())
    tasks = [row | {"scorers": [], "samples": 1} for row in data["tasks"]]
    page = build(edit(folder, tmp_path / "run", scorers=[], tasks=tasks)).read_text()
    for word in (
        "Scored by a model",
        "scorer toxicity",
        "and scorers",
        "outputs a document",
        "What a scorer is",
    ):
        assert word not in shown(page)


def test_a_scorer_that_no_card_describes_is_still_named(folder: Path, tmp_path: Path) -> None:
    page = build(edit(folder, tmp_path / "run", scorers=[])).read_text()
    assert "scorer toxicity · 4 outputs a document" in plain(section(page, "tasks"))


def cards(run: Run, task: str) -> list[Any]:
    return next(group for group in side_by_side(run) if group.task == task).cards


def test_all_outputs_are_shown_with_their_scores(run: Run, html: str) -> None:
    output = cards(run, synthetic_run.SAMPLED)[0].outputs[0]
    assert [each.text[-7:] for each in output.drawn] == ["Draw 1.", "Draw 2.", "Draw 3.", "Draw 4."]
    assert [name for each in output.drawn for name, _ in each.scores] == ["toxicity"] * 4
    assert output.drawn[1].scores == [("toxicity", "missing")]
    assert output.scores == []
    shown_here = plain(section(html, "samples"))
    assert shown_here.count("3 more outputs") == 5 * len(cards(run, synthetic_run.SAMPLED))
    assert shown_here.count("Draw 4.") == shown_here.count("Draw 1.") > 0


def test_one_output_says_what_its_metric_does_not(run: Run, folder: Path, tmp_path: Path) -> None:
    """The toxicity of a single output is the metric itself; a second scorer's score is not."""
    (first,) = {len(card.outputs[0].scores) for card in cards(run, "pocket_toxicity_respectful")}
    assert first == 0
    other = edit(folder, tmp_path / "run")
    rows = pq.read_table(other / "samples.parquet").to_pylist()
    for row in rows:
        if row["task"] == "pocket_toxicity_respectful":
            row["scores"] = json.dumps(json.loads(row["scores"]) | {"truth": [0.25]})
    pq.write_table(pa.Table.from_pylist(rows), other / "samples.parquet")
    card = cards(read_run(other), "pocket_toxicity_respectful")[0]
    assert all(output.scores == [("truth", "0.25")] for output in card.outputs)
    assert "scorer truth <b>0.25</b>" in (build(other)).read_text()


@pytest.mark.parametrize("scores", ["{", "[1]", '{"toxicity": 3}', '"x"', None])
def test_scores_that_cannot_be_read_cost_only_themselves(
    folder: Path, tmp_path: Path, scores: str | None
) -> None:
    other = edit(folder, tmp_path / "run")
    rows = pq.read_table(other / "samples.parquet").to_pylist()
    pq.write_table(
        pa.Table.from_pylist([row | {"scores": scores} for row in rows]), other / "samples.parquet"
    )
    output = cards(read_run(other), synthetic_run.SAMPLED)[0].outputs[0]
    assert len(output.drawn) == 4
    assert output.drawn[0].scores == []


def test_samples_of_before_have_neither_column(folder: Path, tmp_path: Path) -> None:
    other = edit(folder, tmp_path / "run")
    table = pq.read_table(other / "samples.parquet").drop_columns(["outputs", "scores"])
    pq.write_table(table, other / "samples.parquet")
    assert cards(read_run(other), synthetic_run.SAMPLED)[0].outputs[0].drawn == []
    assert read_page(read_run(other), Ask(q="banner")).total > 0


def test_metrics_that_are_called_like_a_column() -> None:
    assert [column_of(name) for name in ("scores", "outputs", "toxicity")] == [
        "metric_scores",
        "metric_outputs",
        "toxicity",
    ]


def test_browse_shows_finds_and_compares_all_outputs(folder: Path, tmp_path: Path) -> None:
    run = read_run(folder)
    task = synthetic_run.SAMPLED
    page = read_page(run, Ask(task=task))
    assert all(len(output.drawn) == 4 for document in page.documents for output in document.card.outputs)
    assert (
        read_page(run, Ask(task=task, q="draw 3.")).total == page.total
    )  # only outputs behind the first say so
    assert read_page(run, Ask(q="draw 3.")).total == page.total
    assert read_page(run, Ask(task=task, q="draw 5.")).total == 0
    other = edit(folder, tmp_path / "run")
    rows = pq.read_table(other / "samples.parquet").to_pylist()
    for row in rows:  # every policy gives one first output, and the last of one document is another's
        row["output"] = "same"
        if row["outputs"]:
            last = row["policy"] if row["doc_id"].endswith("0007") else "same"
            row["outputs"] = ["same", last]
    pq.write_table(pa.Table.from_pylist(rows), other / "samples.parquet")
    found = read_page(read_run(other), Ask(task=task, show="outputs"))
    assert [document.card.doc_id for document in found.documents] == [f"{task}-0007"]
