"""The side of plain transformers: ``generate`` on padded batches, longest prompts first."""

from __future__ import annotations

from typing import Any

import torch
from serve import Job, Side, serve
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def load(setup: dict[str, Any]) -> Side:
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(setup["model"], padding_side="left")
    dtype = getattr(torch, setup["dtype"])
    model = AutoModelForCausalLM.from_pretrained(setup["model"], dtype=dtype).to(setup["device"]).eval()

    def side(job: Job) -> Any:
        prompts = [prompt for (prompt,) in job["requests"]]
        lengths = [*map(len, tokenizer(prompts)["input_ids"])]
        rows = max(1, setup["budget"] // (max(lengths) + job["max_tokens"]))
        order = sorted(range(len(prompts)), key=lambda i: -lengths[i])
        eos = tokenizer.eos_token_id if job["eos"] else tokenizer.bos_token_id  # BOS is never picked
        model.generation_config.eos_token_id = eos

        def work() -> dict[str, Any]:
            texts, counts = [""] * len(prompts), [0] * len(prompts)
            for at in range(0, len(order), rows):
                places = order[at : at + rows]
                batch = tokenizer([prompts[i] for i in places], return_tensors="pt", padding=True)
                batch = batch.to(model.device)
                width = batch["input_ids"].shape[1]
                out = model.generate(
                    **batch,
                    max_new_tokens=job["max_tokens"],
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                )[:, width:].tolist()
                ended = [ids.index(eos) if eos in ids else len(ids) for ids in out]
                found = tokenizer.batch_decode(
                    [ids[:n] for ids, n in zip(out, ended)], skip_special_tokens=True
                )
                for i, text, n, ids in zip(places, found, ended, out):
                    texts[i], counts[i] = text, min(n + 1, len(ids))  # EOS is a token that was computed
            return {"texts": texts, "tokens": sum(counts), "rows": rows}

        return work

    return side


if __name__ == "__main__":
    serve(load, ["torch", "transformers", "tokenizers"])
