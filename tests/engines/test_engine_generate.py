"""Generation against transformers' own, and its invariants: batch, held answers, stop strings, modes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES, make_model, make_tokenizer

from alignbench.engines import inflight, native, slots, steps
from alignbench.engines.hf import HFEngine
from alignbench.engines.types import Completion, Generate, Sampling
from alignbench.errors import UsageError, WorkError

PROMPTS = [
    "the cat",
    "the dog ran to the mat; where is",
    "on",
    "sat on it. the cat sat on the mat and",
    "q é",
]


def collect(batches: Any, n: int) -> list[Any]:
    answers = dict(item for batch in batches for item in batch)
    assert sorted(answers) == list(range(n))
    return [answers[i] for i in range(n)]


def generate(engine: HFEngine, requests: list[Generate]) -> list[Completion]:
    return collect(engine.generate(requests), len(requests))


def mixed_requests() -> list[Generate]:
    samplings = [
        Sampling(12, 1.0),
        Sampling(7),
        Sampling(20, 0.8, top_k=20),
        Sampling(15, 1.2, top_p=0.9),
        Sampling(3, 1.0, 5, 0.8),
    ]
    return [Generate(PROMPTS[i % 5], samplings[i % 5], seed=i) for i in range(15)]


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def _steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is said here holds of both ways to decode."""
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("no C compiler here")


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_transformers_generate(family: str, family_models: dict[str, Any], tokenizer: Any) -> None:
    model = family_models[family]
    free = [generate(HFEngine(model, tokenizer), [Generate(p, Sampling(24))])[0].token_ids for p in PROMPTS]
    # an EOS that comes up in the middle of few rows, so that they end at different times
    rare = Counter(token for ids in free for token in set(ids[3:-1])).most_common()[-1][0]
    model.generation_config.eos_token_id = [rare, 1]
    try:
        got = generate(HFEngine(model, tokenizer), [Generate(p, Sampling(24)) for p in PROMPTS])
        tokenizer.padding_side = "left"
        batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
        out = model.generate(
            batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=24,
            do_sample=False,
            pad_token_id=0,
        )
        want = out[:, batch["input_ids"].shape[1] :].tolist()
    finally:
        model.generation_config.eos_token_id = 1
    assert any(answer.finish == "eos" for answer in got)
    assert any(answer.finish == "length" for answer in got)
    for answer, ids in zip(got, want):
        assert list(answer.token_ids) == ids[: len(answer.token_ids)]
        assert set(ids[len(answer.token_ids) :]) <= {0}
        assert (answer.finish == "eos") == (answer.token_ids[-1] in (1, rare))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_batch_does_not_change_a_request(
    family: str, family_models: dict[str, Any], tokenizer: Any
) -> None:
    requests = mixed_requests()
    wide = generate(HFEngine(family_models[family], tokenizer), requests)
    alone = generate(HFEngine(family_models[family], tokenizer, batch_tokens=1), requests)
    for a, b in zip(wide, alone):
        assert (a.text, a.token_ids, a.finish) == (b.text, b.token_ids, b.finish)
        torch.testing.assert_close(a.logprobs, b.logprobs, rtol=0, atol=5e-5)
        torch.testing.assert_close(a.sampling_logprobs, b.sampling_logprobs, rtol=0, atol=5e-5)


def test_same_bytes_twice(llama: Any, tokenizer: Any) -> None:
    requests = mixed_requests()
    assert generate(HFEngine(llama, tokenizer), requests) == generate(HFEngine(llama, tokenizer), requests)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_the_full_models(
    family: str, family_models: dict[str, Any], tokenizer: Any
) -> None:
    model = family_models[family]
    for answer in generate(HFEngine(model, tokenizer), mixed_requests()[:5]):
        ids = torch.tensor([[*answer.prompt_ids, *answer.token_ids]])
        with torch.no_grad():
            logits = model(ids).logits[0].float()
        n = len(answer.prompt_ids)
        want = logits[n - 1 : -1].log_softmax(-1).gather(1, ids[0, n:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(answer.logprobs), want, rtol=0, atol=5e-5)


def test_sampling_follows_the_model(llama: Any, tokenizer: Any) -> None:
    requests = [Generate("the cat", Sampling(1, 1.0, top_k=4), seed=seed) for seed in range(2000)]
    answers = generate(HFEngine(llama, tokenizer), requests)
    counts = Counter(answer.token_ids[0] for answer in answers)
    probability = {a.token_ids[0]: torch.tensor(a.sampling_logprobs[0]).exp().item() for a in answers}
    assert len(counts) <= 4
    assert sum(probability.values()) == pytest.approx(1, abs=1e-4)
    for token, p in probability.items():
        assert counts[token] / 2000 == pytest.approx(p, abs=4 * (p * (1 - p) / 2000) ** 0.5)


def test_stop_strings_cut_the_text_before_them(llama: Any, tokenizer: Any) -> None:
    engine = HFEngine(llama, tokenizer)
    free = generate(engine, [Generate(p, Sampling(30, 1.0), seed=3) for p in PROMPTS])
    stops = [answer.text[4:6] for answer in free]
    requests = [Generate(p, Sampling(30, 1.0, stop=("\0never", s)), seed=3) for p, s in zip(PROMPTS, stops)]
    for full, stop, answer in zip(free, stops, generate(engine, requests)):
        assert answer.finish == "stop"
        assert answer.text == full.text[: full.text.index(stop)]
        # decoding ended at the token that completed the stop string
        assert answer.token_ids == full.token_ids[: len(answer.token_ids)]
        assert stop not in tokenizer.decode(answer.token_ids[:-1])


def test_a_prompt_too_long_loses_its_left(
    llama: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = "the cat sat on it. " * 40
    (answer,) = generate(HFEngine(llama, tokenizer), [Generate(prompt, Sampling(10))])
    full = tokenizer(prompt)["input_ids"]
    assert list(answer.prompt_ids) == full[-(96 - 10) :]
    assert answer.cut == len(full) - (96 - 10)
    assert "1 of 1 texts exceed the model's context of 96" in caplog.text


def test_empty_prompt_starts_at_bos_or_eos(llama: Any, tokenizer: Any) -> None:
    assert generate(HFEngine(llama, tokenizer), [Generate("", Sampling(2))])[0].prompt_ids == (1,)
    assert generate(HFEngine(llama, make_tokenizer(bos=True)), [Generate("", Sampling(2))])[0].prompt_ids == (
        2,
    )


def test_held_requests_are_not_computed_and_the_others_are_the_same(llama: Any, tokenizer: Any) -> None:
    requests = mixed_requests()
    engine = HFEngine(llama, tokenizer, batch_tokens=150)
    whole = generate(engine, requests)
    rest = dict(item for batch in engine.generate(requests, held=[0, 3, 14]) for item in batch)
    assert sorted(rest) == [i for i in range(len(requests)) if i not in (0, 3, 14)]
    for i, answer in rest.items():
        assert (answer.text, answer.token_ids) == (whole[i].text, whole[i].token_ids)
    assert list(engine.generate(requests, held=range(len(requests)))) == []


def test_a_live_module_gets_its_modes_and_gradients_back(tokenizer: Any) -> None:
    model = make_model("llama", attention_dropout=0.5).train()
    model.lm_head.eval()
    engine = HFEngine(model, tokenizer)
    requests = [Generate("the cat", Sampling(8, 1.0))]
    before = generate(engine, requests)
    assert before == generate(engine, requests), "dropout was on"
    assert model.training
    assert not model.lm_head.training
    for answers in engine.generate(requests):  # the consumer runs outside of inference mode
        assert answers
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    model(torch.tensor([[5, 6, 7]])).logits.sum().backward()
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    assert generate(engine, requests) != before, "weights that changed must change the answer"


def test_prefix_and_chat_template(llama: Any, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = make_tokenizer(bos=True)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    templated = HFEngine(llama, tokenizer, prefix="on ", chat_template="auto")
    assert templated.render("it") == "<bos>[user] on it\n[assistant]"
    (answer,) = generate(templated, [Generate("it", Sampling(1))])
    assert tokenizer.decode(answer.prompt_ids) == "<bos>[user] on it\n[assistant]", "one BOS, the template's"
    assert HFEngine(llama, tokenizer, prefix="on ", chat_template="off").render("it") == "on it"
    with pytest.raises(UsageError, match="no chat template"):
        HFEngine(llama, make_tokenizer(), chat_template="on")


@pytest.mark.parametrize(
    "sampling",
    [Sampling(0), Sampling(1, -1.0), Sampling(1, 1.0, -1), Sampling(1, 1.0, 0, 0.0), Sampling(1, stop=("",))],
)
def test_parameters_out_of_range(sampling: Sampling, llama: Any, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="max_tokens must be"):
        generate(HFEngine(llama, tokenizer), [Generate("a", sampling)])


def test_no_room_for_a_prompt(llama: Any, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="no room for a prompt"):
        generate(HFEngine(llama, tokenizer), [Generate("a", Sampling(96))])


def test_broken_weights_are_an_error(tokenizer: Any) -> None:
    model = make_model("llama")
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(WorkError, match="NaN"):
        generate(HFEngine(model, tokenizer), [Generate("a", Sampling(2))])


# ---- in flight


@pytest.mark.parametrize("batch_tokens", [60, 200, 8192])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_samples_of_one_prompt_are_run_once(
    family: str, batch_tokens: int, family_models: dict[str, Any], tokenizer: Any
) -> None:
    requests = [
        Generate(prompt, Sampling(3 + seed % 9, 1.0), seed=seed)
        for seed in range(14)
        for prompt in PROMPTS[:2]
    ]
    engine = HFEngine(family_models[family], tokenizer, batch_tokens=batch_tokens)
    got = generate(engine, requests)
    sizes = [len(tokenizer(prompt)["input_ids"]) for prompt in PROMPTS[:2]]
    assert engine.work.computed_tokens <= 2 * sum(sizes), "once a wave"
    assert engine.work.total_tokens == 14 * sum(sizes)
    for request, answer in zip(requests, got):
        (alone,) = generate(HFEngine(family_models[family], tokenizer), [request])
        assert answer.token_ids == alone.token_ids
        torch.testing.assert_close(answer.logprobs, alone.logprobs, rtol=0, atol=5e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_examples_before_every_prompt_are_kept_once(
    family: str, family_models: dict[str, Any], tokenizer: Any
) -> None:
    examples = "the cat sat on the mat. where is the cat? the dog ran to the mat. where is the dog? "
    requests = [Generate(examples + p, Sampling(9, 0.7), seed=i) for i, p in enumerate([*PROMPTS] * 3)]
    engine = HFEngine(family_models[family], tokenizer, batch_tokens=150)
    got = generate(engine, requests)
    for request, answer in zip(requests, got):
        ids = torch.tensor([[*answer.prompt_ids, *answer.token_ids]])
        with torch.no_grad():
            logits = family_models[family](ids).logits[0].float()
        n = len(answer.prompt_ids)
        want = logits[n - 1 : -1].log_softmax(-1).gather(1, ids[0, n:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(answer.logprobs), want, rtol=0, atol=5e-5)
        assert (
            answer.token_ids == generate(HFEngine(family_models[family], tokenizer), [request])[0].token_ids
        )


def test_when_memory_runs_out_rows_that_ended_are_kept(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [Generate(PROMPTS[i % 5], Sampling(4 + 3 * i), seed=i) for i in range(12)]
    want = generate(HFEngine(llama, tokenizer), requests)
    seen: list[int] = []

    def tight(real: Any) -> Any:
        def advance(self: Any, running: steps.Running) -> int:
            seen.append(len(running))
            if len(running) > 3 and len(seen) > 7:
                raise torch.OutOfMemoryError("out of memory")
            made: int = real(self, running)
            return made

        return advance

    monkeypatch.setattr(native, "STEPS", 1)
    for kind in (steps.TorchSteps, native.NativeSteps):
        monkeypatch.setattr(kind, "advance", tight(kind.advance))
    batches = list(HFEngine(llama, tokenizer).generate(requests))
    got = collect(batches, 12)
    assert [a.token_ids for a in got] == [a.token_ids for a in want]
    first = [i for i, _ in batches[0]]
    assert first == [0, 1], "what had ended before memory ran out came first"
    assert max(seen[20:]) <= 3


@pytest.mark.parametrize("common", ["", "the cat sat on the mat and ran. "])
def test_rows_of_any_length_are_put_in_order_and_attended_in_spans(
    common: str, llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "library", lambda: None)  # compiled steps need no order
    for module, name, value in ((steps, "BAND", 2), (inflight, "BAND", 2), (inflight, "REORDER", 100)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(slots, "GRAIN", 4)
    spans: list[int] = []
    cut = steps._spans
    monkeypatch.setattr(steps, "_spans", lambda *a: spans.append(len(cut(*a))) or cut(*a))
    words = ["cat", "dog", "ran", "sat", "mat"]
    prompts = [common + " ".join(words[(i + j) % 5] for j in range(1 + 7 * i % 23)) for i in range(24)]
    requests = [Generate(p, Sampling(1 + 5 * i % 17, temperature=i % 2), i) for i, p in enumerate(prompts)]
    together = generate(HFEngine(llama, tokenizer), requests)
    moved: list[list[int]] = []
    move = slots.Slots.move
    monkeypatch.setattr(slots.Slots, "move", lambda *a: moved.append(sorted(a[1].tolist())) or move(*a))
    few = generate(HFEngine(llama, tokenizer, batch_tokens=400), requests)
    assert max(spans) > 2
    assert moved
    for i, request in enumerate(requests):
        (alone,) = generate(HFEngine(llama, tokenizer), [request])
        assert together[i].token_ids == few[i].token_ids == alone.token_ids
        torch.testing.assert_close(few[i].logprobs, alone.logprobs, rtol=0, atol=5e-5)


def test_spans_by_hand() -> None:
    rows = [*[99] * 8, *[90] * 8, *[50] * 8, *[40] * 4]
    # 75 % of 100 holds 91; 51 starts another, which holds 41; lengths are rounded up to 32
    assert steps._spans(rows, 512) == [(0, 16, 128), (16, 28, 64)]
    assert steps._spans(rows, 100) == [(0, 16, 100), (16, 28, 64)]
    assert steps._spans([5], 96) == [(0, 1, 32)]
    # a long row that has just entered behind short ones
    assert steps._spans([*[20] * 8, 200], 512) == [(0, 8, 32), (8, 9, 224)]


@given(columns=st.lists(st.integers(0, 400), min_size=1, max_size=60))
def test_spans_cover_all_rows_and_what_they_have(columns: list[int]) -> None:
    spans = steps._spans(columns, 416)
    assert [i for start, end, _ in spans for i in range(start, end)] == [*range(len(columns))]
    assert all(max(columns[start:end]) < length <= 416 for start, end, length in spans)


def test_waves_hold_what_fits() -> None:
    assert inflight.plan_waves([8, 8, 8], 16, 128) == [([0, 1, 2], 2)]
    assert inflight.plan_waves([4, 40, 5, 4], 40, 128) == [([1], 1), ([2, 0, 3], 3)]
    assert inflight.plan_waves([100], 10, 128) == [([0], 1)]
    assert inflight.plan_waves([4, 40, 5], 1000, 128) == [([1, 2, 0], 3)]
    assert inflight.plan_waves([], 10, 128) == []


@given(st.lists(st.integers(1, 200), max_size=60), st.integers(1, 500), st.integers(1, 16))
def test_every_row_is_in_one_wave_within_the_budget(needs: list[int], budget: int, most: int) -> None:
    waves = inflight.plan_waves(needs, budget, most)
    assert sorted(i for rows, _ in waves for i in rows) == [*range(len(needs))]
    for rows, together in waves:
        assert 1 <= together <= min(most, len(rows))
        assert together == 1 or together * max(needs[i] for i in rows) <= budget
