"""Prompts in the report: what all begin with stands once, and the end of a long one is not lost."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from test_report_page import edit

from alignbench.report import build
from alignbench.report.run import read_run
from alignbench.report.samples import COMMON, common_beginning, side_by_side
from alignbench.report.text import clip_middle

SHOTS = "".join(f"Question {i}: what is {i} and {i}?\nAnswer: {2 * i}\n\n" for i in range(40))


def test_the_middle_is_left_out() -> None:
    assert clip_middle("abcdef", 6) == "abcdef"
    assert clip_middle("abcdefghij", 4) == "ab … [6 more characters] … ij"


def test_what_all_begin_with_ends_with_an_empty_line() -> None:
    assert common_beginning({SHOTS + "Q: a", SHOTS + "Q: b"}) == SHOTS
    assert common_beginning({SHOTS + "Q: a"}) == ""  # it would be the whole prompt's
    assert common_beginning({"Q: a\n\nb", "Q: a\n\nc"}) == ""  # short
    assert common_beginning({"x" * 2 * COMMON + "a", "x" * 2 * COMMON + "b"}) == ""  # within a paragraph


@given(st.sets(st.text("ab\n", max_size=12).map(lambda text: SHOTS[:300] + text), max_size=4))
def test_nothing_of_a_prompt_is_lost(prompts: set[str]) -> None:
    common = common_beginning(prompts)
    assert all(prompt.startswith(common) for prompt in prompts)
    assert common == "" or (common.endswith("\n\n") and len(common) >= COMMON)


def test_exemplars_stand_once_above_the_cards(folder: Path, tmp_path: Path) -> None:
    run = edit(folder, tmp_path / "run")
    table = pq.read_table(run / "samples.parquet")
    longer = [SHOTS + prompt for prompt in table["prompt"].to_pylist()]
    place = table.column_names.index("prompt")
    pq.write_table(table.set_column(place, "prompt", [longer]), run / "samples.parquet")
    groups = side_by_side(read_run(run))
    assert all(group.common.startswith("Question 0:") for group in groups if len(group.cards) > 1)
    assert not any("Question 0:" in card.prompt for group in groups for card in group.cards if group.common)
    page = build(run).read_text()
    assert page.count("Question 39: what is 39 and 39?") <= len(groups)
    assert "All prompts begin with the same" in page
