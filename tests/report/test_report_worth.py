"""What a judge is worth stands beside its win-rates, and recorded outputs say how they were joined."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from alignbench.cli.evaluation import summary
from alignbench.compare.results import read_results
from alignbench.report import build

COIN = {"mean": 0.556, "stderr": 0.03, "ci": [0.491, 0.619], "n": 232}


@pytest.fixture
def page(folder: Path, tmp_path: Path):
    """The report of a run whose second judge, ``rm``, is changed, and the run's folder."""

    def make(judge: dict[str, Any], **fields: Any) -> tuple[str, Path]:
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in ("results.json", "run.json", "samples.parquet", "preferences.parquet"):
            shutil.copy(folder / name, copy)
        data = json.loads((copy / "results.json").read_text())
        data["judges"][1] |= judge
        (copy / "results.json").write_text(json.dumps(data | fields))
        return build(copy).read_text(encoding="utf-8"), copy

    return make


def ladder(html: str) -> str:
    start = html.index('<section id="ladder">')
    return html[start : html.index("</section>", start)]


def test_a_coin_is_marked_wherever_its_word_stands(page) -> None:
    html, folder = page({"accuracy": COIN, "worth": "at_chance", "data": "hh_rlhf", "base": "pocket"})
    section = ladder(html)
    assert (
        "Judge rm (a reward model trained on hh_rlhf from pocket) picks the preferred response in 55.6 % "
        "[49.1, 61.9] of 232 held-out pairs of its own data: not distinguishable from a coin."
    ) in section
    assert "rated higher †" in section
    assert "not which are better" in section
    assert html.count("rm <abbr") > 5  # in the facts, the table at a glance, the ladder, its tables
    assert "gold <abbr" not in html
    said = summary(read_results(folder))
    assert "† Judge rm (a reward model" in said
    assert " rated higher †" in said
    assert "Judge gold: exact, by program." not in said  # its worth was not written in this file


def test_a_judge_that_beats_a_coin_is_not_marked(page) -> None:
    html, folder = page({"worth": "above_chance"})
    assert "of 512 held-out pairs of its own data: right about seven times in ten." in ladder(html)
    assert "†" not in html
    assert "†" not in summary(read_results(folder))


def test_results_of_before_still_open(page) -> None:
    html, _ = page({"accuracy": None})
    assert "so what its word is worth is not known" in ladder(html)


def test_recorded_outputs(page) -> None:
    row = {
        "policy": "base",
        "task": "pocket_instructions",
        "joined_by": ["prompt"],
        "documents": 240,
        "missing": 3,
        "missing_ids": ["d1", "<b>d2", "d3"],
        "unmatched_rows": 7,
        "unmatched_first": [9],
    }
    html, _ = page({}, recorded=[row])
    assert "<h3>Recorded outputs</h3>" in html
    assert "d1, &lt;b&gt;d2, d3" in html


def test_a_task_without_a_score_is_counted(page, folder: Path) -> None:
    asked = {"tasks": {"self_instruct": {"documents": 252}}}
    html, _ = page({}, tasks=[], deltas=[], tax=[], provenance=asked)
    assert "<span>1 task</span>" in html
    assert "<span>252 documents</span>" in html
    assert 'href="#tasks"' not in html
