"""Llama's family in fewer calls: the same numbers, and only where nothing asks for the modules' own calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_engine_architectures import PACKED, SMALL, build
from tiny_models import make_tokenizer

from alignbench.engines import heads
from alignbench.engines.fused import Fused
from alignbench.engines.heads import quick_head
from alignbench.engines.hf import HFEngine
from alignbench.engines.packed import PackAttention
from alignbench.engines.trie import Trie
from alignbench.engines.types import Generate, Sampling

FUSED = {
    "Llama": {**SMALL, "attention_bias": True},
    "Mistral": {**SMALL, "sliding_window": 8},
    "Qwen2": {**SMALL, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "Qwen3": {**SMALL, "head_dim": 16},
}
CPU = torch.device("cpu")


def states(forward: Any, ids: list[int]) -> torch.Tensor:
    """Of one sequence, packed."""
    trie = Trie([ids], budget=4096)
    ((unit, _),) = trie.units([0])
    with torch.inference_mode():
        attend = PackAttention([unit], {}, CPU)
        return forward(torch.tensor(ids), torch.arange(len(ids)), attend)


def randomized(model: Any) -> Any:
    """Norms and biases that are not ones and zeros."""
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    return model


@pytest.mark.parametrize("name", [*FUSED])
def test_states_are_the_modules_own(name: str) -> None:
    model = randomized(build(name, FUSED[name]))
    engine = HFEngine(model, make_tokenizer())
    assert isinstance(engine.forward, Fused)
    ids = [(7 * i + 3) % 330 for i in range(60)]  # longer than the windows
    with torch.inference_mode():
        want = model.base_model(torch.tensor([ids])).last_hidden_state[0]
    torch.testing.assert_close(states(engine.forward, ids), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted({*PACKED} - {*FUSED}))
def test_other_families_keep_their_modules(name: str) -> None:
    engine = HFEngine(build(name, PACKED[name]), make_tokenizer())
    assert engine.forward is engine._own


def test_a_layer_of_that_name_from_elsewhere_is_not_believed() -> None:
    model = build("Llama", SMALL)
    kind = type(model.model.layers[0])
    foreign = type("LlamaDecoderLayer", (kind,), {"__module__": "somewhere.modeling_llama"})
    model.model.layers[1].__class__ = foreign
    with pytest.raises(TypeError, match="LlamaDecoderLayer is none of"):
        Fused(model)


def test_a_window_in_llamas_config_is_not_llamas() -> None:
    model = build("Llama", {**SMALL, "sliding_window": 4})
    engine = HFEngine(model, make_tokenizer())
    ids = [(7 * i + 3) % 330 for i in range(30)]
    with torch.inference_mode():
        want = model.base_model(torch.tensor([ids])).last_hidden_state[0]
    torch.testing.assert_close(states(engine.forward, ids), want, rtol=1e-4, atol=1e-4)


def test_hooks_and_autocast_get_the_modules_calls() -> None:
    model = build("Llama", SMALL)
    engine = HFEngine(model, make_tokenizer())
    fused = engine.forward
    assert isinstance(fused, Fused)
    seen = []
    hook = model.model.layers[1].mlp.register_forward_hook(lambda *_: seen.append(1))
    assert engine.forward is engine._own
    assert len([*engine.generate([Generate("the cat", Sampling(3))])])
    assert seen
    hook.remove()
    assert engine.forward is fused
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert engine.forward is engine._own


def test_half_precision_keeps_the_modules() -> None:
    engine = HFEngine(build("Llama", SMALL).to(torch.bfloat16), make_tokenizer())
    assert engine.forward is engine._own


def test_weights_that_training_replaced_are_used() -> None:
    model = build("Llama", SMALL)
    engine = HFEngine(model, make_tokenizer())
    ids = [(7 * i + 3) % 330 for i in range(12)]
    before = states(engine.forward, ids)
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.5  # other memory, the same parameter
    with torch.inference_mode():
        want = model.base_model(torch.tensor([ids])).last_hidden_state[0]
    assert not torch.allclose(before, want, atol=1e-2)
    torch.testing.assert_close(states(engine.forward, ids), want, rtol=1e-4, atol=1e-4)


def test_a_layer_that_was_replaced_is_called() -> None:
    model = build("Llama", SMALL)
    engine = HFEngine(model, make_tokenizer())
    assert isinstance(engine.forward, Fused)
    model.model.layers[0].mlp.up_proj = torch.nn.Sequential(model.model.layers[0].mlp.up_proj)
    assert engine.forward is engine._own


# ---- the head


@pytest.mark.parametrize("bias", [True, False])
def test_a_quick_head_is_the_same_function(bias: bool) -> None:
    head = torch.nn.Linear(24, 130, bias=bias)
    x = torch.randn(9, 24)
    with torch.inference_mode():
        quick = quick_head(head)
        assert quick is not head
        torch.testing.assert_close(quick(x), head(x))


def test_other_heads_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    hooked = torch.nn.Linear(4, 9)
    hooked.register_forward_hook(lambda *_: None)
    half = torch.nn.Linear(4, 9, dtype=torch.bfloat16)
    for head in (hooked, half, torch.nn.Embedding(9, 4), None):
        assert quick_head(head) is head
    monkeypatch.setattr(heads, "COPIED", 100)
    large = torch.nn.Linear(4, 9)
    assert quick_head(large) is large
