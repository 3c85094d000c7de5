"""The engines ``hf`` and ``vllm`` on the same checkpoints and requests, in a Python that has vLLM.

usage: python tests/peers/vllm_parity.py DATA SCRATCH OUT.json [ARCHITECTURE…]

Writes what was found; ``tests/engines/test_engine_vllm.py`` judges it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from parity_edges import boundaries, edges  # noqa: E402
from parity_models import checkpoint  # noqa: E402
from parity_requests import free_text, gsm8k, hellaswag, lambada, mmlu, rolling, training_texts  # noqa: E402
from parity_sides import ask, what_it_says  # noqa: E402

from alignbench.engines import open_engine  # noqa: E402
from alignbench.engines.policy import Policy, parse_policy  # noqa: E402
from alignbench.engines.types import Generate, Sampling, Score  # noqa: E402
from alignbench.errors import AlignbenchError  # noqa: E402
from alignbench.evaluation import evaluate_policy, select_documents  # noqa: E402
from alignbench.ledger import Ledger  # noqa: E402
from alignbench.tasks.registry import find_tasks  # noqa: E402

TASK = """\
task: sums
area: nlp
kind: generate
description: The first words of a solution, up to its first full stop.
data: {hub: sums.jsonl}
prompt: "{{ question }}\\nAnswer:"
target: answer
generation: {max_tokens: 24, stop: [".", "\\n"]}
metrics: [{name: exact_match}]
headline: exact_match
"""


def in_order(batches: Iterator[list[tuple[int, Any]]]) -> list[Any]:
    return [answer for _, answer in sorted((pair for batch in batches for pair in batch), key=lambda p: p[0])]


class Sides:
    """One checkpoint, with both engines."""

    def __init__(self, spec: str, name: str) -> None:
        self.hf = open_engine(parse_policy(f"{name}={spec}"))
        self.vllm = open_engine(parse_policy(f"{name}={spec}"), engine="vllm")

    def scores(self, requests: Any) -> dict[str, Any]:
        """How far log-probabilities are apart: absolutely, and beyond what a long sum's rounding allows."""
        started = time.monotonic()
        before = self.vllm.work.total_tokens, self.vllm.work.computed_tokens
        ours, theirs = ask(self.hf, requests).raw, ask(self.vllm, requests).raw
        flags = [a.greedy == b.greedy for a, b in zip(ours, theirs)]
        total, computed = (n - b for n, b in zip(_counts(self.vllm), before))
        return {
            "n": len(ours),
            "worst": max(abs(a.logprob - b.logprob) for a, b in zip(ours, theirs)),
            "beyond": max(abs(a.logprob - b.logprob) - 1e-6 * abs(a.logprob) for a, b in zip(ours, theirs)),
            "worst_a_token": max(
                abs(a.logprob - b.logprob) / max(1, a.n_tokens) for a, b in zip(ours, theirs)
            ),
            "spread": max(a.logprob for a in ours) - min(a.logprob for a in ours),
            "flags_differ": flags.count(False),
            "greedy": sum(a.greedy for a in ours),
            "same_counts": all((a.n_tokens, a.cut) == (b.n_tokens, b.cut) for a, b in zip(ours, theirs)),
            "computed": computed / total,
            "seconds": time.monotonic() - started,
        }

    def texts(self, requests: Any) -> dict[str, Any]:
        """Greedy texts: which differ, and how near the two tokens were where they part."""
        ours, theirs = ask(self.hf, requests).raw, ask(self.vllm, requests).raw
        gaps, deltas, unexplained = [], [], 0
        for a, b in zip(ours, theirs):
            n = next((i for i, (x, y) in enumerate(zip(a.token_ids, b.token_ids)) if x != y), None)
            same = n if n is not None else min(len(a.token_ids), len(b.token_ids))
            deltas += [abs(x - y) for x, y in zip(a.logprobs[:same], b.logprobs[:same])]
            if n is not None:
                gaps.append(self._gap([*a.prompt_ids, *a.token_ids[:n]], a.token_ids[n], b.token_ids[n]))
            elif (a.text, a.finish, a.token_ids) != (b.text, b.finish, b.token_ids):
                unexplained += 1
        return {
            "n": len(ours),
            "worst": max(deltas),
            "near_ties": gaps,
            "unexplained": unexplained,
            "finish": {kind: sum(a.finish == kind for a in theirs) for kind in ("eos", "stop", "length")},
            "greedy_sampling_logprobs": all(b.sampling_logprobs == (0.0,) * len(b.token_ids) for b in theirs),
        }

    def _gap(self, ids: list[int], one: int, other: int) -> float:
        with torch.inference_mode():
            logits = self.hf.module(torch.tensor([ids])).logits[0, -1]
        return abs(float(logits[one] - logits[other]))

    def samples(self, prompt: str) -> dict[str, Any]:
        """Many samples of one prompt: seeds, and what is said of their log-probabilities."""
        plain, filtered = Sampling(12, 1.0), Sampling(12, 0.7, 20, 0.9)
        asked = [Generate(prompt, plain, seed) for seed in range(24)]
        asked += [Generate(prompt, filtered, seed) for seed in range(4)]
        first = in_order(self.vllm.generate(asked))
        second = in_order(self.vllm.generate(asked[::-1]))[::-1]
        held = in_order(self.vllm.generate(asked, held=range(20)))
        worst = max(self._off(answer) for answer in first)
        return {
            "same_again": [a.token_ids for a in first] == [b.token_ids for b in second],
            "same_in_part": [a.token_ids for a in first[20:]] == [b.token_ids for b in held],
            "distinct": len({a.token_ids for a in first[:24]}),
            "worst": worst,
            "plain_is_raw": all(a.sampling_logprobs == a.logprobs for a in first[:24]),
            "filtered_is_unknown": all(a.sampling_logprobs == () for a in first[24:]),
        }

    def _off(self, answer: Any) -> float:
        """How far a sample's log-probabilities are from transformers' own, computed in one pass."""
        ids, n = [*answer.prompt_ids, *answer.token_ids], len(answer.prompt_ids)
        with torch.inference_mode():
            logprobs = self.hf.module(torch.tensor([ids])).logits[0].log_softmax(-1)
        mine = logprobs[range(n - 1, len(ids) - 1), ids[n:]]
        return float((mine - torch.tensor(answer.logprobs)).abs().max())


def _counts(engine: Any) -> tuple[int, int]:
    return engine.work.total_tokens, engine.work.computed_tokens


def tasks(sides: Sides, data: Path, scratch: Path, limit: int) -> dict[str, Any]:
    """Means of every metric of whole tasks, through the ledger: (hf, vllm)."""
    scratch.mkdir(exist_ok=True)
    rows = [json.dumps({"question": q, "answer": "none"}) for (q, _) in free_text(data, limit).requests]
    (scratch / "sums.jsonl").write_text("\n".join(rows))
    (scratch / "sums.yaml").write_text(TASK)
    found = find_tasks(["hellaswag", "sst2", "lambada", "sums"], tasks_dirs=[scratch], mirror=data)
    policy = Policy("p", "p", "hf", "p")
    results = {}
    with Ledger.open(scratch / "ledger") as ledger:
        for task in found:
            documents = select_documents(task, limit)
            ran = [
                evaluate_policy(policy, engine, task, documents, ledger) for engine in (sides.hf, sides.vllm)
            ]
            again = evaluate_policy(policy, sides.vllm, task, documents, ledger)
            results[task.name] = {
                "n": len(documents),
                "values": [[sample.values for sample in samples] for samples in ran],
                "outputs_differ": sum(a.output != b.output for a, b in zip(*ran)),
                "held": [sample.values for sample in again] == [sample.values for sample in ran[1]],
            }
    return results


def lora(base: Path, scratch: Path, data: Path) -> dict[str, Any]:
    """A LoRA adapter: merged by the engine ``hf``, beside the weights in vLLM."""
    import peft
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    config = peft.LoraConfig(r=12, lora_alpha=24, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(scratch / "adapter")
    plain, tuned = Sides(str(base), "plain"), Sides(f"{base}?adapter={scratch / 'adapter'}", "tuned")
    requests = hellaswag(data, 3)
    moved = [abs(a[0] - b[0]) for a, b in zip(ask(plain.hf, requests).plain, ask(tuned.hf, requests).plain)]
    return {"moved": max(moved), "identities": tuned.vllm.identity != plain.vllm.identity} | {
        "scores": tuned.scores(requests),
        "texts": tuned.texts(free_text(data, 12)),
    }


def refusals(scratch: Path) -> dict[str, str]:
    """What is said where vLLM cannot do it."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(scratch / "gpt2")
    odd = transformers.GPT2Config(n_embd=40, n_layer=1, n_head=2, vocab_size=len(tokenizer), n_positions=64)
    transformers.GPT2LMHeadModel(odd).save_pretrained(scratch / "odd")
    tokenizer.save_pretrained(scratch / "odd")
    ask_odd = open_engine(parse_policy(f"vllm:{scratch / 'odd'}"))
    good = open_engine(parse_policy(f"vllm:{scratch / 'gpt2'}"))
    asked: dict[str, Callable[[], Any]] = {
        "head size": lambda: in_order(ask_odd.score([Score("a", " b")])),
        "reward": lambda: in_order(good.reward([])),
        "temperature": lambda: in_order(good.generate([Generate("a", Sampling(4, 3.0))])),
        "device": lambda: in_order(
            open_engine(parse_policy(f"vllm:{scratch / 'gpt2'}?device=cuda")).score([Score("a", " b")])
        ),
    }
    said = {}
    for name, call in asked.items():
        try:
            call()
            said[name] = "nothing"
        except AlignbenchError as error:
            said[name] = f"{type(error).__name__}: {error}"
    return said


def parallel(folder: Path, data: Path) -> dict[str, Any]:
    """Two processes, against one."""
    requests = hellaswag(data, 6)
    one = ask(open_engine(parse_policy(f"vllm:{folder}")), requests).raw
    two_engine = open_engine(parse_policy(f"vllm:{folder}?data_parallel=2"))
    two = ask(two_engine, requests).raw
    return {"worst": max(abs(a.logprob - b.logprob) for a, b in zip(one, two)), "n": len(two)}


def main() -> None:
    data, scratch, out = map(Path, sys.argv[1:4])
    scratch.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"models": {}}
    texts = training_texts(data)
    for architecture in sys.argv[4:] or ["llama", "qwen2", "gpt2"]:
        started = time.monotonic()
        folder = checkpoint(architecture, texts, scratch)
        sides = Sides(str(folder), architecture)
        its_own = what_it_says(sides.hf, data)
        sets = [hellaswag(data, 20), mmlu(data, 8), lambada(data, 20), rolling(data, 5), boundaries()]
        sets += [edges(sides.hf.tokenizer, sides.hf.context_length), its_own[0]]
        found["models"][architecture] = {
            "scores": {each.name: sides.scores(each) for each in sets},
            "texts": {
                each.name: sides.texts(each) for each in (gsm8k(data, 4), free_text(data, 20), its_own[1])
            },
            "samples": sides.samples(free_text(data, 1).requests[0][0]),
            "tasks": tasks(sides, data, scratch / f"work-{architecture}", 16),
            "described": dict(sides.vllm.describe()),
            "seconds": time.monotonic() - started,
        }
    if "llama" in found["models"]:
        found["lora"] = lora(scratch / "llama", scratch, data)
        found["parallel"] = parallel(scratch / "llama", data)
    if "gpt2" in found["models"]:
        found["refusals"] = refusals(scratch)
    out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
