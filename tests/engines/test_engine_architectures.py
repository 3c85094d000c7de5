"""Many architectures, tiny and random: the engine's numbers are the module's own, packed or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import make_tokenizer

from alignbench.engines.encoding import encode_pair
from alignbench.engines.hf import HFEngine
from alignbench.engines.types import Generate, Sampling, Score
from alignbench.errors import WorkError

SMALL = {
    "vocab_size": 330,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 96,
    "initializer_range": 0.2,
}
OLD = {"vocab_size": 330, "n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
PACKED: dict[str, dict[str, Any]] = {
    "Llama": SMALL,
    "Mistral": {**SMALL, "sliding_window": 8},
    "Mixtral": {**SMALL, "num_local_experts": 2},
    "Qwen2": SMALL,
    "Qwen3": {**SMALL, "head_dim": 16},
    "Gemma3Text": {**SMALL, "head_dim": 16, "sliding_window": 8},
    "GPT2": {**OLD, "n_positions": 96},
    "GPTNeoX": {k: v for k, v in SMALL.items() if k != "num_key_value_heads"},
    "OPT": {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2},
    "Phi": {**SMALL, "num_key_value_heads": 2},
    "Olmo2": SMALL,
    "Starcoder2": SMALL,
    "Cohere": SMALL,
    "Granite": {**SMALL, "logits_scaling": 4.0},
}
PLAIN: dict[str, dict[str, Any]] = {
    "Gemma2": {**SMALL, "head_dim": 16, "final_logit_softcapping": 2.0},
    "Bloom": {"vocab_size": 330, "hidden_size": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2},
    "Falcon": {**{k: v for k, v in SMALL.items() if "key_value" not in k}, "alibi": True},
    "GPTJ": {**OLD, "n_positions": 96, "rotary_dim": 8},
    "Mamba": {"vocab_size": 330, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
}
STEM = "where is the cat? it sat on the mat. where is the dog? "
REQUESTS = [Score(STEM + question, answer) for question in ("it", "the") for answer in (" ran", " sat on")]


def build(name: str, sizes: dict[str, Any]) -> Any:
    import transformers

    torch.manual_seed(11)
    specials = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    config = getattr(transformers, f"{name}Config")(**sizes, **specials)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*PACKED, *PLAIN])
def test_scores_and_greedy_text_are_the_modules_own(name: str) -> None:
    tokenizer = make_tokenizer()
    model = build(name, {**PACKED, **PLAIN}[name])
    engine = HFEngine(model, tokenizer)
    assert engine.packs == (name in PACKED)
    got = dict(item for batch in engine.score(REQUESTS) for item in batch)
    for i, request in enumerate(REQUESTS):
        ids, start = encode_pair(tokenizer, request.context, request.continuation)
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        want = sum(logprobs[t - 1, ids[t]].item() for t in range(start, len(ids)))
        assert got[i].logprob == pytest.approx(want, abs=1e-4), name
    prompts = [STEM + "it", "the dog"]
    if name == "Mamba":
        with pytest.raises(WorkError, match="no key-value cache"):
            list(engine.generate([Generate(prompts[0], Sampling(8))]))
        return
    answers = dict(
        item for batch in engine.generate([Generate(p, Sampling(8)) for p in prompts]) for item in batch
    )
    for i, prompt in enumerate(prompts):
        ids = tokenizer(prompt)["input_ids"]
        for token in answers[i].token_ids:
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -1]
            assert logits[token] >= logits.max() - 1e-4, name
            ids = [*ids, token]
