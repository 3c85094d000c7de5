"""Which samples a page shows. The table is small enough to be read off by eye."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alignbench.compare.results import Comparison, PolicyResult, TaskResult, WinRate
from alignbench.report.pages import ALWAYS, PER_PAGE, Ask, choices, read_page
from alignbench.report.run import Run

# doc, then of policy a and b: the score (None: not measured) and the output
ROWS = [
    ("d1", (1.0, "yes"), (1.0, "yes")),
    ("d2", (1.0, "yes"), (0.0, "no")),
    ("d3", (0.0, "no"), (1.0, "yes")),
    ("d4", (None, "?"), (1.0, "yes")),
    ("d5", (0.5, "well"), (0.5, "hm")),
]
PREFERENCES = [("d2", "a", "b", 1.0), ("d3", "b", "a", 1.0), ("d4", "a", "b", None), ("d5", "b", "a", 0.5)]


def table(policies: str = "ab") -> list[dict[str, Any]]:
    return [
        {"policy": policy, "task": "t", "doc_id": doc, "prompt": f"What of {doc}?", "output": held[at][1],
         "target": "yes", "acc": held[at][0], "n_tokens": 1, "flags": []}
        for at, policy in enumerate(policies)
        for doc, *held in ROWS
    ]  # fmt: skip


def make(folder: Path, rows: list[dict[str, Any]], up: bool | None = True) -> Run:
    pq.write_table(pa.Table.from_pylist(rows), folder / "samples.parquet")
    said = [
        {"judge": "gold", "task": "t", "doc_id": doc, "a": a, "b": b, "preference": value,
         "score_a": None if value is None else value, "score_b": None if value is None else 1 - value}
        for doc, a, b, value in PREFERENCES
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(said), folder / "preferences.parquet")
    names = list(dict.fromkeys(row["policy"] for row in rows))
    task = TaskResult("t", "nlp", "acc", True, up, None, None, len(ROWS), {}, unit="rate")
    rate = WinRate("a", "b", "gold", None, 3, 2, 1, 0, 1, None, None, None, None, None, "inconclusive")
    policies = [PolicyResult(name, name, None, "hf") for name in names]
    results = Comparison(policies, [task], [], [rate], [], "", win_reference="b")
    return Run(folder, results, {})


def shown(run: Run, **asked: Any) -> str:
    page = read_page(run, Ask(**asked))
    assert page.total == len(page.documents)
    return " ".join(document.card.doc_id for document in page.documents)


@pytest.mark.parametrize(
    ("asked", "docs"),
    [
        ({}, "d1 d2 d3 d4 d5"),
        ({"show": "differ"}, "d2 d3 d4"),
        ({"show": "outputs"}, "d2 d3 d4 d5"),
        ({"policy": "a", "show": "right"}, "d1 d2"),
        ({"policy": "a", "show": "wrong"}, "d3 d5"),  # half marks are not right
        ({"policy": "a", "show": "missing"}, "d4"),
        ({"policy": "b", "show": "missing"}, ""),
        ({"show": "missing"}, "d4"),
        ({"show": "wrong"}, "d2 d3 d5"),
        ({"policy": "a", "beside": "b", "show": "better"}, "d2"),
        ({"policy": "a", "beside": "b", "show": "worse"}, "d3"),
        ({"policy": "b", "beside": "a", "show": "better"}, "d3"),
        ({"policy": "a", "beside": "b", "show": "preferred"}, "d2"),
        ({"policy": "a", "beside": "b", "show": "lost"}, "d3"),
        ({"policy": "b", "beside": "a", "show": "preferred"}, "d3"),
        ({"policy": "a", "beside": "b", "show": "preferred", "judge": "other"}, ""),
        ({"q": "WHAT OF D3"}, "d3"),
        ({"policy": "a", "q": "no"}, "d3"),
        ({"q": "no"}, "d2 d3"),
        ({"q": "a.b("}, ""),  # text, not a pattern
        ({"doc": "d4"}, "d4"),
        ({"task": "other"}, ""),
        ({"policy": "zebra"}, ""),
        ({"show": "zebra"}, "d1 d2 d3 d4 d5"),
    ],
)
def test_filters(tmp_path: Path, asked: dict[str, str], docs: str) -> None:
    assert shown(make(tmp_path, table()), **asked) == docs


def test_lower_is_better_turns_right_and_wrong(tmp_path: Path) -> None:
    run = make(tmp_path, table(), up=False)
    assert shown(run, policy="a", show="right") == "d3"
    assert shown(run, policy="a", beside="b", show="better") == "d3"


def test_without_a_direction_nothing_is_right_or_wrong(tmp_path: Path) -> None:
    run = make(tmp_path, table(), up=None)
    assert shown(run, show="right") == shown(run, show="wrong") == ""
    assert shown(run, show="differ") == "d2 d3 d4"


def test_side_by_side_says_whom_the_judge_prefers(tmp_path: Path) -> None:
    page = read_page(make(tmp_path, table()), Ask(policy="a", beside="b"))
    said = {
        document.card.doc_id: [(s.winner, s.word, s.scores) for s in document.said]
        for document in page.documents
    }
    assert said == {
        "d1": [],
        "d2": [("a", "prefers", "1 against 0")],
        "d3": [("b", "prefers", "1 against 0")],
        "d4": [(None, "gave no judgement", "")],
        "d5": [(None, "calls it a tie", "0.5 against 0.5")],
    }
    order = [[output.policy for output in document.card.outputs] for document in page.documents]
    assert order == [["a", "b"]] * 5
    swapped = read_page(make(tmp_path, table()), Ask(policy="b", beside="a"))
    assert [output.policy for output in swapped.documents[0].card.outputs] == ["b", "a"]


def test_pages_cover_every_document_once(run: Run) -> None:
    seen: list[str] = []
    for number in range(1, 6):
        page = read_page(run, Ask(task="winogender", policy="sft", page=number))
        seen += [document.card.doc_id for document in page.documents] if page.number == number else []
    assert (page.total, page.pages) == (90, -(-90 // PER_PAGE))
    assert sorted(seen) == [f"winogender-{i:04d}" for i in range(90)]


def test_a_long_prompt_is_cut_and_says_so(tmp_path: Path) -> None:
    rows = table()
    rows[0]["prompt"] = "x" * 29_999 + "?"
    page = read_page(make(tmp_path, rows), Ask(doc="d1"))
    assert "… [10,000 more characters] …" in page.documents[0].card.prompt
    assert page.documents[0].card.prompt.endswith("x?")  # what is asked stands last


def test_a_new_file_is_read_anew(tmp_path: Path) -> None:
    assert shown(make(tmp_path, table()), show="differ") == "d2 d3 d4"
    assert shown(make(tmp_path, table("a")), show="differ") == ""


def test_choices_name_the_policies_and_all_of_them_work(tmp_path: Path) -> None:
    run = make(tmp_path, table())
    pair = Ask(policy="a", beside="b")
    assert ("preferred", "a preferred to b") in choices(run, pair)
    assert [value for value, _ in choices(run, Ask())] == list(ALWAYS)
    for value, _ in choices(run, pair):
        read_page(run, Ask(policy="a", beside="b", show=value))


@settings(deadline=None)
@given(st.builds(Ask, *[st.text(max_size=8)] * 7, st.integers(1, 10**6)))
def test_an_address_holds_the_whole_state(asked: Ask) -> None:
    assume(asked.beside != asked.policy or not asked.beside)
    query = {key: values[-1] for key, values in parse_qs(asked.address()[1:]).items()}
    assert Ask.read(query) == asked
