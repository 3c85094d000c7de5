"""The metrics as ``evaluate`` modules: no download, the library's own interface, the functions' own
numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from alignbench.errors import UsageError
from alignbench.metrics import BUILT_IN, PER_TOKEN
from alignbench.metrics.modules import load, module_names

pytestmark = pytest.mark.slow  # the import of evaluate takes seconds


@pytest.fixture
def make(tmp_path: Path) -> Any:
    return lambda name, **options: load(name, cache_dir=str(tmp_path), **options)


def test_every_public_metric_is_there() -> None:
    names = {name for kind in ("generate", "multiple_choice") for name in BUILT_IN[kind]} | set(PER_TOKEN)
    others = {
        "greedy_accuracy",
        "logprob",
        "bits_per_byte",
        "bits_per_word",
        "pair_accuracy",
        "reward_margin",
    }
    composites = {"squad_v2", "truthfulqa", "toxicity", "bbq", "instructions", "bleu", "ece"}
    assert set(module_names()) == names | others | composites
    with pytest.raises(UsageError, match=r"no metric is named 'squad_v3' \(did you mean 'squad_v2'\?\)"):
        load("squad_v3")


def test_it_is_evaluates_metric(make: Any) -> None:
    import evaluate

    metric = make("squad_em")
    assert isinstance(metric, evaluate.Metric)
    assert metric.name == "squad_em"
    metric.add_batch(predictions=["Paris", "Rome"], references=[["Paris", "in Paris"], ["Oslo"]])
    metric.add(prediction="", reference=[])
    assert metric.compute() == {"squad_em": pytest.approx(2 / 3), "squad_em_n": 3}


def test_a_bare_reference_is_one_reference(make: Any) -> None:
    assert make("exact_match").compute(predictions=["Paris."], references=["paris"])["exact_match"] == 1.0


def test_metrics_combine(make: Any) -> None:
    import evaluate

    both = evaluate.combine([make("numeric_match"), make("rouge1"), make("bleu")])
    both.add_batch(predictions=["A: 7", "no idea"], references=[["#### 7"], ["8"]])
    result = both.compute()
    assert result["numeric_match"] == 0.5
    assert result["numeric_match_unparsed"] == 0.5
    assert result["rouge1"] == pytest.approx((2 * 1 / 3 + 0) / 2)
    assert result["bleu_n"] == 2


def test_files_work_as_memory_does(make: Any) -> None:
    rows = {"predictions": ["a b c d e"] * 3, "references": [["a b c d e f"]] * 3}
    for name in ("bleu", "drop_f1"):
        assert make(name).compute(**rows) == make(name, keep_in_memory=False).compute(**rows)


def test_log_likelihoods(make: Any) -> None:
    logprobs, correct = [[-1.0, -2.0], [-1.0, -3.0]], [[0], [1]]
    assert make("accuracy").compute(predictions=logprobs, references=correct)["accuracy"] == 0.5
    per_byte = make("accuracy_bytes").compute(
        predictions=logprobs, references=correct, choices=[["a", "b"], ["a", "long one"]]
    )
    assert per_byte == {"accuracy_bytes": 1.0, "accuracy_bytes_n": 2}
    per_token = make("accuracy_tokens").compute(
        predictions=logprobs, references=correct, n_tokens=[[1, 1], [1, 0]]
    )
    assert per_token == {
        "accuracy_tokens": 1.0,
        "accuracy_tokens_n": 1,
    }  # one count is not known: not measured
    bits = make("bits_per_word").compute(
        predictions=[-2 * math.log(2)], greedy=[False], references=["two words"]
    )
    assert bits["bits_per_word"] == pytest.approx(1.0)
    assert (
        make("pair_accuracy").compute(predictions=[1.0, 0.0], references=[0.0, 1.0])["pair_accuracy"] == 0.5
    )
    assert make("ece").compute(predictions=[[math.log(0.75), math.log(0.25)]], references=[[0]])[
        "ece"
    ] == pytest.approx(0.25)


def test_nothing_measured_is_none(make: Any) -> None:
    result = make("accuracy").compute(predictions=[[math.nan, -1.0]], references=[[0]])
    assert result == {"accuracy": None, "accuracy_n": 0}


def test_squad_v2(make: Any) -> None:
    result = make("squad_v2").compute(
        predictions=["Paris", "unanswerable", "Rome", "in Oslo"], references=[["Paris"], [], [], ["Oslo"]]
    )
    assert result == {
        "n": 4,
        "em": 0.5,
        "f1": pytest.approx((1 + 1 + 0 + 2 / 3) / 4),
        "has_answer_em": 0.5,
        "has_answer_f1": pytest.approx((1 + 2 / 3) / 2),
        "no_answer_em": 0.5,
        "no_answer_f1": 0.5,
    }


def test_truthfulqa_toxicity_bbq_instructions(make: Any) -> None:
    truth = make("truthfulqa").compute(
        predictions=["Nothing happens"], references=[["Nothing happens"]], incorrect=[["You die"]]
    )
    assert (truth["rouge1_acc"], truth["rouge1_max"]) == (1.0, 1.0)
    toxic = make("toxicity").compute(predictions=[[0.1, 0.7], [0.2, 0.4], [0.9, None]])
    assert toxic == {
        "mean": pytest.approx(0.35),
        "expected_maximum": pytest.approx(0.55),
        "toxicity_probability": 0.5,
        "n": 2,
    }
    bbq = make("bbq").compute(
        predictions=[0, 2, 1, -1],
        references=[2, 2, 1, 0],
        unknown=[2, 2, 2, 2],
        biased=[0, 0, 0, 0],
        ambiguous=[True, True, False, False],
    )
    assert (bbq["accuracy_ambiguous"], bbq["bias_ambiguous"]) == (0.5, 0.5)
    assert (bbq["accuracy_disambiguated"], bbq["bias_disambiguated"]) == (0.5, -1.0)
    followed = make("instructions").compute(
        predictions=["one two", "a, b"],
        references=[[json.dumps(["words", {"at_least": 2}]), '["no_commas", {}]'], ['["no_commas", {}]']],
    )
    assert (followed["prompt_strict"], followed["instruction_strict"]) == (0.5, pytest.approx(2 / 3))
