"""Log-probabilities of target tokens: the head runs at target positions only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from alignbench.engines.heads import last_hidden, pad_id, pad_right, require_numbers
from alignbench.engines.packed import TriePass
from alignbench.engines.plan import plan_batches
from alignbench.engines.trie import Trie
from alignbench.engines.types import Scored

if TYPE_CHECKING:
    from alignbench.engines.hf import HFEngine

LOGITS = 2**24
"""The most logits that are held at once (64 MiB in float32)."""


class Scorer(Protocol):
    """Scores a set of token sequences, one planned batch (or a part of one) at a time.

    Calling it with rows of one batch gives, for each of them, the sum of log P(token t | tokens before t)
    over t ≥ its start, in float32.

    Raises:
        WorkError: the model's logits are not numbers.
    """

    batches: list[list[int]]

    def __call__(self, rows: Sequence[int]) -> list[Scored]: ...


def make_scorer(engine: HFEngine, sequences: Sequence[list[int]], starts: Sequence[int]) -> Scorer:
    """The fastest scorer that the engine's module allows, for sequences of at least one token id, whose first
    targets are at ``starts`` (at least 1)."""
    if sequences and engine.packs and engine.scale is not None:
        return PackedScorer(engine, sequences, starts)
    return PaddedScorer(engine, sequences, starts)


class PackedScorer:
    """Every token once: sequences share what they begin with (see ``trie``)."""

    def __init__(self, engine: HFEngine, sequences: Sequence[list[int]], starts: Sequence[int]) -> None:
        self.engine, self.starts = engine, starts
        self.sequences = [np.asarray(ids, dtype=np.int32) for ids in sequences]
        self.scale = engine.scale or 1.0
        # the last token is only predicted, and where there is no target nothing need be read
        read = [
            ids[: max(1, len(ids) - 1)] if n < len(ids) else ids[:1] for ids, n in zip(self.sequences, starts)
        ]
        needed = [min(start, len(ids)) - 1 for ids, start in zip(read, starts)]
        self.trie = Trie(read, needed, budget=engine.batch_tokens)
        self.batches = self.trie.packs
        self.run = TriePass(engine.forward, self.trie, engine.lanes, engine.work)

    def __call__(self, rows: Sequence[int]) -> list[Scored]:
        counts = {row: len(self.sequences[row]) - self.starts[row] for row in rows}
        asked = [row for row in rows if counts[row] > 0]
        if not asked:
            return [Scored(0.0, 0, True) for _ in rows]
        states, where, _ = self.run(asked)
        # a row's unit begins behind its trunk, so places are counted from the end
        places = np.concatenate([where[row][-counts[row] :] for row in asked])
        targets = np.concatenate([self.sequences[row][self.starts[row] :] for row in asked])
        logprobs, greedy = _at_places(states, places, targets, self.engine.head, self.scale)
        require_numbers(logprobs)
        cuts = np.cumsum([0, *(counts[row] for row in asked)])
        sums = dict(zip(asked, np.add.reduceat(logprobs.cpu().double().numpy(), cuts[:-1]).tolist()))
        hits = dict(zip(asked, np.logical_and.reduceat(greedy.cpu().numpy(), cuts[:-1]).tolist()))
        self.engine.work.total_tokens += sum(len(self.sequences[row]) - 1 for row in rows)
        return [Scored(sums.get(row, 0.0), max(0, counts[row]), hits.get(row, True)) for row in rows]


class PaddedScorer:
    """Rows padded on the right, each whole: for modules that cannot be run packed."""

    def __init__(self, engine: HFEngine, sequences: Sequence[list[int]], starts: Sequence[int]) -> None:
        self.engine, self.sequences, self.starts = engine, sequences, starts
        self.separable = bool(sequences) and has_separable_head(engine)
        lengths = [max(1, len(ids) - 1) for ids in sequences]
        self.batches = plan_batches(lengths, engine.batch_tokens)

    def __call__(self, rows: Sequence[int]) -> list[Scored]:
        engine, module = self.engine, self.engine.module
        chosen = [(self.sequences[i], self.starts[i]) for i in rows]
        counts = [len(ids) - start for ids, start in chosen]
        if not any(counts):
            return [Scored(0.0, 0, True) for _ in counts]
        read = [ids[:-1] or ids for ids, _ in chosen]
        inputs = pad_right(read, pad_id(engine.tokenizer)).to(engine.device)
        engine.work.add_padded([*map(len, read)])
        places = torch.tensor([i for i, n in enumerate(counts) for _ in range(n)])
        columns = torch.tensor([t - 1 for ids, start in chosen for t in range(start, len(ids))])
        targets = np.array([t for ids, start in chosen for t in ids[start:]])
        where = places.to(engine.device), columns.to(engine.device)
        if self.separable:
            states, head = last_hidden(module, inputs)[where], engine.head
        else:
            states, head = module(input_ids=inputs, use_cache=False).logits[where], torch.nn.Identity()
        logprobs, greedy = _at_places(states, np.arange(len(targets)), targets, head, 1.0)
        require_numbers(logprobs)
        # summed on the CPU in float64: an accelerator's index_add adds in an order that varies
        zeros = torch.zeros(len(counts), dtype=torch.float64)
        sums = zeros.index_add(0, places, logprobs.cpu().double())
        misses = zeros.index_add(0, places, (~greedy).cpu().double())
        return [Scored(s, n, m == 0) for s, n, m in zip(sums.tolist(), counts, misses.tolist())]


def has_separable_head(engine: HFEngine) -> bool:
    """Whether logits = output embedding (last hidden state): then the head runs at target positions only."""
    scale = engine.scale
    return scale is not None and abs(scale - 1) < 1e-6


def head_scale(engine: HFEngine) -> float | None:
    """The number c for which logits = c · output embedding (last hidden state); None where there is none.

    Tried on a few tokens instead of read from the config: scaled logits (Cohere, Granite), soft-capped ones
    (Gemma 2) and others are told apart without a list of names.
    """
    module, head = engine.module, engine.head
    if head is None or getattr(module, "base_model", module) is module:
        return None
    with engine._evaluating():
        ids = torch.arange(1, 5, device=engine.device)[None] % module.config.get_text_config().vocab_size
        full = module(input_ids=ids, use_cache=False).logits.float()
        apart = head(last_hidden(module, ids)).float()
    if full.shape != apart.shape or not bool(full.isfinite().all()):
        return None
    if torch.allclose(full, apart, rtol=1e-5, atol=1e-5):
        return 1.0
    scale = float((full * apart).sum() / apart.square().sum())
    return (
        scale if torch.allclose(full, scale * apart, rtol=1e-4, atol=1e-4 * float(full.abs().max())) else None
    )


def _at_places(
    states: Tensor, places: np.ndarray, targets: np.ndarray, head: Any, scale: float
) -> tuple[Tensor, Tensor]:
    """Log-probability (float32 [M]) of each target at its place in ``states`` [N, D], and whether it is the
    argmax (bool [M]); the head runs once a place, on some places at a time."""
    distinct, inverse = np.unique(places, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    device = states.device
    at = torch.from_numpy(inverse[order]).to(device)
    wanted = torch.from_numpy(targets[order].astype(np.int64)).to(device)
    chosen = states[torch.from_numpy(distinct).to(device)] if len(distinct) < len(states) else states
    size = max(1, LOGITS // head(states[:1]).shape[-1])
    logprobs, greedy = [], []
    for start in range(0, len(distinct), size):
        logits = head(chosen[start : start + size]).float() * scale
        low, high = np.searchsorted(inverse[order], [start, start + size])
        rows, ids = at[low:high] - start, wanted[low:high]
        logprobs.append(logits[rows, ids] - logits.logsumexp(-1)[rows])
        greedy.append(logits.argmax(-1)[rows] == ids)
    back = torch.from_numpy(np.argsort(order)).to(device)
    return torch.cat(logprobs)[back], torch.cat(greedy)[back]
