"""The levels of guessing, and who does not beat them: in the page, and in the terminal's table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alignbench.cli.evaluation import summary
from alignbench.compare.results import Comparison, PolicyResult, Score, TaskResult, write_results
from alignbench.report import build


def row(task: str, chance: float | None, majority: float | None, **scores: Score) -> TaskResult:
    return TaskResult(
        task, "nlp", "accuracy", True, True, None, chance, 100, scores, unit="rate", majority=majority
    )


@pytest.fixture
def found() -> Comparison:
    good, level = Score(0.8, 0.04, (0.71, 0.87), 100), Score(0.52, 0.05, (0.42, 0.62), 100)
    low = Score(0.42, 0.05, (0.33, 0.52), 100, cut=97)
    tasks = [
        row("rte", 0.5, 0.57, good=good, level=level, low=low),
        row("hellaswag", 0.25, None, good=good, level=Score(0.26, 0.04, (0.18, 0.35), 100)),
        row("free", None, None, good=good, level=level, low=low),
    ]
    names = ("good", "level", "low")
    policies = [PolicyResult(name, name, None, "hf") for name in names]
    return Comparison(policies, tasks, [], [], [], "A verdict.", reference="good")


def cells(html: str, task: str) -> list[str]:
    """The text of one row's cells in the task table."""
    table = html[html.index('id="task-table"') :]
    (found,) = re.findall(rf'<tr class="head">\s*<th scope="row" data-v="{task}">(.*?)</tr>', table, re.S)
    plain = [re.sub(r"<[^>]+>", " ", cell) for cell in found.split("<td")[1:]]
    return [" ".join(text.split(">", 1)[1].split()) for text in plain]


def test_the_page_shows_levels_and_standing(found: Comparison, tmp_path: Path) -> None:
    write_results(found, tmp_path)
    html = build(tmp_path).read_text()
    assert cells(html, "rte") == [
        "80.0 [71.0, 87.0]",
        "52.0 [42.0, 62.0] not above majority",
        "42.0 [33.0, 52.0] 97 prompts cut to the context below majority",
        "50.0",
        "57.0",
        "100",
        "NLP skills",
    ]
    assert cells(html, "hellaswag")[1:5] == ["26.0 [18.0, 35.0] not above chance", "not run", "25.0", "–"]
    assert cells(html, "free")[1] == "52.0 [42.0, 62.0]"
    assert html.count('class="guess under"') == 1


def test_the_terminal_shows_levels_and_standing(found: Comparison) -> None:
    lines = summary(found).splitlines()
    rte = next(line for line in lines if " rte " in line)
    assert re.split(r" {2,}", rte)[2:] == [
        "80.0 % [71.0, 87.0]",
        "52.0 % [42.0, 62.0] °",
        "42.0 % [33.0, 52.0] ↓",
        "50.0 %",
        "57.0 %",
    ]
    assert lines[0].split()[-2:] == ["chance", "majority"]
    assert "° the interval holds what guessing scores (majority, else chance); ↓ surely below it" in lines
    assert "prompts that lost their beginning to fit the model's context: low (rte 97, free 97)" in lines


def test_columns_and_lines_that_nobody_needs_are_left_out(found: Comparison) -> None:
    one = found.tasks[2]
    plain = TaskResult("free", "nlp", "m", True, True, None, None, 100, {"good": one.scores["good"]})
    bare = Comparison(found.policies[:1], [plain], [], [], [], "A verdict.", kind="eval")
    text = summary(bare)
    assert "chance" not in text
    assert "majority" not in text
    assert "context" not in text
