"""Log-likelihoods and rewards against the model run on one request at a time, with all its logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, make_model, make_tokenizer

from alignbench.engines import scoring
from alignbench.engines.encoding import encode_pair
from alignbench.engines.hf import HFEngine
from alignbench.engines.types import Reward, Rewarded, Score, Scored
from alignbench.errors import UsageError, WorkError

REQUESTS = [
    Score("the cat", " sat on the mat"),
    Score("the dog ran to the cat; where is ", "the mat?"),
    Score("the", " dog"),
    Score("th", "e"),
    Score("", "the cat sat"),
    Score("the cat", ""),
    Score("é", "ö" * 9),
]


def collect(batches: Any, n: int) -> list[Any]:
    answers = dict(item for batch in batches for item in batch)
    assert sorted(answers) == list(range(n))
    return [answers[i] for i in range(n)]


def naive(model: Any, tokenizer: Any, request: Score) -> Scored:
    ids, start = encode_pair(tokenizer, request.context, request.continuation)
    if start == 0:
        ids, start = [tokenizer.eos_token_id, *ids], 1
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    steps = [
        (logprobs[t - 1, ids[t]].item(), logprobs[t - 1].argmax().item() == ids[t])
        for t in range(start, len(ids))
    ]
    return Scored(sum(p for p, _ in steps), len(steps), all(hit for _, hit in steps))


@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
@pytest.mark.parametrize("family", FAMILIES)
def test_score_is_the_naive_sum(
    family: str, batch_tokens: int, family_models: dict[str, Any], tokenizer: Any
) -> None:
    model = family_models[family]
    engine = HFEngine(model, tokenizer, batch_tokens=batch_tokens)
    for request, got in zip(REQUESTS, collect(engine.score(REQUESTS), len(REQUESTS))):
        want = naive(model, tokenizer, request)
        assert got.logprob == pytest.approx(want.logprob, abs=1e-5 * max(1, want.n_tokens))
        assert (got.n_tokens, got.greedy) == (want.n_tokens, want.greedy)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_flag_marks_the_greedy_continuation(
    family: str, family_models: dict[str, Any], tokenizer: Any
) -> None:
    model = family_models[family]
    sequence, start = encode_pair(tokenizer, "the cat", "")
    for _ in range(4):
        with torch.no_grad():
            sequence = [*sequence, int(model(torch.tensor([sequence])).logits[0, -1].argmax())]
    other = [*sequence[:-1], (sequence[-1] + 1) % 300]
    engine = HFEngine(model, tokenizer)
    with engine._evaluating():
        hit, miss = scoring.make_scorer(engine, [sequence, other], [start, start])([0, 1])
    assert hit.greedy
    assert not miss.greedy


def test_the_head_runs_apart_only_where_that_is_the_same(
    family_models: dict[str, Any], tokenizer: Any
) -> None:
    found = {
        name: scoring.has_separable_head(HFEngine(model, tokenizer)) for name, model in family_models.items()
    }
    assert found == {"llama": True, "gpt2": True, "qwen2": True, "gemma2": False}  # Gemma 2 caps its logits


def test_logits_are_computed_a_piece_at_a_time(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = HFEngine(llama, tokenizer)
    whole = collect(engine.score(REQUESTS), len(REQUESTS))
    monkeypatch.setattr(scoring, "LOGITS", 3 * 330)
    for a, b in zip(whole, collect(engine.score(REQUESTS), len(REQUESTS))):
        assert a.logprob == pytest.approx(b.logprob, rel=1e-6)
        assert (a.n_tokens, a.greedy) == (b.n_tokens, b.greedy)


def test_a_context_too_long_is_cut_on_the_left(
    llama: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    long = Score("the cat sat on it. " * 40, "the mat")
    ids, start = encode_pair(tokenizer, long.context, long.continuation)
    n = len(ids) - start
    kept = ids[-97:]  # 96 of them are read, the last one is predicted
    with torch.no_grad():
        logprobs = llama(torch.tensor([kept[:-1]])).logits[0].log_softmax(-1)
    want = sum(logprobs[t - 1, kept[t]].item() for t in range(97 - n, 97))
    (got,) = collect(HFEngine(llama, tokenizer).score([long]), 1)
    assert (got.n_tokens, got.logprob) == (n, pytest.approx(want, abs=1e-4))
    assert "cut on the left" in caplog.text
    assert got.cut == len(ids) - 97
    short, again = collect(HFEngine(llama, tokenizer).score([Score("the cat", " sat"), long]), 2)
    assert (short.cut, again.cut) == (0, got.cut)


@pytest.mark.parametrize("batch_tokens", [1, 70, 8192])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_requests_share_is_computed_once(
    family: str, batch_tokens: int, family_models: dict[str, Any], tokenizer: Any
) -> None:
    model = family_models[family]
    examples = "where is the cat? it sat on the mat. where is the dog? it ran to the cat. "
    requests = [
        Score(examples + q, a)
        for q in ("where is", "the mat", "the dog ran; where")
        for a in (" it", " a", "")
    ]
    engine = HFEngine(model, tokenizer, batch_tokens=batch_tokens)
    for request, got in zip(requests, collect(engine.score(requests), len(requests))):
        want = naive(model, tokenizer, request)
        assert got.logprob == pytest.approx(want.logprob, abs=2e-5)
        assert (got.n_tokens, got.greedy) == (want.n_tokens, want.greedy)
    n = len(tokenizer(examples)["input_ids"])
    assert engine.work.total_tokens > 6 * n
    if family != "gemma2":  # whose attention is capped: it is run the plain way
        assert n < engine.work.computed_tokens < 2 * n, "the examples were computed again and again"


@pytest.mark.parametrize("batch_tokens", [150, 8192])
def test_many_texts_cut_at_different_places(llama: Any, tokenizer: Any, batch_tokens: int) -> None:
    stem = "the cat sat on it and the dog ran to the mat. " * 9
    requests = [
        Score(stem + "where is the dog? " * n, answer)
        for n in range(5)
        for answer in (" it", " the mat", " on")
    ]
    for request, got in zip(
        requests, collect(HFEngine(llama, tokenizer, batch_tokens=batch_tokens).score(requests), 15)
    ):
        ids, start = encode_pair(tokenizer, request.context, request.continuation)
        n = len(ids) - start
        with torch.no_grad():
            logprobs = llama(torch.tensor([ids[-97:-1]])).logits[0].log_softmax(-1)
        want = sum(logprobs[t, ids[-97:][t + 1]].item() for t in range(96 - n, 96))
        assert (got.n_tokens, got.cut) == (n, len(ids) - 97)
        assert got.logprob == pytest.approx(want, abs=2e-5)


def test_rolling_windows_predict_every_token_once(llama: Any, tokenizer: Any) -> None:
    text = "the cat sat on the mat and the dog ran to the cat; where is the mat? " * 12
    ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
    want = 0.0
    for low in range(1, len(ids), 96):
        high = min(low + 96, len(ids))
        window = ids[max(0, high - 97) : high]
        with torch.no_grad():
            logprobs = llama(torch.tensor([window[:-1]])).logits[0].log_softmax(-1)
        n = len(window)
        want += sum(logprobs[n - (high - t) - 1, ids[t]].item() for t in range(low, high))
    requests = [Score("", text, rolling=True), Score("the cat", " sat")]
    got, other = collect(HFEngine(llama, tokenizer).score(requests), 2)
    assert len(ids) > 2 * 96
    assert (got.n_tokens, got.cut) == (len(ids) - 1, 0)
    assert got.logprob == pytest.approx(want, abs=1e-3)
    assert other.logprob == pytest.approx(naive(llama, tokenizer, requests[1]).logprob, abs=1e-5)


def test_bos_is_there_once(llama: Any) -> None:
    tokenizer = make_tokenizer(bos=True)
    (got,) = collect(HFEngine(llama, tokenizer).score([Score("", "the cat")]), 1)
    ids = tokenizer("the cat")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    with torch.no_grad():
        logprobs = llama(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert got.n_tokens == len(ids) - 1
    assert got.logprob == pytest.approx(
        sum(logprobs[t - 1, ids[t]].item() for t in range(1, len(ids))), abs=1e-5
    )


# ---- rewards


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_reward_is_the_head_at_the_appended_eos(family: str, tokenizer: Any) -> None:
    model = make_model(family, "SequenceClassification", reward_offset=0.25)
    requests = [
        Reward("the cat", " sat"),
        Reward("the dog ran to", " the mat; where is it?"),
        Reward("", "on"),
    ]
    for request, got in zip(requests, collect(HFEngine(model, tokenizer).reward(requests), 3)):
        ids = [*tokenizer(request.prompt + request.response)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            want = model(torch.tensor([ids])).logits[0, 0].item() - 0.25
        assert got == Rewarded(pytest.approx(want, abs=1e-5), len(ids))


def test_reward_is_read_at_the_last_token_even_if_it_is_pads_id(tokenizer: Any) -> None:
    model = make_model("llama", "SequenceClassification")
    engine = HFEngine(model, tokenizer)
    with torch.no_grad():
        want = [
            model.score(model.model(torch.tensor([ids]))[0][0, -1]).item()
            for ids in ([5, 6, 0], [5, 6, 7, 8])
        ]
    assert engine.reward_ids([[5, 6, 0], [5, 6, 7, 8]]) == pytest.approx(want, abs=1e-5)
    assert engine.reward_ids([]) == []


def test_an_encoder_classifier_is_read_through_its_own_pooling(tokenizer: Any) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=330,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=1,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    requests = [Reward("the cat", " sat on the mat"), Reward("on", " it")]
    for request, got in zip(requests, collect(HFEngine(model, tokenizer).reward(requests), 2)):
        ids = [*tokenizer(request.prompt + request.response)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            assert got.reward == pytest.approx(model(torch.tensor([ids])).logits.item(), abs=1e-5)


def test_rewards_need_a_reward_model(llama: Any, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="one label"):
        list(HFEngine(llama, tokenizer).reward([Reward("a", "b")]))


# ---- memory


def test_when_memory_runs_out_the_batch_is_cut_and_nothing_is_lost(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = HFEngine(llama, tokenizer)
    requests = [Score("the cat", " sat" * (1 + i % 5)) for i in range(11)]
    want = collect(engine.score(requests), 11)
    real, sizes = scoring.PackedScorer.__call__, []

    def tight(self: scoring.PackedScorer, rows: list[int]) -> list[Scored]:
        if len(rows) > 3:
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(len(rows))
        return real(self, rows)

    monkeypatch.setattr(scoring.PackedScorer, "__call__", tight)
    got = collect(engine.score(requests), 11)
    assert sum(sizes) == 11
    assert max(sizes) == 3
    for a, b in zip(want, got):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-5)


def test_one_request_that_does_not_fit_is_an_error(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> list[Scored]:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(scoring.PackedScorer, "__call__", full)
    with pytest.raises(WorkError, match="one request"):
        list(HFEngine(llama, tokenizer).score(REQUESTS))
