"""Recorded outputs of which several count, and the scores that rows carry."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.engines.policy import parse_policy
from alignbench.engines.recorded import Asked, Join, Recording, open_recording
from alignbench.errors import UsageError

DOCUMENTS = [Asked("d0", "Say hello.", "Say hello."), Asked("d1", "Say bye.", "Say bye.")]


def read(folder: Path, rows: list[dict[str, Any]], options: str = "") -> Recording:
    path = folder / "out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_recording(parse_policy(f"me=recorded:{path}{options}"))


def join(recording: Recording, *, several: bool = True) -> Join:
    return recording.join("t", DOCUMENTS, only=True, several=several)


@pytest.mark.parametrize(
    "rows",
    [
        [{"doc_id": "d0", "outputs": ["a", "b", "a"]}],
        [{"doc_id": "d0", "output": ["a", "b", "a"]}],
        [{"doc_id": "d0", "output": text} for text in "aba"],
        [{"doc_id": "d0", "output": ["a", "b"]}, {"doc_id": "d0", "response": "a"}],
        [{"doc_id": "d0", "output": "a", "outputs": ["a", "b", "a"]}],  # as samples.parquet has it
    ],
)
def test_all_outputs_count_in_their_order(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    found = join(read(tmp_path, rows))
    assert found.outputs == {"d0": ("a", "b", "a")}
    assert found.missing == ("d1",)
    assert found.used == set(range(1, len(rows) + 1))


def test_one_may_still_be_chosen(tmp_path: Path) -> None:
    found = join(read(tmp_path, [{"doc_id": "d0", "outputs": ["a", "b"]}], "?sample=2"))
    assert found.outputs == {"d0": ("b",)}


def test_a_task_that_takes_one_refuses_several(tmp_path: Path) -> None:
    row = {"doc_id": "d0", "output": "a", "outputs": ["a", "b"]}
    with pytest.raises(UsageError, match="row 1 gives different outputs for the document d0 of t"):
        join(read(tmp_path, [row]), several=False)


@pytest.mark.parametrize(
    ("rows", "scores"),
    [
        ([{"output": "a", "scores": {"toxicity": 0.3}}], {"toxicity": [0.3]}),
        ([{"output": "a", "scores": '{"toxicity": [0.3]}'}], {"toxicity": [0.3]}),
        ([{"outputs": ["a", "b"], "scores": {"toxicity": [0.3, None]}}], {"toxicity": [0.3, None]}),
        ([{"outputs": ["a", "b"], "scores": {"x": [1, 0], "y": [0.5, 2]}}], {"x": [1, 0], "y": [0.5, 2]}),
        ([{"output": "a", "scores": {"x": 1}}, {"output": "b"}], {"x": [1.0, None]}),
        (
            [{"output": "a", "scores": {"x": 1}}, {"output": "b", "scores": {"y": 2}}],
            {"x": [1, None], "y": [None, 2]},
        ),
        ([{"output": "a", "scores": None}], {}),
        ([{"output": "a", "scores": ""}], {}),
        ([{"output": "a", "scores": {"x": None}}], {"x": [None]}),
    ],
)
def test_scores_belong_to_their_outputs(
    tmp_path: Path, rows: list[dict[str, Any]], scores: dict[str, list[float | None]]
) -> None:
    found = join(read(tmp_path, [{"doc_id": "d0", **row} for row in rows]))
    assert found.scores == {"d0": scores}


def test_the_score_of_the_output_that_is_chosen(tmp_path: Path) -> None:
    rows = [{"doc_id": "d0", "outputs": ["a", "b"], "scores": {"x": [0.1, 0.9]}}]
    assert join(read(tmp_path, rows, "?sample=2"), several=False).scores == {"d0": {"x": [0.9]}}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"output": "a", "scores": 0.3}, 'row 1: scores is float; write {"NAME": number}'),
        ({"output": "a", "scores": "high"}, "row 1: scores is str; write"),
        ({"output": "a", "scores": [0.3]}, "row 1: scores is list; write"),
        ({"output": "a", "scores": {"x": "high"}}, "row 1: scores.x is no number for each of its 1 outputs"),
        ({"output": "a", "scores": {"x": True}}, "row 1: scores.x is no number for each of its 1 outputs"),
        ({"output": "a", "scores": {"x": [0.1, 0.2]}}, "scores.x is no number for each of its 1 outputs"),
        ({"outputs": ["a", "b"], "scores": {"x": 0.1}}, "scores.x is no number for each of its 2 outputs"),
        ({"output": "a", "scores": {"x": float("nan")}}, "scores.x is no number for each of its 1 outputs"),
        ({"output": "a", "scores": {"x": float("inf")}}, "scores.x is no number for each of its 1 outputs"),
        ({"outputs": ["a", None]}, "row 1: outputs is a list with NoneType, not text; mend this row"),
        ({"outputs": ["a", 3]}, "row 1: outputs is a list with int, not text; mend this row"),
    ],
)
def test_rows_that_cannot_be(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        read(tmp_path, [{"doc_id": "d0", **row}])


@given(
    st.lists(
        st.lists(st.tuples(st.text("ab", max_size=3), st.none() | st.floats(0, 1)), max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_every_output_keeps_its_score_however_rows_are_cut(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[str, float | None]]]
) -> None:
    """The outputs of one document in any number of rows: the same outputs and scores, in order."""
    rows = [
        {"doc_id": "d0", "outputs": [text for text, _ in part], "scores": {"x": [score for _, score in part]}}
        for part in parts
    ]
    whole = [pair for part in parts for pair in part]
    recording = read(tmp_path_factory.mktemp("rows"), rows)
    if not whole:
        with pytest.raises(UsageError):
            join(recording)
        return
    found = join(recording)
    assert found.outputs == {"d0": tuple(text for text, _ in whole)}
    assert found.scores["d0"].get("x") == [score for _, score in whole]


def test_the_samples_of_a_run_that_drew_several(tmp_path: Path) -> None:
    rows = [
        {
            "policy": "a",
            "task": "t",
            "doc_id": "d0",
            "prompt": "Say hello.",
            "output": "1",
            "outputs": ["1", "2"],
            "scores": '{"x": [0.5, null]}',
        },
        {
            "policy": "a",
            "task": "t",
            "doc_id": "d1",
            "prompt": "Say bye.",
            "output": "3",
            "outputs": None,
            "scores": None,
        },
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "samples.parquet")
    recording = open_recording(parse_policy(f"recorded:{tmp_path / 'samples.parquet'}?generator=a"))
    found = recording.join("t", DOCUMENTS, only=False, several=True)
    assert found.outputs == {"d0": ("1", "2"), "d1": ("3",)}
    assert found.scores == {"d0": {"x": [0.5, None]}, "d1": {}}
