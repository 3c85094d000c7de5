"""Steps of decoding: the rows that run get their next tokens.

Here with torch, one token at a time, for every model that runs packed; ``native`` takes several at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from alignbench.engines.heads import quick_head
from alignbench.engines.sampling import Picked, Rows, pick
from alignbench.engines.slots import Slots, rounded
from alignbench.engines.types import Generate

if TYPE_CHECKING:
    from alignbench.engines.hf import HFEngine

SMALL = 2e9
"""Multiplications of a step's layers up to which two threads wait longer for one another than they save."""
MANY = 10
"""Times that the layers' calls outnumber those of head and sampling, which are worth threads the sooner."""
LEAST_ROWS = 8
"""Rows of a lane at least: with fewer, reading the weights takes longer than multiplying them."""
LEAST_WORK = 4e7
"""Multiplications of a lane at least: with fewer, threads wait for Python's lock longer than they compute."""
BAND = 8
"""Rows that are looked at together when slots are put in order and cut into spans of similar length."""
ALIKE = 0.75
"""Of the longest row of a span that are attended together, the least that another band may have."""
REFILL = 8
"""Waiting rows enter when one in so many slots is free: prompts are run together, not one by one."""
ROW = 200
"""What a row costs beside attention, as columns of keys and values, about."""


@dataclass
class Running:
    """The rows that run, in the first B slots, and what all R rows of their wave have produced.

    ``row``: of each slot the row that it has; ``column``: where its newest token's keys and values are, or
    will be; ``step``: how many tokens it has produced (long [B] each). ``limits`` long [R]: how many a row
    may produce; ``tokens`` long [R, T]; ``logprobs`` float32 [2, R, T]: raw, and as sampled; ``parameters``
    of sampling, of all rows. ``waiting``: whether further rows wait for a slot.
    """

    row: Tensor
    column: Tensor
    step: Tensor
    limits: Tensor
    tokens: Tensor
    logprobs: Tensor
    parameters: Rows
    waiting: bool = True

    @classmethod
    def none(cls, parameters: Rows, requests: Sequence[Generate], device: torch.device) -> Running:
        """Nobody runs yet."""
        most = [request.sampling.max_tokens for request in requests]
        limits = torch.tensor(most, dtype=torch.long, device=device)
        shape = len(requests), int(limits.max())
        row, column, step = torch.zeros(3, 0, dtype=torch.long, device=device)
        tokens = torch.zeros(shape, dtype=torch.long, device=device)
        logprobs = torch.zeros(2, *shape, dtype=torch.float32, device=device)
        return cls(row, column, step, limits, tokens, logprobs, parameters)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def newest(self) -> Tensor:
        """Each slot's newest token: long [B]."""
        return self.tokens[self.row, self.step - 1]

    def add(self, rows: Sequence[int], columns: Sequence[int]) -> None:
        """Rows that enter behind those that run: their last prompt tokens are at ``columns``."""
        new = self.row.new_tensor(rows)
        self.row, self.column = torch.cat([self.row, new]), torch.cat([self.column, new.new_tensor(columns)])
        self.step = torch.cat([self.step, torch.zeros_like(new)])

    def keep(self, slots: Tensor) -> None:
        """What slots 0, 1, … have from now on: what ``slots`` (long) had."""
        self.row, self.column, self.step = self.row[slots], self.column[slots], self.step[slots]

    def write(self, first: int, token: Tensor, raw: Tensor, sampling: Tensor) -> None:
        """The next tokens of the slots from ``first`` on, and their log-probabilities."""
        rows, step = self.row[first:], self.step[first:]
        self.tokens[rows, step] = token
        self.logprobs[0, rows, step] = raw
        self.logprobs[1, rows, step] = sampling
        step += 1


class Steps(Protocol):
    """Takes rows through steps. ``ordered``: it is the faster, the more alike neighbouring slots are long."""

    ordered: bool

    def entered(self, first: int, n: int, columns: int) -> None:
        """``n`` slots from ``first`` on have got their prompts' keys and values, ``columns`` at most."""

    def advance(self, running: Running) -> int:
        """One token or more for every row that runs; gives how many in all. A row whose newest token may end
        it gets none behind that."""


class TorchSteps:
    """One token a row and call.

    Args:
        engine: holds the module.
        slots: of the rows.
    """

    ordered = True

    def __init__(self, engine: HFEngine, slots: Slots) -> None:
        self.engine, self.slots = engine, slots
        self.forward, self.head = engine.forward, quick_head(engine.head)
        self._rows: Tensor | None = None  # whose parameters are chosen

    def entered(self, first: int, n: int, columns: int) -> None:
        pass

    def advance(self, running: Running) -> int:
        running.column += 1
        if self._rows is not running.row:
            self._rows, self._chosen = running.row, running.parameters.select(running.row)
        cost = running.column + ROW
        least = max(LEAST_ROWS, int(LEAST_WORK / sum(self.engine.weights)))
        lanes = self.engine.lanes
        parts = lanes.share((cost / cost.double().mean()).tolist(), least)
        picked = lanes.run(partial(self._step, running), parts)
        running.write(0, *(torch.cat(each) for each in zip(*picked)))
        return len(running)

    def _step(self, running: Running, part: slice) -> Picked:
        """Run the newest tokens of some of the slots, and pick those that follow."""
        columns, step = running.column[part], running.step[part]
        newest = running.tokens[running.row[part], step - 1]
        attend = StepAttention(self.slots, columns, part.start)
        head, layers = self.engine.weights if len(columns) == len(running) else (0, 0)
        with fewer_threads(layers * len(newest)):
            states = self.forward(newest, columns + attend.before, attend)
        with fewer_threads(MANY * head * len(newest)):
            logits = self.head(states).float() * self.engine.scale
            return pick(logits, self._chosen.select(part), step)


@contextmanager
def fewer_threads(multiplications: float) -> Iterator[None]:
    """One thread on a CPU for a step that is too small for more; the more there are, the more they save."""
    threads = torch.get_num_threads()
    if threads == 1 or multiplications * (threads - 1) ** 2 > SMALL:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class StepAttention:
    """Attention of one step: the newest token of each of B slots in a row, behind all that its row has.

    Args:
        slots: whose last columns this step writes.
        columns: long [B], where each row's token goes.
        first: the slot of the first row.
    """

    def __init__(self, slots: Slots, columns: Tensor, first: int) -> None:
        self.slots, self.columns, self.first = slots, columns, first
        self.rows = torch.arange(first, first + len(columns), device=columns.device)
        self.before = slots.common[0][0].shape[1] if slots.common else 0
        self.spans = _spans(columns.tolist(), slots.capacity)
        self._biases: dict[tuple[int | None, int], list[Tensor]] = {}
        self._places: dict[int, Tensor] = {}

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float | None, window: int | None
    ) -> Tensor:
        n, groups, heads = len(self.rows), len(k), len(q) // len(k)
        if groups not in self._places:
            self._places[groups] = self.slots.places(self.rows, self.columns, groups)
        self.slots.put(layer, self._places[groups], k, v)
        kept_k, kept_v = self.slots.layers[layer]
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        # [H, B, D] → [B × Hkv, G, D]
        queries = q.to(kept_k.dtype).transpose(0, 1).reshape(n * groups, heads, -1)
        biases = self._bias(window, groups, heads, kept_k.dtype)
        outs = []
        for (start, end, length), bias in zip(self.spans, biases):
            slots = slice(self.first + start, self.first + end)
            # [b × Hkv, L, D]
            keys, values = (x[slots, :, :length].flatten(0, 1) for x in (kept_k, kept_v))
            asked = queries[start * groups : end * groups]
            if self.slots.common:
                common = self.slots.common[layer]
                outs.append(self._behind_common(asked, keys, values, common, bias, scale))
            else:
                scores = torch.baddbmm(bias, asked, keys.transpose(1, 2), alpha=scale)
                outs.append(torch.bmm(scores.softmax(-1, dtype=torch.float32).to(values.dtype), values))
        out = torch.cat(outs) if len(outs) > 1 else outs[0]
        return out.view(n, len(q), -1).to(q.dtype)

    def _behind_common(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        common: tuple[Tensor, Tensor],
        bias: Tensor,
        scale: float,
    ) -> Tensor:
        """The same where all rows have more before them, multiplied once for all: [B × Hkv, G, D]."""
        shared_k, shared_v = (x.to(keys.dtype) for x in common)
        groups, before = shared_k.shape[:2]

        def together(x: Tensor) -> Tensor:  # [B × Hkv, G, X] → [Hkv, B × G, X]
            return x.view(-1, groups, *x.shape[1:]).transpose(0, 1).reshape(groups, -1, x.shape[-1])

        def apart(x: Tensor) -> Tensor:  # and back
            return x.view(groups, -1, queries.shape[1], x.shape[-1]).transpose(0, 1).flatten(0, 1)

        shared = apart(together(queries) @ shared_k.transpose(-1, -2))
        scores = torch.cat([shared, torch.bmm(queries, keys.transpose(1, 2))], dim=-1)
        weights = torch.add(bias, scores, alpha=scale).softmax(-1, dtype=torch.float32).to(values.dtype)
        part = apart(together(weights[..., :before]) @ shared_v)
        return torch.baddbmm(part, weights[..., before:], values)

    def _bias(self, window: int | None, groups: int, heads: int, dtype: torch.dtype) -> list[Tensor]:
        """0 where a row sees a position, else -inf: of each span [b × Hkv, G, P + L]."""
        if window is not None and self.before + max(length for *_, length in self.spans) <= window:
            window = None
        if (window, groups) not in self._biases:
            self._biases[window, groups] = [
                self._hidden(self.columns[start:end, None], length, window, dtype)[:, None, None]
                .expand(-1, groups, heads, -1)
                .flatten(0, 1)
                for start, end, length in self.spans
            ]
        return self._biases[window, groups]

    def _hidden(self, columns: Tensor, length: int, window: int | None, dtype: torch.dtype) -> Tensor:
        at = torch.arange(-self.before, length, device=columns.device)
        hidden = at > columns
        if window is not None:
            hidden |= at <= columns - window
        return torch.zeros(hidden.shape, dtype=dtype, device=at.device).masked_fill_(hidden, -torch.inf)


def _spans(columns: Sequence[int], capacity: int) -> list[tuple[int, int, int]]:
    """Neighbouring rows that are attended together: first row, end, and columns that are looked at."""
    spans: list[tuple[int, int, int]] = []
    for start in range(0, len(columns), BAND):
        end = min(start + BAND, len(columns))
        longest = max(columns[start:end]) + 1
        if spans and ALIKE * longest <= spans[-1][2] <= longest / ALIKE:
            first, _, most = spans.pop()
            spans.append((first, end, max(most, longest)))
        else:
            spans.append((start, end, longest))
    return [(start, end, min(capacity, rounded(length))) for start, end, length in spans]
