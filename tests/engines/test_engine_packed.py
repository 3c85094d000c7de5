"""Packed passes against the module run on each sequence alone, over random tries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_model, make_tokenizer

from alignbench.engines import packed
from alignbench.engines.hf import HFEngine
from alignbench.engines.lanes import Lanes
from alignbench.engines.packed import ModuleForward, TriePass
from alignbench.engines.plan import Work
from alignbench.engines.trie import Trie

CPU = torch.device("cpu")
SETS = st.lists(st.lists(st.integers(5, 7), min_size=1, max_size=14), min_size=1, max_size=10)


@pytest.fixture(scope="module")
def windowed() -> Any:
    """Mistral, whose layers see four positions back."""
    import transformers

    torch.manual_seed(3)
    config = transformers.MistralConfig(
        vocab_size=330,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        sliding_window=4,
        initializer_range=0.3,
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("family", ["llama", "gpt2", "windowed"])
@given(sequences=SETS, budget=st.integers(4, 60), unit=st.integers(1, 30), worthwhile=st.integers(1, 5))
@settings(max_examples=40)
def test_states_are_those_of_each_sequence_alone(
    family: str,
    family_models: dict[str, Any],
    windowed: Any,
    sequences: list[list[int]],
    budget: int,
    unit: int,
    worthwhile: int,
) -> None:
    model = windowed if family == "windowed" else family_models[family]
    trie = Trie(sequences, budget=budget, unit=unit, worthwhile=worthwhile)
    work = Work()
    run = TriePass(ModuleForward(model), trie, Lanes(CPU), work)
    with torch.inference_mode():
        for pack in trie.packs:
            states, where, _ = run(pack)
            for row in pack:
                want = model.base_model(torch.tensor([sequences[row]])).last_hidden_state[0]
                got = states[torch.from_numpy(where[row]).long()]
                torch.testing.assert_close(got, want[len(want) - len(got) :], rtol=1e-4, atol=1e-4)
    assert work.computed_tokens == trie.computed_tokens


def test_attention_is_given_back_and_gradients_are_untouched(llama: Any) -> None:
    before = llama.config._attn_implementation
    with torch.inference_mode():
        assert packed.supports(llama, ModuleForward(llama), CPU)
    assert llama.config._attn_implementation == before


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "windowed"])
def test_supported(family: str, family_models: dict[str, Any], windowed: Any) -> None:
    model = windowed if family == "windowed" else family_models[family]
    assert HFEngine(model, make_tokenizer()).packs


def test_not_supported(family_models: dict[str, Any]) -> None:
    import transformers

    sizes = {"vocab_size": 330, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = transformers.BertForSequenceClassification(
        transformers.BertConfig(**sizes, intermediate_size=32, num_labels=1)
    )
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=330, hidden_size=32, n_head=2))
    chunked = make_model("llama", attention_chunk_size=8)
    scaled = make_model("llama", rope_scaling={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    for model in (family_models["gemma2"], bert.eval(), bloom.eval(), chunked, scaled):
        assert not HFEngine(model, make_tokenizer()).packs


def test_the_spread_of_lengths_costs_little_padding(llama: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = (96 ** torch.rand(400, generator=generator)).long().tolist()
    sequences = [torch.randint(5, 320, (n,), generator=generator).tolist() for n in lengths]
    trie = Trie(sequences, budget=2048)
    work = Work()
    run = TriePass(ModuleForward(llama), trie, Lanes(CPU), work)
    with torch.inference_mode():
        for pack in trie.packs:
            run(pack)
    assert work.padding_tokens <= packed.SLACK * work.computed_tokens
    assert work.computed_tokens <= sum(lengths)


def test_a_window_that_only_masks_tell_of_is_not_packed() -> None:
    import transformers

    config = transformers.PhimoeConfig(
        vocab_size=330,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
        sliding_window=12,
        max_position_embeddings=96,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert not HFEngine(model, make_tokenizer()).packs


def test_under_autocast_the_module_is_tried_in_its_own_precision() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert HFEngine(make_model("llama"), make_tokenizer()).packs


def test_a_long_trunk_is_not_copied_for_all_units_at_once(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "KEYS", 60)
    trunk = [5 + i % 9 for i in range(24)]
    sequences = [[*trunk, 20 + i, 7, 8] for i in range(9)]
    trie = Trie(sequences, budget=200, unit=3)
    run = TriePass(ModuleForward(llama), trie, Lanes(CPU), Work())
    with torch.inference_mode():
        for pack in trie.packs:
            states, where, _ = run(pack)
            for row in pack:
                want = llama.base_model(torch.tensor([sequences[row]])).last_hidden_state[0, -1]
                torch.testing.assert_close(states[int(where[row][-1])], want, rtol=1e-4, atol=1e-4)
