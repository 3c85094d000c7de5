"""A task file on a real (tiny, random) model, against the same numbers computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignbench.engines.policy import Policy
from alignbench.errors import WorkError
from alignbench.evaluation import evaluate_policy
from alignbench.ledger import Ledger
from alignbench.metrics import mc2
from alignbench.tasks.registry import find_tasks

TASK = """\
task: {kind}
area: nlp
kind: {kind}
description: Sums.
data: {{hub: rows.jsonl}}
prompt: "{{{{ question }}}}"
"""
ENDS = {
    "multiple_choice": "choices: '[right, wrong]'\ncorrect: '[0]'\nmetrics: [{name: mc2}]\nheadline: mc2\n",
    "preference": "choices: '[right, wrong]'\nmetrics: [{name: accuracy}]\nheadline: accuracy\n",
    "loglikelihood": "target: right\nmetrics: [{name: accuracy}, {name: logprob}]\nheadline: accuracy\n",
    "generate": "target: right\ngeneration: {max_tokens: 8}\n"
    "metrics: [{name: exact_match}]\nheadline: exact_match\n",
}
ROWS = [
    {"question": "one and one is", "right": "two", "wrong": "three"},
    {"question": "one and two is", "right": "three", "wrong": "forty-two"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *alphabet])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")


def model(head: str) -> Any:
    import torch
    import transformers

    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=258,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        num_labels=1,
        initializer_range=0.3,
    )
    return getattr(transformers, head).from_config(config).eval()


@pytest.fixture
def evaluate(tokenizer: Any, tmp_path: Path) -> Any:
    from alignbench.engines.hf import HFEngine

    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))

    def run(kind: str, head: str) -> list[Any]:
        (tmp_path / "task.yaml").write_text(TASK.format(kind=kind) + ENDS[kind])
        (task,) = find_tasks([kind], tasks_dirs=[tmp_path])
        engine = HFEngine(model(head), tokenizer, identity={"head": head})
        with Ledger.open(tmp_path) as ledger:
            return evaluate_policy(Policy("p", "p", "hf", "p"), engine, task, task.load(), ledger)

    return run


def test_multiple_choice_is_the_sum_of_token_log_probabilities(evaluate: Any, tokenizer: Any) -> None:
    import torch

    causal = model("AutoModelForCausalLM")

    def by_hand(context: str, continuation: str) -> float:
        ids = tokenizer(context + continuation, return_tensors="pt").input_ids
        start = len(tokenizer(context).input_ids)
        with torch.inference_mode():
            logprobs = causal(ids).logits.log_softmax(-1)[0, start - 1 : -1]
        return float(logprobs.gather(1, ids[0, start:, None]).sum())

    for sample, row in zip(evaluate("multiple_choice", "AutoModelForCausalLM"), ROWS, strict=True):
        pair = [by_hand(row["question"], " " + row[key]) for key in ("right", "wrong")]
        assert sample.values["mc2"] == pytest.approx(mc2(pair, [0]), abs=1e-5)
        assert sample.output == (row["right"] if pair[0] >= pair[1] else row["wrong"])


def test_a_target_is_right_where_greedy_decoding_gives_it(evaluate: Any, tokenizer: Any) -> None:
    causal = model("AutoModelForCausalLM")
    for sample, row in zip(evaluate("loglikelihood", "AutoModelForCausalLM"), ROWS, strict=True):
        ids = tokenizer(row["question"], return_tensors="pt").input_ids
        target = tokenizer(" " + row["right"]).input_ids
        made = causal.generate(ids, max_new_tokens=len(target), do_sample=False)[0, ids.shape[1] :]
        right = made.tolist() == target
        assert sample.values["accuracy"] == float(right)
        assert sample.values["logprob"] < 0
        assert (sample.output, sample.n_tokens) == (row["right"] if right else "", len(target))


def test_a_document_longer_than_the_context_is_measured_whole(tokenizer: Any, tmp_path: Path) -> None:
    import torch

    from alignbench.engines.hf import HFEngine

    text = "one and one is two, and two and one is three; " * 3  # a token a byte, 138; the context holds 64
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "", "right": text}))
    metrics = "metrics: [{name: bits_per_byte, higher_is_better: false}]\nheadline: bits_per_byte\n"
    (tmp_path / "task.yaml").write_text(TASK.format(kind="loglikelihood") + "target: right\n" + metrics)
    (task,) = find_tasks(["loglikelihood"], tasks_dirs=[tmp_path])
    causal = model("AutoModelForCausalLM")
    engine = HFEngine(causal, tokenizer, identity={"engine": "x"})
    with Ledger.open(tmp_path) as ledger:
        (sample,) = evaluate_policy(Policy("p", "p", "hf", "p"), engine, task, task.load(), ledger)
    ids = [1, *tokenizer(text).input_ids]
    total = 0.0
    for first, target, end in ((0, 1, 65), (64, 65, 129), (74, 129, 139)):
        with torch.inference_mode():
            logprobs = causal(torch.tensor([ids[first : end - 1]])).logits[0].log_softmax(-1)
        total += sum(float(logprobs[i - 1 - first, ids[i]]) for i in range(target, end))
    assert len(ids) == 139
    assert sample.values["bits_per_byte"] == pytest.approx(-total / 138 / 0.6931471805599453, abs=1e-5)
    assert (sample.n_tokens, sample.flags) == (138, ())


def test_generation_is_what_transformers_generates(evaluate: Any, tokenizer: Any) -> None:
    causal = model("AutoModelForCausalLM")
    for sample, row in zip(evaluate("generate", "AutoModelForCausalLM"), ROWS, strict=True):
        ids = tokenizer(row["question"], return_tensors="pt").input_ids
        made = causal.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        assert sample.output == tokenizer.decode(made, skip_special_tokens=True)
        assert sample.n_tokens == len(made)


def test_preferences_follow_the_rewards(evaluate: Any) -> None:
    for sample, row in zip(evaluate("preference", "AutoModelForSequenceClassification"), ROWS, strict=True):
        assert sample.values["accuracy"] == float(sample.output == row["right"])


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("generate", "AutoModelForSequenceClassification"),
        ("multiple_choice", "AutoModelForSequenceClassification"),
        ("loglikelihood", "AutoModelForSequenceClassification"),
        ("preference", "AutoModelForCausalLM"),
    ],
)
def test_a_model_without_the_head_is_one_sentence(evaluate: Any, kind: str, head: str) -> None:
    with pytest.raises(WorkError, match=r"no language-modelling head|no such head"):
        evaluate(kind, head)
