"""Rollouts by vLLM, for real: weights pushed to it, its caches, and whole PPO runs on the pocket model.

usage: python tests/peers/vllm_rollouts.py SCRATCH OUT.json

Writes what was found; ``tests/train/test_vllm_rollouts.py`` judges it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "engines")]

import torch  # noqa: E402
import transformers  # noqa: E402
from tiny_models import make_tokenizer  # noqa: E402

from alignbench.engines.hf import HFEngine  # noqa: E402
from alignbench.engines.identity import find_folder  # noqa: E402
from alignbench.engines.types import Generate, Sampling  # noqa: E402
from alignbench.engines.vllm_engine.live import LiveEngine  # noqa: E402
from alignbench.errors import AlignbenchError  # noqa: E402
from alignbench.train import ppo  # noqa: E402
from alignbench.train.config import PPOConfig  # noqa: E402
from alignbench.train.learner import Learner  # noqa: E402

STEPS = 3


def make(architecture: str, **changes: Any) -> Any:
    """A random model whose head size vLLM knows; embeddings are tied, but for Llama's."""
    torch.manual_seed(11)
    common = {"vocab_size": 330, "initializer_range": 0.2, "eos_token_id": 1, "bos_token_id": None}
    if architecture == "gpt2":
        sizes = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 512}
        config = transformers.GPT2Config(**common | sizes | changes)
    else:
        kind = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}[architecture]
        config = kind(
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            tie_word_embeddings=architecture != "llama",
            **common | changes,
        )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def live(module: Any, length: int = 64) -> LiveEngine:
    return LiveEngine(module, HFEngine(module, make_tokenizer()).inputs, length=length)


def sample(engine: LiveEngine, temperature: float = 1.0, text: str = "the cat sat ") -> list[Any]:
    asked = [Generate(text * (i % 3), Sampling(20, temperature), 2**63 + i) for i in range(8)]
    answers = dict(pair for batch in engine.generate(asked) for pair in batch)
    return [answers[i] for i in range(len(asked))]


def gap(module: Any, answers: list[Any], temperature: float = 1.0) -> float:
    """The largest distance of what vLLM tells to transformers' log-probabilities, computed in one pass."""
    worst = 0.0
    for answer in answers:
        ids, n = [*answer.prompt_ids, *answer.token_ids], len(answer.prompt_ids)
        with torch.inference_mode():
            logprobs = (module(torch.tensor([ids])).logits[0] / temperature).log_softmax(-1)
        own = logprobs[range(n - 1, len(ids) - 1), ids[n:]]
        worst = max(worst, float((own - torch.tensor(answer.sampling_logprobs)).abs().max()))
    return worst


def update(module: Any) -> None:
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)


def weights(architecture: str) -> dict[str, dict[str, Any]]:
    """Gaps before and after an update, with the new weights pushed and not, at two temperatures."""
    module = make(architecture)
    engine = live(module)
    found = {}
    for temperature in (1.0, 0.7):
        before = sample(engine, temperature)
        first = gap(module, before, temperature)
        update(module)
        stale = sample(engine, temperature)
        engine.push()
        found[str(temperature)] = {
            "first": first,
            "stale": gap(module, stale, temperature),
            "stale_is_the_same": stale == before,
            "pushed": gap(module, sample(engine, temperature), temperature),
        }
    engine.close()
    return found


def cache() -> dict[str, float]:
    """Gaps of samples of prompts of several blocks, with the cache of old weights kept, and dropped."""
    module = make("llama")
    engine = live(module, length=500)
    text = "the cat sat on the mat and the dog ran to the cat; " * 6
    sample(engine, text=text)
    update(module)
    core = engine._llm.llm_engine
    drop, core.reset_prefix_cache = core.reset_prefix_cache, lambda: True
    engine.push()
    kept = gap(module, sample(engine, text=text))
    core.reset_prefix_cache = drop
    engine.push()
    dropped = gap(module, sample(engine, text=text))
    engine.close()
    return {"kept": kept, "dropped": dropped}


def reward_model(folder: Path) -> Path:
    """The pocket model with a random reward head: what it rewards does not matter here."""
    base = find_folder("pocket", None, "model pocket")
    torch.manual_seed(5)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    torch.nn.init.normal_(model.score.weight, std=0.1)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def configure(reward: Path, **keys: Any) -> PPOConfig:
    defaults: dict[str, Any] = {
        "model": "pocket",
        "reward_model": str(reward),
        "data": "pocket:prompts",
        "rollout_engine": "vllm",
        "steps": STEPS,
        "batch_size": 16,
        "minibatches": 2,
        "max_new_tokens": 32,
        "lr": 3e-4,
        "warmup": 0,
        "save_every": 1,
        "device": "cpu",
    }
    return PPOConfig(**{**defaults, **keys})


def run(reward: Path, scratch: Path) -> dict[str, Any]:
    """A run, and another that dies in its last step and goes on."""
    whole, broken = scratch / "whole", scratch / "broken"
    record = ppo.train_ppo(configure(reward), whole, quiet=True)
    real = Learner.step

    def dying(self: Learner, step: int) -> dict[str, float]:
        metrics = real(self, step)
        if step == STEPS:
            raise KeyboardInterrupt
        return metrics

    try:
        Learner.step = dying
        ppo.train_ppo(configure(reward), broken, quiet=True)
    except KeyboardInterrupt:
        Learner.step = real
    ppo.train_ppo(configure(reward), broken, resume=True, quiet=True)
    names = ("metrics.jsonl", "rollouts.jsonl", "model.safetensors")
    return {
        "metrics": _lines(whole / "metrics.jsonl"),
        "timings": _lines(whole / "timings.jsonl"),
        "record": record["rollouts"],
        "resumed_bit_for_bit": all((whole / n).read_bytes() == (broken / n).read_bytes() for n in names),
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def refused() -> str:
    """What is said of a model with a head size that vLLM does not know."""
    try:
        live(make("gpt2", n_embd=40))
    except AlignbenchError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main() -> None:
    scratch, out = map(Path, sys.argv[1:3])
    scratch.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    found: dict[str, Any] = {"models": {name: weights(name) for name in ("llama", "qwen2", "gpt2")}}
    found["cache"] = cache()
    reward = reward_model(scratch / "reward")
    found["run"] = run(reward, scratch)
    config = configure(reward, steps=1, dtype="bfloat16", temperature=0.8)
    found["bfloat16"] = ppo.train_ppo(config, scratch / "bfloat16", quiet=True)["last"]
    found["refused"] = refused()
    found["seconds"] = time.monotonic() - started
    out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
