"""A third opinion where two sides differ: one request at a time, in float64, with plain transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


class Oracle:
    """Log-probabilities of a checkpoint without batch, padding, cache or float32.

    Args:
        folder: the checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        self.causal = not AutoConfig.from_pretrained(folder).is_encoder_decoder
        kind = AutoModelForCausalLM if self.causal else AutoModelForSeq2SeqLM
        self.model = kind.from_pretrained(folder, dtype=torch.float64).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def _at(self, before: Sequence[int], targets: Sequence[int]) -> Tensor:
        """Log-probabilities float64 [targets, V] over the vocabulary at each target's position."""
        if self.causal:
            ids = torch.tensor([[*before, *targets[:-1]]])
            logits = self.model(input_ids=ids).logits[0, len(before) - 1 :]
        else:
            start = self.model.config.decoder_start_token_id
            decoder = torch.tensor([[start, *targets[:-1]]])
            logits = self.model(input_ids=torch.tensor([list(before)]), decoder_input_ids=decoder).logits[0]
        found: Tensor = logits.log_softmax(-1)
        return found

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both by the harness's rule, cut on the left; the context is not empty."""
        kept = context.rstrip()
        continuation = context[len(kept) :] + continuation
        before = self.tokenizer(kept)["input_ids"]
        if not self.causal:
            return before, self.tokenizer(continuation, add_special_tokens=False)["input_ids"]
        whole = self.tokenizer(kept + continuation)["input_ids"]
        targets = len(whole) - len(before)
        whole = whole[-(self.model.config.max_position_embeddings + 1) :]
        start = max(1, len(whole) - targets)
        return whole[:start], whole[start:]

    def score(self, context: str, continuation: str) -> tuple[float, float] | None:
        """The sum, and the smallest gap between the two likeliest tokens at the continuation's positions;
        None where no token of the text is the continuation's alone."""
        before, targets = self.pair(context, continuation)
        if not targets:
            return None
        logprobs = self._at(before, targets)
        top = logprobs.topk(2, -1).values
        at = logprobs.gather(1, torch.tensor(targets)[:, None])
        return float(at.sum()), float((top[:, 0] - top[:, 1]).min())

    def gap_at(self, prompt: Sequence[int], tokens: Sequence[int]) -> float:
        """Gap between the two likeliest tokens at the last of ``tokens``, after the others."""
        top = self._at(prompt, tokens)[-1].topk(2).values
        return float(top[0] - top[1])
