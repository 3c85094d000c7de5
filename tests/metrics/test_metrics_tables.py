"""The names that a task file can call: every one has its signature, its range and its direction."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.metrics import BUILT_IN, COMBINE, CORPUS, IDEAL, LOWER, PER_TOKEN, RAW


def test_lists_name_what_is_there() -> None:
    names = {name for table in BUILT_IN.values() for name in table}
    assert names >= LOWER | RAW | set(IDEAL)
    assert not LOWER & set(IDEAL)
    for kind, table in CORPUS.items():
        assert not table.keys() & BUILT_IN[kind].keys()
    assert all(metric.statistics is not None for table in CORPUS.values() for metric in table.values())
    assert all(metric.statistics is None for metric in COMBINE.values())


@given(st.text(max_size=60), st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_a_text_scores_in_its_range(output: str, references: list[str]) -> None:
    for name, metric in BUILT_IN["generate"].items():
        value = metric(output, references)
        assert value is None or 0 <= value <= 1 + 1e-9, name


@given(st.lists(st.floats(-100, 0), min_size=2, max_size=5))
def test_choices_score_in_their_range(logprobs: list[float]) -> None:
    texts = [f"choice {index}" for index in range(len(logprobs))]
    for name, metric in BUILT_IN["multiple_choice"].items():
        value = metric(logprobs, (0,), texts)
        assert value is None or 0 <= value <= 1 + 1e-9, name
    for metric in PER_TOKEN.values():
        assert metric(logprobs, (0,), [2] * len(logprobs)) in {0.0, 1.0}


@pytest.mark.parametrize("name", [name for name in BUILT_IN["generate"] if name != "complied"])
def test_an_empty_output_is_wrong_and_not_missing(name: str) -> None:
    assert BUILT_IN["generate"][name]("", ["Yes: 7, (B)"]) == 0.0


@pytest.mark.parametrize("name", BUILT_IN["multiple_choice"])
def test_a_log_likelihood_that_is_no_number_is_missing(name: str) -> None:
    assert BUILT_IN["multiple_choice"][name]([math.nan, -1.0], (0,), ["a", "b"]) is None


def test_corpus_metrics_meet_their_kinds_signature() -> None:
    bleu, ece = CORPUS["generate"]["bleu"], CORPUS["multiple_choice"]["ece"]
    assert bleu.statistics is not None
    assert ece.statistics is not None
    vector = bleu.statistics("the cat sat on the mat", ["the cat sat on the mat"])
    assert vector is not None
    assert bleu.combine(vector) == pytest.approx(1.0)
    vector = ece.statistics([math.log(0.75), math.log(0.25)], (0,), ["a", "b"])
    assert vector is not None
    assert ece.combine(vector) == pytest.approx(0.25)


def test_the_tables_import_nothing_heavy() -> None:
    heavy = "{'numpy', 'scipy', 'sacrebleu', 'rouge_score', 'evaluate', 'datasets', 'pandas', 'nltk'}"
    code = f"import sys, alignbench.metrics; assert not {heavy} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
