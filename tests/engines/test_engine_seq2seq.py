"""Encoder-decoder models against the model run one request at a time, and against transformers' generate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import SEQ2SEQ, make_seq2seq, make_tokenizer

from alignbench.engines.plan import join_parts, plan_shared
from alignbench.engines.seq2seq import Seq2SeqEngine, has_separable_head
from alignbench.engines.types import Generate, Reward, Sampling, Score, Scored
from alignbench.errors import UsageError, WorkError

LONG = "the cat sat on the mat and the dog ran to the cat;" * 8
REQUESTS = [
    Score("the cat", " sat on the mat"),
    Score("the cat", " sat"),
    Score("the dog ran to the cat; where is ", "the mat?"),
    Score("the cat ", "sat on"),
    Score("the cat", ""),
    Score("", "the cat sat"),
    Score(" ", "the cat sat"),
    Score("é", "ö" * 9),
    Score("the dog", "t"),
]


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {family: make_seq2seq(family) for family in SEQ2SEQ}


@pytest.fixture(scope="module")
def ending() -> Any:
    """A tokenizer like T5's, with EOS behind."""
    return make_tokenizer(behind=True)


def collect(batches: Any, n: int) -> list[Any]:
    answers = dict(item for batch in batches for item in batch)
    assert sorted(answers) == list(range(n))
    return [answers[i] for i in range(n)]


def rule(tokenizer: Any, request: Score) -> tuple[list[int], list[int]]:
    """lm-evaluation-harness's, written out: what the encoder reads and what the decoder predicts."""
    context, continuation = request.context, request.continuation
    if context == "":
        return [tokenizer.eos_token_id], tokenizer.encode(continuation, add_special_tokens=False)
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    return tokenizer.encode(context), tokenizer.encode(continuation, add_special_tokens=False)


def naive(model: Any, encoder: list[int], targets: list[int]) -> Scored:
    """By the model's own shifted labels, one request at a time."""
    if not targets:
        return Scored(0.0, 0, True)
    labels = torch.tensor([targets])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([encoder]), labels=labels).logits.float()
    logprobs = logits.log_softmax(-1).gather(2, labels[..., None]).sum().item()
    return Scored(logprobs, len(targets), bool((logits.argmax(-1) == labels).all()))


@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
@pytest.mark.parametrize("family", SEQ2SEQ)
def test_score_is_the_naive_sum(family: str, batch_tokens: int, models: dict[str, Any], ending: Any) -> None:
    engine = Seq2SeqEngine(models[family], ending, batch_tokens=batch_tokens)
    for request, got in zip(REQUESTS, collect(engine.score(REQUESTS), len(REQUESTS))):
        want = naive(models[family], *rule(ending, request))
        assert got.logprob == pytest.approx(want.logprob, abs=1e-5 * max(1, want.n_tokens))
        assert (got.n_tokens, got.greedy, got.cut) == (want.n_tokens, want.greedy, 0)


def test_the_head_runs_apart_only_where_that_is_the_same(models: dict[str, Any], ending: Any) -> None:
    found = {family: has_separable_head(Seq2SeqEngine(model, ending)) for family, model in models.items()}
    assert found == {"t5": True, "t5_untied": True, "bart": True, "marian": False}


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_logits_in_pieces_are_the_same(
    family: str, models: dict[str, Any], ending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Seq2SeqEngine(models[family], ending)
    whole = collect(engine.score(REQUESTS), len(REQUESTS))
    monkeypatch.setattr("alignbench.engines.seq2seq.LOGITS", 330 * 2)
    for a, b in zip(whole, collect(engine.score(REQUESTS), len(REQUESTS))):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-5)


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_greedy_flag_marks_what_generate_says(family: str, models: dict[str, Any], ending: Any) -> None:
    model = models[family]
    encoder = torch.tensor([ending.encode("the cat")])
    said = model.generate(encoder, do_sample=False, num_beams=1, max_new_tokens=4, min_new_tokens=4)[0, 1:]
    engine = Seq2SeqEngine(model, ending)
    texts = [ending.decode(ids) for ids in (said, [*said[:-1], (said[-1] + 1) % 250 + 40])]
    for text in texts:
        request = Score("the cat", text)
        got = collect(engine.score([request]), 1)[0]
        assert got.greedy == naive(model, *rule(ending, request)).greedy
    if ending.encode(texts[0], add_special_tokens=False) == said.tolist():
        assert collect(engine.score([Score("the cat", texts[0])]), 1)[0].greedy


def counting(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of every run of the encoder."""
    rows: list[int] = []
    forward = model.get_encoder().forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.get_encoder(), "forward", counted)
    return rows


@pytest.mark.parametrize("verb", ["score", "generate"])
def test_a_context_is_encoded_once(
    verb: str, models: dict[str, Any], ending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Seq2SeqEngine(models["bart"], ending)
    rows = counting(models["bart"], monkeypatch)
    texts = ["the cat", "the dog"] * 5
    sampling = Sampling(max_tokens=3, temperature=1.0)
    if verb == "score":
        requests: list[Any] = [Score(text, f" {i}") for i, text in enumerate(texts)]
        rows_of_the_trial = 2  # whether the head runs apart
    else:
        requests = [Generate(text, sampling, seed=i) for i, text in enumerate(texts)]
        rows_of_the_trial = 0
    answers = collect(getattr(engine, verb)(requests), 10)
    assert sum(rows) - rows_of_the_trial == 2
    if verb == "generate":
        assert len({answer.token_ids for answer in answers}) > 2  # each sample its own


def test_the_work_is_counted(models: dict[str, Any], ending: Any) -> None:
    engine = Seq2SeqEngine(models["t5"], ending)
    requests = [Score("the cat", " sat on"), Score("the cat", " sat on the"), Score("the", " sat")]
    collect(engine.score(requests), 3)
    n = {
        text: len(ending.encode(text, add_special_tokens=False))
        for text in (" sat on", " sat on the", " sat")
    }
    long, short = len(ending.encode("the cat")), len(ending.encode("the"))
    work = engine.work
    assert work.total_tokens == 2 * long + short + sum(n.values())
    later = [size - 1 for size in n.values() if size > 1]
    assert work.computed_tokens == long + short + 2 + sum(later)  # each context and its start token once
    assert work.padding_tokens == long - short + max(later) * len(later) - sum(later)


@pytest.mark.parametrize("family", SEQ2SEQ)
@pytest.mark.parametrize("batch_tokens", [1, 8192])
def test_greedy_text_is_that_of_transformers(
    family: str, batch_tokens: int, models: dict[str, Any], ending: Any
) -> None:
    model = models[family]
    prompts = ["the cat", "where is the mat?", "", "é the dog ran", "the cat"]
    requests = [Generate(text, Sampling(max_tokens=n)) for text, n in zip(prompts, (8, 12, 5, 12, 1))]
    engine = Seq2SeqEngine(model, ending, batch_tokens=batch_tokens)
    for request, got in zip(requests, collect(engine.generate(requests), len(requests))):
        encoder = torch.tensor([ending.encode(request.prompt)])
        n = request.sampling.max_tokens
        want = model.generate(encoder, do_sample=False, num_beams=1, max_new_tokens=n)[0, 1:]
        assert list(got.token_ids) == want.tolist()
        assert got.text == ending.decode(want, skip_special_tokens=True)
        assert got.prompt_ids == tuple(ending.encode(request.prompt))
        assert got.finish == ("eos" if got.token_ids[-1] == 1 else "length")
        scored = naive(model, list(got.prompt_ids), list(got.token_ids))
        assert sum(got.logprobs) == pytest.approx(scored.logprob, abs=1e-4)


def test_sampling_belongs_to_the_request(models: dict[str, Any], ending: Any) -> None:
    sampling = Sampling(max_tokens=10, temperature=0.7, top_k=20, top_p=0.9)
    requests = [Generate("the cat" if i % 2 else "the dog ran", sampling, seed=i) for i in range(8)]
    together, alone = (
        collect(Seq2SeqEngine(models["t5"], ending, batch_tokens=n).generate(requests), 8) for n in (8192, 1)
    )
    for a, b in zip(together, alone):
        assert a.token_ids == b.token_ids
        assert a.sampling_logprobs == pytest.approx(b.sampling_logprobs, abs=1e-4)
        assert all(q >= p for p, q in zip(a.logprobs, a.sampling_logprobs))


def test_stop_string_ends_a_row_and_is_cut_off(models: dict[str, Any], ending: Any) -> None:
    engine = Seq2SeqEngine(models["bart"], ending)
    free = collect(engine.generate([Generate("the cat", Sampling(max_tokens=20))]), 1)[0]
    stop = free.text[4:6]
    requests = [Generate("the cat", Sampling(max_tokens=20, stop=s)) for s in ((), (stop,))]
    whole, stopped = collect(engine.generate(requests), 2)
    assert whole.token_ids == free.token_ids
    assert (stopped.text, stopped.finish) == (free.text[: free.text.index(stop)], "stop")
    assert len(stopped.token_ids) < len(free.token_ids)


def test_a_forced_first_token_is_kept(ending: Any) -> None:
    model = make_seq2seq("bart")
    model.generation_config.forced_bos_token_id = 77
    got = collect(Seq2SeqEngine(model, ending).generate([Generate("the cat", Sampling(max_tokens=6))]), 1)[0]
    want = model.generate(
        torch.tensor([ending.encode("the cat")]), do_sample=False, num_beams=1, max_new_tokens=6
    )[0, 1:]
    assert list(got.token_ids) == want.tolist()
    assert got.token_ids[0] == 77


def test_what_does_not_fit_is_cut_on_the_left_and_counted(models: dict[str, Any], ending: Any) -> None:
    engine = Seq2SeqEngine(models["bart"], ending)
    context, n = LONG, len(ending.encode(LONG))
    assert n > 96
    got, completion = (
        collect(engine.score([Score(context, " dog")]), 1)[0],
        collect(engine.generate([Generate(context, Sampling(max_tokens=2))]), 1)[0],
    )
    assert got.cut == completion.cut == n - 96
    assert completion.prompt_ids == tuple(ending.encode(context)[-96:])  # EOS stays
    encoder, targets = rule(ending, Score(context, " dog"))
    assert got.logprob == pytest.approx(naive(models["bart"], encoder[-96:], targets).logprob, abs=1e-5)


def test_the_decoder_is_used_to_its_last_position(models: dict[str, Any], ending: Any) -> None:
    engine = Seq2SeqEngine(models["bart"], ending)
    said = collect(engine.generate([Generate("the cat", Sampling(max_tokens=96))]), 1)[0]
    assert len(said.token_ids) == 96 or said.finish == "eos"
    with pytest.raises(UsageError, match="max_tokens 97 is more than the 96 tokens"):
        list(engine.generate([Generate("the cat", Sampling(max_tokens=97))]))


@pytest.mark.parametrize(("family", "window"), [("bart", 96), ("t5", None)])
def test_rolling_text_is_predicted_once_in_windows(
    family: str, window: int | None, models: dict[str, Any], ending: Any
) -> None:
    ids = [1, *ending.encode(LONG)]
    requests = [Score("", LONG, rolling=True), Score("", "", rolling=True), Score("the", " cat")]
    engine = Seq2SeqEngine(models[family], ending, prefix="", batch_tokens=200)
    got = collect(engine.score(requests), 3)
    if window is None:
        want = [naive(models[family], ids[:1], ids[1:])]
    else:
        assert window < len(ids) - 1 < 2 * window  # a second window, shorter than the first
        context = ids[len(ids) - window - 1 : 1 + window]
        want = [
            naive(models[family], ids[:1], ids[1 : 1 + window]),
            naive(models[family], context, ids[1 + window :]),
        ]
    assert got[0].logprob == pytest.approx(sum(w.logprob for w in want), abs=1e-3)
    assert (got[0].n_tokens, got[0].cut) == (len(ids) - 1, 0)
    assert got[1].n_tokens == 1  # EOS, which the tokenizer puts behind every text
    assert got[2].n_tokens > 0


def test_held_requests_are_not_computed(models: dict[str, Any], ending: Any) -> None:
    engine = Seq2SeqEngine(models["t5"], ending)
    whole = collect(engine.score(REQUESTS), len(REQUESTS))
    rest = dict(item for batch in engine.score(REQUESTS, held=(0, 3)) for item in batch)
    assert sorted(rest) == [i for i in range(len(REQUESTS)) if i not in (0, 3)]
    assert all(rest[i].logprob == pytest.approx(whole[i].logprob, abs=1e-5) for i in rest)


def test_memory_that_runs_out_halves_the_batch(
    models: dict[str, Any], ending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Seq2SeqEngine(models["bart"], ending)
    want = collect(engine.score(REQUESTS), len(REQUESTS))
    forward = models["bart"].get_encoder().forward

    def small(*args: Any, **kwargs: Any) -> Any:
        if len(kwargs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("no")
        return forward(*args, **kwargs)

    monkeypatch.setattr(models["bart"].get_encoder(), "forward", small)
    for a, b in zip(want, collect(engine.score(REQUESTS), len(REQUESTS))):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-5)


def test_rewards_are_refused(models: dict[str, Any], ending: Any) -> None:
    with pytest.raises(UsageError, match="encoder-decoder"):
        Seq2SeqEngine(models["t5"], ending).reward([Reward("a", "b")])


def test_broken_weights_are_an_error(ending: Any) -> None:
    model = make_seq2seq("t5")
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    for ask in (
        lambda engine: engine.score([Score("the", " cat")]),
        lambda engine: engine.generate([Generate("the")]),
    ):
        with pytest.raises(WorkError, match="not numbers"):
            list(ask(Seq2SeqEngine(model, ending)))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=30), st.integers(1, 120))
def test_plan_keeps_contexts_together_under_the_budget(rows: list[tuple[int, int]], budget: int) -> None:
    contexts = [tuple(range(n + 1)) for n, _ in rows]
    growth = [n for _, n in rows]
    batches = plan_shared(contexts, growth, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    homes: dict[tuple[int, ...], set[int]] = {}
    for number, batch in enumerate(batches):
        wide = max(len(contexts[i]) for i in batch) + max(growth[i] for i in batch)
        largest = max(max(g for c, g in zip(contexts, growth) if c == contexts[i]) for i in batch)
        assert len(batch) * wide <= budget or len(batch) == 1
        assert largest >= max(growth[i] for i in batch)
        for i in batch:
            homes.setdefault(contexts[i], set()).add(number)
    for context, home in homes.items():
        mine = [g for c, g in zip(contexts, growth) if c == context]
        assert len(home) == 1 or len(mine) * (len(context) + max(mine)) > budget


def test_parts_join_when_the_last_has_come() -> None:
    batches = iter([[(0, "a"), (3, "d")], [(2, "c")], [(1, "b"), (4, "e")]])
    joined = [*join_parts(batches, [0, 0, 1, 2, 2])]
    assert joined == [[(1, ["c"])], [(0, ["a", "b"]), (2, ["d", "e"])]]
