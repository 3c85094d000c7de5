"""The schema: what is written comes back, and what is wrong is refused in one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from alignbench.compare.results import (
    Comparison,
    PolicyResult,
    Score,
    TaskResult,
    Training,
    from_json,
    read_results,
    to_json,
    write_results,
)
from alignbench.errors import UsageError


def comparison(score: Score | None = None, **changes) -> Comparison:
    score = score or Score(0.5, 0.1, (0.3, 0.7), 10)
    row = TaskResult("t", "nlp", "acc", True, True, None, 0.25, 10, {"a": score})
    fields = {"tasks": [row], "deltas": [], "win_rates": [], "tax": [], "verdict": "«a» – ½ %."}
    return Comparison(policies=[PolicyResult("a", "a", None, "hf")], **{**fields, **changes})


def test_keys_of_the_contract() -> None:
    data = json.loads(to_json(comparison()))
    assert next(iter(data)) == "schema"
    assert data["schema"] == 1
    assert {"policies", "tasks", "deltas", "win_rates", "tax", "verdict", "provenance"} <= set(data)
    assert data["tasks"][0]["scores"]["a"]["ci"] == [0.3, 0.7]
    assert {"mean", "stderr", "ci", "n", "missing", "unparsed"} <= set(data["tasks"][0]["scores"]["a"])
    assert data["policies"][0]["fingerprint"] is None


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 10**9),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_what_is_written_comes_back(mean: float, stderr: float | None, n: int, text: str) -> None:
    made = comparison(Score(mean, stderr, None, n), verdict=text, provenance={"command": [text]})
    assert from_json(to_json(made)) == made


def test_a_file_round_trips(tmp_path: Path) -> None:
    made = comparison()
    path = write_results(made, tmp_path)
    assert read_results(tmp_path) == read_results(path) == made
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_only_finite_numbers(value: float) -> None:
    with pytest.raises(ValidationError):
        Score(value, None, None, 1)
    with pytest.raises(ValidationError):
        Score(0.5, None, (0.0, value), 1)
    assert json.loads(to_json(comparison(provenance={"x": value})))["provenance"] == {"x": None}


def test_unknown_fields_are_ignored_and_wrong_ones_named() -> None:
    data = json.loads(to_json(comparison()))
    data["from_the_future"] = 1
    data["tasks"][0]["new"] = 2
    assert from_json(json.dumps(data)) == comparison()
    data["tasks"][0]["area"] = "cooking"
    with pytest.raises(UsageError, match=r"tasks\.0\.area"):
        from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "schema None"),
        ('{"schema": 2}', "schema 2 where this version reads 1; update alignbench"),
        ('{"schema": 0}', "run compare again"),
        ('{"schema": 1}', "Field required"),
    ],
)
def test_wrong_files(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_json(text)


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no results\.json in .*: name the folder"):
        read_results(tmp_path)


def test_a_curve_has_a_value_for_every_step() -> None:
    assert Training("a", "ppo", [1, 2], {"kl": [None, 0.5]}).series["kl"][1] == 0.5
    with pytest.raises(ValidationError, match="1 values for 2 steps"):
        Training("a", "ppo", [1, 2], {"kl": [0.5]})
