"""Hugging Face classifiers as scorers: labels, activations, cuts, the ledger."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from alignbench.errors import UsageError
from alignbench.judges import classifying
from alignbench.judges.classifier import (
    activation_for,
    choose_label,
    open_classifier,
    parse_classifier,
    probability,
)
from alignbench.ledger import Ledger

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engines"))
from tiny_models import make_tokenizer

TEXTS = ["the cat sat", "the dog ran to the cat; where is the mat?", "on", "the mat " * 3]
LABELS = {"multi": ["toxic", "severe_toxic", "insult"], "single": ["neutral", "toxic"]}
PROBLEMS = {"multi": "multi_label_classification", "single": "single_label_classification"}


def save(folder: Path, family: str, kind: str, **changes: Any) -> Path:
    """A tiny random classifier; roberta counts positions from behind its padding, gpt2 reads the last token."""
    torch.manual_seed(3)
    labels = LABELS[kind]
    common = {
        "vocab_size": 330,
        "pad_token_id": 0,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": PROBLEMS[kind],
        **changes,
    }
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config: Any = {
        "bert": lambda: transformers.BertConfig(**shape, max_position_embeddings=40, **common),
        "roberta": lambda: transformers.RobertaConfig(**shape, max_position_embeddings=41, **common),
        "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=40, **common),
    }[family]()
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "position" not in name:
                weight.normal_(std=0.3)
    model.save_pretrained(folder)
    make_tokenizer(bos=True, behind=True).save_pretrained(folder)
    return folder


def plain(folder: Path, text: str) -> list[float]:
    """Logits by transformers alone, one text at a time."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return [float(v) for v in model(input_ids=ids).logits[0]]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
@pytest.mark.parametrize("kind", ["multi", "single"])
def test_scores_are_those_of_plain_transformers(tmp_path: Path, family: str, kind: str) -> None:
    folder = save(tmp_path / "model", family, kind)
    with Ledger.open(tmp_path) as ledger:
        scorer = open_classifier(f"{folder}?label=Toxic", ledger=ledger)
        done: list[int] = []
        scores = scorer.score([""] * 6, [*TEXTS, "", " \n"], lambda n=1, note="": done.append(n))
    place = LABELS[kind].index("toxic")
    for score, text in zip(scores, TEXTS, strict=False):
        logits = torch.tensor(plain(folder, text))
        expected = logits.sigmoid() if kind == "multi" else logits.softmax(0)
        assert score == pytest.approx(float(expected[place]), abs=1e-5)
    assert len({round(score or 0, 4) for score in scores[:4]}) == 4  # the texts differ, and so do the scores
    assert scores[4:] == [0.0, 0.0]
    assert sum(done) == 6
    described = scorer.describe()
    assert described["activation"] == ("sigmoid" if kind == "multi" else "softmax")
    assert (described["scored"], described["empty"], described["cut"], described["failed"]) == (4, 2, 0, 0)
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize(("family", "window"), [("bert", 40), ("roberta", 40), ("gpt2", 40)])
def test_what_is_too_long_is_cut_and_counted(tmp_path: Path, family: str, window: int) -> None:
    folder = save(tmp_path / "model", family, "single")
    long = "zq " * 60  # no merges: a token a character
    with Ledger.open(tmp_path) as ledger:
        scorer = open_classifier(str(folder), ledger=ledger)
        (score,) = scorer.score([""], [long])
        assert scorer._classifier.window == window
        ids, cut = scorer._classifier._encode(long)
    assert scorer.describe()["cut"] == 1
    assert len(ids) == window
    assert cut > 0
    assert ids[-1] == 1  # the special token at the end stays
    assert score is not None


def test_the_ledger_answers_a_second_time_and_for_another_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path / "model", "bert", "multi")
    with Ledger.open(tmp_path) as ledger:
        first = open_classifier(str(folder), ledger=ledger)
        assert first.label == "toxic"
        scores = first.score([""] * 4, TEXTS)

        def never(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("the weights are not needed")

        monkeypatch.setattr(classifying, "load_classifier", never)
        again = open_classifier(str(folder), ledger=ledger)
        assert again.score([""] * 4, TEXTS) == scores
        insult = open_classifier(f"{folder}?label=insult", ledger=ledger)
        other = insult.score([""] * 4, TEXTS)
        assert other != scores
        assert insult.describe()["fingerprint"] == first.describe()["fingerprint"]
        with pytest.raises(AssertionError, match="not needed"):
            open_classifier(str(folder), ledger=ledger, fresh=True).score([""], TEXTS[:1])
        with pytest.raises(AssertionError, match="not needed"):
            open_classifier(f"{folder}?dtype=bfloat16", ledger=ledger).score([""], TEXTS[:1])


def test_no_number_is_no_score(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "bert", "single")
    with Ledger.open(tmp_path) as ledger:
        scorer = open_classifier(str(folder), ledger=ledger)
        with torch.no_grad():
            scorer._classifier._module.classifier.bias[0] = math.nan
        assert scorer.score([""] * 2, ["the cat", ""]) == [None, 0.0]
        assert scorer.describe()["failed"] == 1
        assert open_classifier(str(folder), ledger=ledger).score([""], ["the cat"]) == [None]


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "bert", "single")
    with Ledger.open(tmp_path) as ledger:
        expected = open_classifier(str(folder), ledger=ledger).score([""] * 4, TEXTS)
        scorer = open_classifier(str(folder), ledger=ledger, fresh=True)
        whole = scorer._classifier._forward
        sizes: list[int] = []

        def small(rows: list[list[int]]) -> list[list[float]]:
            sizes.append(len(rows))
            if len(rows) > 1:
                raise torch.OutOfMemoryError("out of memory")
            return whole(rows)

        scorer._classifier._forward = small  # type: ignore[method-assign]
        assert scorer.score([""] * 4, TEXTS) == pytest.approx(expected, abs=1e-5)
    assert sizes[:2] == [4, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no model"),
        ("?label=x", "names no model"),
        ("m?lable=x", r"unknown option 'lable' \(did you mean 'label'\?\)"),
        ("m?label=", "has no value; write label=VALUE"),
        ("m?activation=softmx", r"no activation 'softmx' \(did you mean 'softmax'\?\)"),
        ("m?dtype=fp8", "no dtype 'fp8'"),
    ],
)
def test_wrong_specs(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_classifier(text)


def test_a_spec() -> None:
    spec = parse_classifier("org/model@v2?label=severe%20toxic&activation=softmax")
    assert (spec.target, spec.revision) == ("org/model", "v2")
    assert spec.options == {"label": "severe toxic", "activation": "softmax"}


def test_wrong_models(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "bert", "single")
    with Ledger.open(tmp_path) as ledger:
        with pytest.raises(
            UsageError, match=r"no label 'toxc' \(did you mean 'toxic'\?\); .* neutral, toxic"
        ):
            open_classifier(f"{folder}?label=toxc", ledger=ledger)
        with pytest.raises(UsageError, match="no folder"):
            open_classifier(f"{tmp_path}/nowhere", ledger=ledger)
        with pytest.raises(UsageError, match="device 'gpu9' is not usable here; write device=cpu"):
            open_classifier(f"{folder}?device=gpu9", ledger=ledger).score([""], ["a"])
        config = json.loads((folder / "config.json").read_text())
        for changes, message in (
            ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM is no classifier"),
            ({"id2label": {"1": "toxic", "2": "b"}}, "does not count from 0"),
        ):
            (folder / "config.json").write_text(json.dumps({**config, **changes}))
            with pytest.raises(UsageError, match=message):
                open_classifier(str(folder), ledger=ledger)
        (folder / "config.json").write_text("{")
        with pytest.raises(UsageError, match="cannot be read"):
            open_classifier(str(folder), ledger=ledger)


def test_a_checkpoint_without_its_head_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "model", "bert", "single")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if not k.startswith("classifier")},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with (
        Ledger.open(tmp_path) as ledger,
        pytest.raises(UsageError, match=r"lacks the weights classifier\.bias"),
    ):
        open_classifier(str(folder), ledger=ledger).score([""], ["a"])


def test_labels_and_activations() -> None:
    assert choose_label(["Toxicity", "other"], None, "c") == "Toxicity"
    assert choose_label(["LABEL_0"], None, "c") == "LABEL_0"
    with pytest.raises(UsageError, match=r"which label is scored\? .* LABEL_0, LABEL_1"):
        choose_label(["LABEL_0", "LABEL_1"], None, "c")
    assert activation_for("multi_label_classification", 2) == "sigmoid"
    assert activation_for(None, 2) == "softmax"
    assert activation_for("regression", 1) == "sigmoid"
    assert probability([0.0, math.log(3)], 1, "softmax") == pytest.approx(0.75)
    assert probability([-1000.0, 5.0], 0, "sigmoid") == pytest.approx(0.0)
    assert probability(None, 0, "sigmoid") is None
