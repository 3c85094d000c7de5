"""Rewards of token sequences: a scalar head at each sequence's last token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from alignbench.engines.heads import last_hidden, pad_id, pad_right
from alignbench.engines.packed import TriePass
from alignbench.engines.plan import plan_batches
from alignbench.engines.trie import Trie
from alignbench.engines.types import Rewarded
from alignbench.errors import UsageError, WorkError

if TYPE_CHECKING:
    from alignbench.engines.hf import HFEngine


class Rewarder(Protocol):
    """Gives the rewards of a set of token sequences, one planned batch (or a part of one) at a time: the
    head's output in float32, ``config.reward_offset`` subtracted.

    Raises:
        WorkError: a reward is not a number.
    """

    batches: list[list[int]]

    def __call__(self, rows: Sequence[int]) -> list[Rewarded]: ...


def make_rewarder(engine: HFEngine, sequences: Sequence[Sequence[int]]) -> Rewarder:
    """The fastest one that the engine's module allows, for sequences of at least one id.

    Raises:
        UsageError: the module has no scalar head.
    """
    module = engine.module
    generates = getattr(module, "can_generate", bool)()  # a causal model's config may say num_labels too
    if generates or getattr(module.config, "num_labels", None) != 1:
        raise UsageError(
            "rewards need a sequence-classification model with one label; this model has no such head"
        )
    packed = hasattr(module, "score") and engine.packs
    return PackedRewarder(engine, sequences) if packed else PaddedRewarder(engine, sequences)


class PackedRewarder:
    """Every token once: responses to one prompt share it (see ``trie``)."""

    def __init__(self, engine: HFEngine, sequences: Sequence[Sequence[int]]) -> None:
        self.engine, self.lengths = engine, [*map(len, sequences)]
        self.trie = Trie(sequences, [n - 1 for n in self.lengths], budget=engine.batch_tokens)
        self.batches = self.trie.packs
        self.run = TriePass(engine.forward, self.trie, engine.lanes, engine.work)

    def __call__(self, rows: Sequence[int]) -> list[Rewarded]:
        states, where, _ = self.run(rows)
        last = torch.tensor([int(where[row][-1]) for row in rows], device=states.device)
        values = self.engine.module.score(states[last])[:, 0]
        self.engine.work.total_tokens += sum(self.lengths[row] for row in rows)
        return _rewarded(self.engine, values, [self.lengths[row] for row in rows])


class PaddedRewarder:
    """Rows padded on the right: for encoders, and for modules that cannot be run packed."""

    def __init__(self, engine: HFEngine, sequences: Sequence[Sequence[int]]) -> None:
        self.engine, self.sequences = engine, sequences
        self.batches = plan_batches([*map(len, sequences)], engine.batch_tokens)

    def __call__(self, rows: Sequence[int]) -> list[Rewarded]:
        engine, module = self.engine, self.engine.module
        sequences = [self.sequences[row] for row in rows]
        lengths = [*map(len, sequences)]
        ids = pad_right(sequences, pad_id(engine.tokenizer)).to(engine.device)
        last = torch.tensor([n - 1 for n in lengths], device=engine.device)
        if hasattr(module, "score"):
            # transformers pools at the last id that differs from pad, which need not be the last token
            states = last_hidden(module, ids)[torch.arange(len(last), device=engine.device), last]
            values = module.score(states)[:, 0]
        else:
            mask = torch.arange(ids.shape[1], device=engine.device)[None] <= last[:, None]
            values = module(input_ids=ids, attention_mask=mask.long()).logits[:, 0]
        engine.work.add_padded(lengths)
        return _rewarded(engine, values, lengths)


def _rewarded(engine: Any, values: Tensor, lengths: Sequence[int]) -> list[Rewarded]:
    values = values.float() - float(getattr(engine.module.config, "reward_offset", 0.0) or 0.0)
    if bool(values.isnan().any()):
        raise WorkError("the reward model's output is not a number (NaN): its weights are broken")
    return [Rewarded(value, n) for value, n in zip(values.tolist(), lengths)]
