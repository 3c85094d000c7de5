"""Autoregressive decoding of one batch with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench.engines.heads import require_numbers
from alignbench.engines.sampling import Rows, pick
from alignbench.engines.types import Generate
from alignbench.errors import WorkError


@dataclass(frozen=True)
class Decoded:
    """One row as sampled: token ids (the EOS included) and both log-probabilities of each."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampling_logprobs: tuple[float, ...]


Decoder = Callable[[list[list[int]]], list[str]]


def pad_left(sequences: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Long [B, T] ids and their 0/1 mask."""
    width = max(map(len, sequences))
    ids = torch.tensor([[pad] * (width - len(s)) + list(s) for s in sequences])
    mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences])
    return ids, mask


def decode_batch(
    model: Callable[..., Any],
    prompts: Sequence[Sequence[int]],
    requests: Sequence[Generate],
    *,
    eos: Sequence[int],
    pad: int,
    decoder: Decoder,
    device: torch.device,
) -> list[Decoded]:
    """Continue each prompt until EOS, a stop string or ``max_tokens``.

    Args:
        model: called as ``model(input_ids, attention_mask, position_ids, past_key_values)``; returns an
            output with the last position's ``logits`` [B, 1, V] and ``past_key_values``.
        prompts: token ids, at least one each.
        requests: their sampling parameters and seeds.
        eos: token ids that end a completion.
        pad: any id of the vocabulary; padded positions are masked.
        decoder: ids of several rows → their texts; called only for rows with stop strings.
        device: where the model is.

    Raises:
        WorkError: the model gives no key-value cache, or logits that are not numbers.
    """
    ids, mask = (t.to(device) for t in pad_left(prompts, pad))
    out = model(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0), None)
    batch = _Batch(requests, out.logits.shape[-1], eos, decoder, device)
    position = mask.sum(-1, keepdim=True)
    padded = bool((mask == 0).any())
    for step in range(batch.steps):
        token = batch.take(out.logits[:, -1].float(), step)
        kept = batch.settle(token, step)
        if kept is not None and len(kept) == 0:
            break
        cache = getattr(out, "past_key_values", None)
        if cache is None:
            raise WorkError("the model returns no key-value cache, which the engine hf needs to generate")
        if kept is not None and hasattr(cache, "batch_select_indices"):
            cache.batch_select_indices(kept)
            batch.keep(kept)
            token, mask, position = token[kept], mask[kept], position[kept]
            padded = bool((mask == 0).any())
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        out = model(token[:, None], mask if padded else None, position, cache)
        position = position + 1
    return batch.decoded()


class _Batch:
    """The rows of a batch: what they have produced, and which are still running.

    Results lie in tensors [B, T] by the row's original place; ``place`` maps the rows that the model still
    computes to it (rows that ended are dropped from the computation once they are half of it).
    """

    def __init__(
        self,
        requests: Sequence[Generate],
        vocabulary: int,
        eos: Sequence[int],
        decoder: Decoder,
        device: torch.device,
    ) -> None:
        self.rows = Rows.of(requests, vocabulary, device)
        self.limits = torch.tensor([r.sampling.max_tokens for r in requests], device=device)
        self.steps = int(self.limits.max())
        self.eos = torch.tensor(sorted(eos), dtype=torch.long, device=device)
        self.decoder = decoder
        self.place = torch.arange(len(requests), device=device)
        self.alive = torch.ones(len(requests), dtype=torch.bool, device=device)
        self.lengths = torch.zeros(len(requests), dtype=torch.long, device=device)
        self.tokens = torch.zeros(len(requests), self.steps, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(2, len(requests), self.steps, device=device)
        self.stops = {i: r.sampling.stop for i, r in enumerate(requests) if r.sampling.stop}
        # a character is at most 4 bytes, a token at least 1 (specials: 0, but the end checks all the text)
        self.tail = {i: 4 * max(map(len, stops)) + 4 for i, stops in self.stops.items()}

    def take(self, logits: Tensor, step: int) -> Tensor:
        """Pick the next token of every computed row and write it down; long [b]."""
        token, raw, sampling = pick(logits, self.rows, step)
        self.tokens[self.place, step] = token
        self.logprobs[0, self.place, step] = raw
        self.logprobs[1, self.place, step] = sampling
        return token

    def settle(self, token: Tensor, step: int) -> Tensor | None:
        """Mark the rows that end with this token. Returns the indices of the rows to go on with (long) when
        none is left or at least half of the computed rows have ended, else None."""
        self.lengths[self.place[self.alive]] = step + 1
        self.alive &= ~torch.isin(token, self.eos) & (self.limits[self.place] > step + 1)
        if self.stops:
            self._find_stops(step)
        n = int(self.alive.sum())
        if n == 0 or 2 * n <= len(self.alive):
            return self.alive.nonzero()[:, 0]
        return None

    def keep(self, kept: Tensor) -> None:
        self.rows, self.place, self.alive = self.rows.select(kept), self.place[kept], self.alive[kept]

    def _find_stops(self, step: int) -> None:
        places = self.place.tolist()
        rows = [row for row in self.alive.nonzero()[:, 0].tolist() if places[row] in self.stops]
        if not rows:
            return
        tokens = self.tokens[self.place[rows], : step + 1].tolist()
        texts = self.decoder([ids[-self.tail[places[row]] :] for row, ids in zip(rows, tokens)])
        ended = [row for row, text in zip(rows, texts) if any(s in text for s in self.stops[places[row]])]
        self.alive[ended] = False

    def decoded(self) -> list[Decoded]:
        require_numbers(self.logprobs)
        lengths, tokens = self.lengths.tolist(), self.tokens.tolist()
        raw, sampling = self.logprobs.tolist()
        return [
            Decoded(tuple(tokens[i][:n]), tuple(raw[i][:n]), tuple(sampling[i][:n]))
            for i, n in enumerate(lengths)
        ]
