"""From logits to the next token, for a batch of rows with parameters of their own. No loops over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignbench.engines.types import Generate


def uniforms(seed: int, n: int) -> np.ndarray:
    """The ``n`` uniform numbers in [0, 1) that decide a request's tokens: float64 [n].

    They come from a counter-based generator keyed by the request's own seed (Philox 4×64), number ``t`` for
    token ``t``; so neither the batch nor ``max_tokens`` changes what an earlier token draws.
    """
    return np.random.Generator(np.random.Philox(key=seed % 2**64)).random(n)


Picked = tuple[Tensor, Tensor, Tensor]
"""Of B rows their tokens (long [B]) and these tokens' log-probabilities, raw and as sampled (float32 [B])."""


@dataclass
class Rows:
    """Sampling parameters of the rows of a batch, as tensors on the model's device.

    ``greedy`` bool [B]; ``temperature`` float32 [B] (1 for greedy rows); ``top_k`` long [B] (vocabulary size:
    off); ``top_p`` float32 [B] (1: off); ``uniform`` float64 [B, T] (empty when all rows are greedy).
    """

    greedy: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    uniform: Tensor
    sampled: bool
    filtered: bool
    width: int

    @classmethod
    def of(cls, requests: Sequence[Generate], vocabulary: int, device: torch.device) -> Rows:
        each = [request.sampling for request in requests]
        sampled = any(s.temperature > 0 for s in each)
        steps = max(s.max_tokens for s in each)
        draws = (
            np.stack(
                [uniforms(r.seed, steps) if r.sampling.temperature > 0 else np.zeros(steps) for r in requests]
            )
            if sampled
            else np.zeros((len(each), 0))
        )
        ks = [min(s.top_k or vocabulary, vocabulary) for s in each]
        return cls(
            greedy=torch.tensor([s.temperature == 0 for s in each], dtype=torch.bool, device=device),
            temperature=torch.tensor(
                [s.temperature or 1.0 for s in each], dtype=torch.float32, device=device
            ),
            top_k=torch.tensor(ks, dtype=torch.long, device=device),
            top_p=torch.tensor([s.top_p for s in each], dtype=torch.float32, device=device),
            uniform=torch.from_numpy(draws).to(device),
            sampled=sampled,
            filtered=any(s.temperature > 0 and (s.top_k > 0 or s.top_p < 1) for s in each),
            width=max(ks),
        )

    def select(self, index: Tensor | slice) -> Rows:
        """The rows at ``index`` (long [b], or a slice: then views)."""
        return Rows(
            self.greedy[index],
            self.temperature[index],
            self.top_k[index],
            self.top_p[index],
            self.uniform[index],
            self.sampled,
            self.filtered,
            self.width,
        )


def pick(logits: Tensor, rows: Rows, step: int | Tensor) -> Picked:
    """Choose one token a row.

    Args:
        logits: float32 [B, V].
        rows: the rows' parameters.
        step: which token of the completion this is, from 0; one number, or long [B].

    Returns:
        Tokens (long [B]), their raw log-probabilities and those under the distribution that was sampled from
        (float32 [B]; 0 for greedy rows, whose distribution is a point).
    """
    token = best(logits)
    sampling = logits.new_zeros(len(logits))
    if rows.sampled:
        scaled = logits / rows.temperature[:, None]
        if rows.filtered:
            scaled = _filter(scaled, rows)
        logq = scaled.log_softmax(-1)
        at = torch.arange(len(logits), device=logits.device)
        drawn = _invert(logq, rows.uniform[at, step])
        token = torch.where(rows.greedy, token, drawn)
        sampling = torch.where(rows.greedy, sampling, logq.gather(1, token[:, None])[:, 0])
    raw = logits.log_softmax(-1).gather(1, token[:, None])[:, 0]
    return token, raw, sampling


def best(logits: Tensor) -> Tensor:
    """The first of the largest logits [B, V] of each row: long [B]. In two steps, as ``argmax`` over a whole
    vocabulary is several times slower than ``amax`` on a CPU."""
    span = 64
    blocks = logits.shape[1] // span
    if logits.device.type != "cpu" or blocks < span:
        return logits.argmax(-1)
    whole = logits[:, : blocks * span].view(len(logits), blocks, span)
    block = whole.amax(-1).argmax(-1)
    inside = whole[torch.arange(len(logits)), block]
    token = block * span + inside.argmax(-1)
    if blocks * span == logits.shape[1]:
        return token
    rest = logits[:, blocks * span :]
    return torch.where(rest.amax(-1) > inside.amax(-1), blocks * span + rest.argmax(-1), token)


def _invert(logq: Tensor, uniform: Tensor) -> Tensor:
    """Inverse CDF in vocabulary order: the first token whose cumulative probability exceeds the uniform."""
    cdf = logq.double().exp().cumsum(-1)
    total = cdf[:, -1]
    # rounding must not lift the target onto the total, behind which only tokens of probability 0 may lie
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, target[:, None], right=True)[:, 0]


def _filter(scaled: Tensor, rows: Rows) -> Tensor:
    """Top-k, then the smallest set whose mass reaches top-p (nucleus; Holtzman et al. 2020, eq. 2)."""
    values, order = scaled.topk(rows.width, dim=-1)
    rank = torch.arange(rows.width, device=scaled.device)
    values = values.masked_fill(rank >= rows.top_k[:, None], -torch.inf)
    mass = values.softmax(-1)
    before = mass.cumsum(-1) - mass
    # the most probable token always stays
    cut = (before >= rows.top_p[:, None]) & (rows.top_p[:, None] < 1)  # rounding may lift a whole mass over 1
    values = values.masked_fill(cut & (rank > 0), -torch.inf)
    return torch.full_like(scaled, -torch.inf).scatter(1, order, values)
