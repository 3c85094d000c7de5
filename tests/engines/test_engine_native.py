"""Compiled steps of decoding: torch's numbers, whatever runs beside a row; and torch where they cannot be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_engine_architectures import OLD, PACKED, SMALL, build
from test_engine_fused import FUSED, randomized
from tiny_models import make_tokenizer

from alignbench.engines import compiled, native
from alignbench.engines.hf import HFEngine
from alignbench.engines.lanes import Lanes
from alignbench.engines.layers import Spec, spec_of
from alignbench.engines.native import Native, NativeSteps
from alignbench.engines.sampling import Rows, pick
from alignbench.engines.slots import Slots
from alignbench.engines.steps import Running, TorchSteps
from alignbench.engines.stops import Pauses, StopStrings
from alignbench.engines.types import Completion, Generate, Sampling

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(compiled.library() is None, reason="no C compiler here")
WIDER = {**SMALL, "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 48}
KNOWN = {
    **{name: (name, sizes) for name, sizes in FUSED.items()},
    "GPT2": ("GPT2", {**OLD, "n_positions": 96, "scale_attn_by_inverse_layer_idx": True}),
    "Llama, three heads a group": ("Llama", WIDER),
    "Llama, heads of 80": ("Llama", {**WIDER, "head_dim": 80, "num_key_value_heads": 6}),
    "Qwen3, heads of 64": ("Qwen3", {**WIDER, "head_dim": 64, "num_key_value_heads": 1}),
    "Llama, another scale and width": (
        "Llama",
        {**SMALL, "hidden_size": 40, "head_dim": 16, "vocab_size": 1200},
    ),
}


def generate(engine: HFEngine, requests: list[Generate]) -> list[Completion]:
    answers = dict(item for batch in engine.generate(requests) for item in batch)
    return [answers[i] for i in range(len(requests))]


def requests_with(common: str, n: int = 17) -> list[Generate]:
    """Ragged prompts and answers; greedy and sampled rows, with and without filters."""
    words = ["cat", "dog", "ran", "sat", "mat"]
    samplings = [{}, {"temperature": 1.0}, {"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.8}]
    samplings.append({"temperature": 0.9, "top_k": 11, "top_p": 0.9})
    return [
        Generate(
            common + " ".join(words[(i + j) % 5] for j in range(1 + 5 * i % 17)),
            Sampling(1 + 7 * i % 31, **samplings[i % 5]),
            seed=i,
        )
        for i in range(n)
    ]


@needs_compiler
@pytest.mark.parametrize("common", ["", "the cat sat on the mat and ran. "])
@pytest.mark.parametrize("name", KNOWN)
def test_answers_are_torchs(name: str, common: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family, sizes = KNOWN[name]
    model = randomized(build(family, sizes))
    engine = HFEngine(model, make_tokenizer(), batch_tokens=300)
    assert engine.compiles
    got = generate(engine, requests_with(common))
    monkeypatch.setattr(native, "library", lambda: None)
    other = HFEngine(model, make_tokenizer(), batch_tokens=300)
    want = generate(other, requests_with(common))
    assert not other.compiles
    assert engine.work.decoded_tokens == other.work.decoded_tokens
    for a, b in zip(got, want):
        assert a.token_ids == b.token_ids
        torch.testing.assert_close(a.logprobs, b.logprobs, rtol=0, atol=1e-4)
        torch.testing.assert_close(a.sampling_logprobs, b.sampling_logprobs, rtol=0, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("name", sorted({*PACKED} - {*FUSED, "GPT2"}))
def test_other_families_are_decoded_by_torch(name: str) -> None:
    assert not HFEngine(build(name, PACKED[name]), make_tokenizer()).compiles


# ---- a row by itself


def steps_of(model: Any, tokens: list[int], samplings: list[Sampling]) -> Running:
    """Rows that go on from one token each, until they have all that they may produce."""
    engine = HFEngine(model, make_tokenizer())
    requests = [Generate("", sampling, seed=token) for token, sampling in zip(tokens, samplings)]
    longest = max(sampling.max_tokens for sampling in samplings)
    laid_out = native.native_for(engine, longest)
    assert laid_out is not None
    running = Running.none(Rows.of(requests, engine.vocabulary, CPU), requests, CPU)
    running.add([*range(len(tokens))], [-1] * len(tokens))
    running.write(0, torch.tensor(tokens), torch.zeros(len(tokens)), torch.zeros(len(tokens)))
    slots = Slots(len(tokens), 64)
    shape = len(tokens), laid_out.model.groups, 64, laid_out.model.size
    slots.layers = {i: (torch.zeros(shape), torch.zeros(shape)) for i in range(laid_out.model.layers)}
    running.waiting = False
    pauses = Pauses(engine.vocabulary, (), StopStrings(lambda rows: []), ())
    steps = NativeSteps(laid_out, Lanes(CPU), slots, pauses)
    while bool((running.step < running.limits).any()):
        assert steps.advance(running) > 0
    return running


@needs_compiler
@pytest.mark.parametrize("name", ["Llama, three heads a group", "GPT2", "Mistral"])
def test_company_changes_no_bit_of_a_row(name: str) -> None:
    family, sizes = KNOWN[name]
    model = randomized(build(family, sizes))
    tokens = [(11 * i + 3) % 330 for i in range(30)]
    kinds = [Sampling(9), Sampling(12, 1.0), Sampling(10, 0.8, 20, 0.9)]
    samplings = [kinds[i % 3] for i in range(30)]
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        together = steps_of(model, tokens, samplings)
    finally:
        torch.set_num_threads(threads)
    for first, end in ((0, 1), (1, 2), (2, 3), (3, 8), (8, 15), (15, 29)):
        few = steps_of(model, tokens[first:end], samplings[first:end])
        n = few.tokens.shape[1]
        assert torch.equal(few.tokens, together.tokens[first:end, :n])
        assert torch.equal(few.logprobs, together.logprobs[:, first:end, :n])


# ---- bfloat16


@needs_compiler
@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("name", ["Llama", "Qwen2", "GPT2"])
def test_in_bfloat16_log_probabilities_are_nearer_to_float32s_than_torchs(
    name: str, halves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With products of bfloat16, where the processor has them, and with the weights in float32, elsewhere."""
    family, sizes = KNOWN[name]
    model = randomized(build(family, sizes | {"initializer_range": 0.1})).bfloat16()
    exact = build(family, sizes | {"initializer_range": 0.1})
    exact.load_state_dict(model.state_dict())
    if not halves:
        library = compiled.library()
        monkeypatch.setattr(library, "multiplies_halves", lambda: 0)
    elif not compiled.library().multiplies_halves():  # type: ignore[union-attr]
        pytest.skip("this processor has no products of bfloat16")
    running = steps_of(model, [(11 * i + 3) % 330 for i in range(20)], [Sampling(12, 1.0)] * 20)
    with torch.inference_mode():
        chosen = [
            m(running.tokens).logits[:, :-1].float().log_softmax(-1).gather(-1, running.tokens[:, 1:, None])
            for m in (exact.float(), model)
        ]
    want, torchs = (each[..., 0] for each in chosen)
    error, theirs = (float((each - want).abs().mean()) for each in (running.logprobs[0, :, 1:], torchs))
    assert error < (theirs if halves else 1e-4)


# ---- the choice of a token


def choose(logits: torch.Tensor, rows: Rows, draws: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """What compiled code picks from logits [B, V], given as the head's weights of a model without layers."""
    n, vocabulary = logits.shape
    # B states that are one number each: row b's logits are what the head has for its input b
    head = torch.nn.Linear(n, vocabulary, bias=False)
    head.weight = torch.nn.Parameter(logits.t().contiguous() / n**0.5)
    norm = SimpleNamespace(weight=torch.ones(n))
    spec = Spec(n, 1, 1, 16, 1, True, 1e-30, torch.eye(n), None, None, [], norm)
    library = compiled.library()
    assert library is not None
    laid_out = Native(library, spec, head, 1.0, 4)
    requests = [Generate("", Sampling(2)) for _ in range(n)]
    running = Running.none(rows, requests, CPU)
    running.add([*range(n)], [-1] * n)
    running.write(0, torch.arange(n), torch.zeros(n), torch.zeros(n))
    running.waiting = False
    pauses = Pauses(vocabulary, (), StopStrings(lambda rows: []), ())
    steps = NativeSteps(laid_out, Lanes(CPU), Slots(n, 32), pauses)
    steps.slots.layers = {0: (torch.zeros(n, 1, 32, 16), torch.zeros(n, 1, 32, 16))}
    steps.advance(running)
    return running.tokens[:, 1], running.logprobs[:, :, 1]


@needs_compiler
@given(
    seed=st.integers(0, 2**32),
    vocabulary=st.sampled_from([1, 5, 16, 31, 33, 511, 512, 513, 2000]),
    spread=st.sampled_from([0.1, 2.0, 30.0]),
    sampling=st.builds(
        Sampling,
        st.just(2),
        st.sampled_from([0.0, 0.3, 1.0, 2.0]),
        st.sampled_from([0, 1, 3, 40, 600]),
        st.sampled_from([0.01, 0.5, 0.95, 1.0]),
    ),
)
def test_the_choice_is_torchs(seed: int, vocabulary: int, spread: float, sampling: Sampling) -> None:
    logits = torch.randn(7, vocabulary, generator=torch.Generator().manual_seed(seed % 2**31)) * spread
    rows = Rows.of([Generate("", sampling, seed + i) for i in range(7)], vocabulary, CPU)
    token, (raw, sampled) = choose(logits, rows)
    want_token, want_raw, want_sampled = pick(logits, rows, 1)
    assert token.tolist() == want_token.tolist()
    torch.testing.assert_close(raw, want_raw, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sampled, want_sampled, rtol=1e-5, atol=1e-4)


@needs_compiler
def test_the_first_of_equal_logits_and_log_probabilities_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0], [3.0, 3.0, 3.0, 3.0]])
    token, (raw, sampled) = choose(logits, Rows.of([Generate("", Sampling(2))] * 2, 4, CPU))
    assert token.tolist() == [1, 0]
    # log(e² / (e + 2e² + 1)), log ¼
    torch.testing.assert_close(raw, torch.tensor([-0.9175757, -1.3862944]), rtol=0, atol=2e-6)
    assert sampled.tolist() == [0.0, 0.0]


@needs_compiler
def test_inverse_cdf_by_hand() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log().repeat(5, 1)
    rows = Rows.of([Generate("", Sampling(2, 1.0))] * 5, 4, CPU)
    uniform = torch.tensor([0.0, 0.0999, 0.1001, 0.59, 1 - 2**-53], dtype=torch.float64)
    rows.uniform = uniform[:, None].repeat(1, 2)
    token, (raw, sampled) = choose(logits, rows)
    assert token.tolist() == [0, 0, 1, 2, 3]
    torch.testing.assert_close(raw.exp(), torch.tensor([0.1, 0.1, 0.2, 0.3, 0.4]))
    torch.testing.assert_close(sampled, raw)


@needs_compiler
def test_a_nucleus_by_hand() -> None:
    # p = .6 holds .4 and .3, of which .3 comes first in the vocabulary: 3/7 of the mass
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log().repeat(2, 1)
    rows = Rows.of([Generate("", Sampling(2, 1.0, top_p=0.6))] * 2, 4, CPU)
    rows.uniform = torch.tensor([[0.0, 3 / 7 - 1e-6], [0.0, 3 / 7 + 1e-6]], dtype=torch.float64)
    token, (raw, sampled) = choose(logits, rows)
    assert token.tolist() == [2, 3]
    torch.testing.assert_close(raw.exp(), torch.tensor([0.3, 0.4]))
    torch.testing.assert_close(sampled.exp(), torch.tensor([3 / 7, 4 / 7]))


# ---- where there are none


@needs_compiler
@pytest.mark.parametrize("why", ["a hook", "autocast", "float16", "a large model", "another activation"])
def test_what_compiled_steps_cannot_do_is_torchs(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Llama", SMALL | ({"hidden_act": "gelu"} if why == "another activation" else {}))
    if why == "a hook":
        model.model.layers[1].mlp.up_proj.register_forward_hook(lambda *a: None)
    elif why == "float16":
        model.half()
    elif why == "a large model":
        monkeypatch.setattr(native.memory, "memory_of", lambda device: (1000, 1000))
    engine = HFEngine(model, make_tokenizer(), batch_tokens=300)
    with torch.autocast("cpu", enabled=why == "autocast"):
        steps = engine._make_steps(20)(Slots(1, 32), Pauses(330, (), StopStrings(lambda rows: []), ()))
    assert isinstance(steps, TorchSteps)
    assert len(generate(engine, requests_with("", 3))) == 3


@needs_compiler
def test_a_hook_that_comes_later_is_seen() -> None:
    model = build("Llama", SMALL)
    engine = HFEngine(model, make_tokenizer())
    before = generate(engine, requests_with(""))
    assert engine.compiles
    model.model.layers[0].mlp.register_forward_hook(lambda module, args, out: -out)
    assert generate(engine, requests_with("")) != before


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_that_does_something_else_is_found_out(dtype: torch.dtype) -> None:
    model = build("Llama", SMALL).to(dtype)
    model.model.layers[0].self_attn.scaling *= 1.5
    assert HFEngine(model, make_tokenizer()).compiles, "the scale is read"
    model.model.norm.forward = lambda x: 2 * x
    assert spec_of(model) is None
    del model.model.norm.forward
    assert spec_of(model) is not None
    model.model.layers[1].mlp.act_fn = torch.nn.ReLU()
    assert spec_of(model) is None


@needs_compiler
def test_numbers_that_are_not_the_modules_own_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = HFEngine(build("Llama", SMALL), make_tokenizer())
    real = native.spec_of
    monkeypatch.setattr(native, "spec_of", lambda module: replace(real(module), epsilon=0.1))
    assert not engine.compiles


@needs_compiler
@pytest.mark.parametrize("what", ["a wider layer", "a larger head", "few positions"])
def test_shapes_that_do_not_fit_are_torchs(what: str) -> None:
    if what == "few positions":
        model = build("GPT2", {**OLD, "n_positions": 12})
    else:
        model = build("Llama", {**SMALL, "tie_word_embeddings": False})
    if what == "a wider layer":
        mlp = model.model.layers[1].mlp
        mlp.gate_proj, mlp.up_proj = (torch.nn.Linear(32, 96, bias=False) for _ in range(2))
        mlp.down_proj = torch.nn.Linear(96, 32, bias=False)
    elif what == "a larger head":
        model.lm_head = torch.nn.Linear(32, 400, bias=False)
    engine = HFEngine(model, make_tokenizer())
    assert native.native_for(engine, 20) is None


@needs_compiler
def test_no_room_for_a_copy_leaves_it_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = HFEngine(build("Llama", SMALL), make_tokenizer())
    want = generate(engine, requests_with("", 4))

    def none(*given: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(native, "Native", none)
    assert [a.token_ids for a in generate(engine, requests_with("", 4))] == [a.token_ids for a in want]


@needs_compiler
def test_whole_numbers_and_other_defaults_are_read_as_they_are_meant() -> None:
    engine = HFEngine(build("Llama", SMALL), make_tokenizer())
    want = generate(engine, [Generate("the cat", Sampling(9, 1.0), seed=i) for i in range(3)])
    whole = [Generate("the cat", Sampling(9, 1, top_p=1), seed=i) for i in range(3)]
    assert generate(engine, whole) == want
    torch.set_default_dtype(torch.float64)
    try:
        assert generate(engine, whole) == want
    finally:
        torch.set_default_dtype(torch.float32)


def test_without_a_compiler_there_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNBENCH_NATIVE", str(tmp_path / "kept"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=r"no C compiler \(cc, gcc, clang\) is installed"):
        compiled._built()
    assert compiled.library.__wrapped__() is None
    monkeypatch.setenv("ALIGNBENCH_NATIVE", "0")
    assert compiled.library.__wrapped__() is None


@needs_compiler
def test_it_is_compiled_once_and_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNBENCH_NATIVE", str(tmp_path))
    monkeypatch.setenv("CC", shutil.which("false") or "false")
    assert compiled.library.__wrapped__() is None
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("CC")
    place = compiled._built()
    assert {*tmp_path.iterdir()} == {place, place.with_suffix(".sha256")}
    written = place.stat().st_mtime_ns
    assert compiled._built() == place
    assert place.stat().st_mtime_ns == written
    whole = place.read_bytes()
    place.write_bytes(whole[:9000])
    assert compiled._built() == place
    assert len(place.read_bytes()) == len(whole), "a library that was cut is made again"
    monkeypatch.setattr(compiled, "processor_flags", lambda: "flags: another processor")
    assert compiled._built() != place


# ---- pauses


def test_rows_pause_behind_what_may_end_them() -> None:
    said = {3: "a.", 4: "b", 5: "."}
    asked: list[int] = []

    def decode(rows: list[list[int]]) -> list[str]:
        asked.extend(ids[0] for ids in rows)
        return [said[ids[0]] for ids in rows]

    pauses = Pauses(8, [1], StopStrings(decode), {(), (".",)})
    assert pauses.mask.tolist() == [1] * 8, "nothing is known yet"
    pauses.learn([3, 4, 4])
    pauses.learn([4, 5, 1])
    assert pauses.mask.tolist() == [1, 1, 1, 1, 0, 1, 1, 1]
    assert sorted(asked) == [3, 4, 5], "what a token says is asked once"
    nothing = Pauses(8, [1, 99], StopStrings(decode), {()})
    nothing.learn([4])
    assert nothing.mask.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
