"""Our own side: the engine ``hf`` through its verbs, and this machine's rate of matrix products."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from typing import Any

import torch
from serve import Job, Side, serve

from alignbench.engines import open_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Generate, Sampling, Score


def load(setup: dict[str, Any]) -> Side:
    spec = f"{setup['model']}?dtype={setup['dtype']}&device={setup['device']}"
    engine: Any = open_engine(parse_policy(spec), batch_tokens=setup["budget"], fresh=True)
    tokenizer = engine.tokenizer

    def side(job: Job) -> Any:
        if job["verb"] == "multiply":
            return lambda: {"flops": gemm(setup["dtype"], setup["device"])}
        if job["verb"] == "score":
            return lambda: score(engine, job)
        eos = tokenizer.eos_token_id if job["eos"] else tokenizer.bos_token_id  # BOS is never picked
        engine.module.generation_config.eos_token_id = eos
        return lambda: generate(engine, job)

    return side


def score(engine: Any, job: Job) -> dict[str, Any]:
    requests = [Score(context, continuation) for context, continuation in job["requests"]]
    before = asdict(engine.work)
    found = {i: scored for batch in engine.score(requests) for i, scored in batch}
    counted = since(before, engine)
    ordered = [found[i] for i in range(len(requests))]
    # at least so often the head ran: continuations of one context have the position before them in common
    head = len({request.context for request in requests}) + sum(scored.n_tokens - 1 for scored in ordered)
    return {"logprobs": [scored.logprob for scored in ordered], "head": head, "work": counted}


def generate(engine: Any, job: Job) -> dict[str, Any]:
    sampling = Sampling(max_tokens=job["max_tokens"], stop=tuple(job["stop"]))
    requests = [Generate(prompt, sampling) for (prompt,) in job["requests"]]
    before = asdict(engine.work)
    found = {i: completion for batch in engine.generate(requests) for i, completion in batch}
    counted = since(before, engine)
    ordered = [found[i] for i in range(len(requests))]
    lengths = [len(completion.token_ids) for completion in ordered]
    prompts = [len(completion.prompt_ids) for completion in ordered]
    told = {"tokens": sum(lengths), "head": sum(lengths), "lengths": lengths, "prompts": prompts}
    counted["total_tokens"] = sum(prompts)
    return {"texts": [completion.text for completion in ordered], **told, "work": counted}


def since(before: dict[str, int], engine: Any) -> dict[str, int]:
    """What the engine has counted since then; see ``engines.plan.Work``."""
    return {key: count - before[key] for key, count in asdict(engine.work).items()}


def gemm(dtype: str, device: str, size: int = 2048) -> float:
    """Floating-point operations a second of a square matrix product, median of 7."""
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    took = []
    for _ in range(8):
        began = time.perf_counter()
        float((a @ b)[0, 0])  # reading one number waits for an accelerator
        took.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(took[1:])


if __name__ == "__main__":
    serve(load, ["alignbench", "torch", "transformers", "tokenizers"])
