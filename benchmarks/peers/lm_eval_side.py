"""The side of lm-evaluation-harness: its ``hf`` model's ``loglikelihood`` and ``generate_until``."""

from __future__ import annotations

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from serve import Job, Side, serve


def load(setup: dict[str, Any]) -> Side:
    model = HFLM(pretrained=setup["model"], device=setup["device"], dtype=setup["dtype"], batch_size=1)

    def side(job: Job) -> Any:
        longest = max(len(model.tok_encode("".join(request))) for request in job["requests"])
        rows = max(1, setup["budget"] // (longest + job["max_tokens"]))
        model.batch_size_per_gpu = rows
        if job["verb"] == "score":
            asked = [("loglikelihood", tuple(request)) for request in job["requests"]]
        else:
            until = {"until": job["stop"], "max_gen_toks": job["max_tokens"], "do_sample": False}
            asked = [("generate_until", (prompt, dict(until))) for (prompt,) in job["requests"]]
        instances = [
            Instance(request_type=verb, doc={}, arguments=arguments, idx=i)
            for i, (verb, arguments) in enumerate(asked)
        ]

        def work() -> dict[str, Any]:
            if job["verb"] == "score":
                scored = model.loglikelihood(instances, disable_tqdm=True)
                return {"logprobs": [logprob for logprob, _ in scored], "rows": rows}
            return {"texts": model.generate_until(instances, disable_tqdm=True), "rows": rows}

        return work

    return side


if __name__ == "__main__":
    serve(load, ["lm_eval", "torch", "transformers", "tokenizers"])
