"""Generation with in-flight batching: rows that end leave, waiting rows enter.

Keys and values lie in memory that is allocated once, in as many *slots* as rows run together; the rows that
run are always the first slots. What all prompts begin with is kept once beside the slots and attended to in
one product. Prompts are run packed (see ``packed``), equal ones once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alignbench.engines.decode import Decoded
from alignbench.engines.heads import quick_head, require_numbers
from alignbench.engines.compiled import CRows
from alignbench.engines.native import Native, NativeSlots
from alignbench.engines.packed import KeysValues, TriePass
from alignbench.engines.sampling import Picked, Rows, pick
from alignbench.engines.stops import StopStrings
from alignbench.engines.trie import Trie
from alignbench.engines.types import Generate

if TYPE_CHECKING:
    from alignbench.engines.hf import HFEngine

SMALL = 2e9
"""Multiplications of a step's layers up to which two threads wait longer for one another than they save."""
MANY = 10
"""Times that the layers' calls outnumber those of head and sampling, which are worth threads the sooner."""
GRAIN = 32
"""Lengths of keys are rounded up to it, so that kernels meet few shapes."""
LEAST_ROWS = 8
"""Rows of a lane at least: with fewer, reading the weights takes longer than multiplying them."""
LEAST_WORK = 4e7
"""Multiplications of a lane at least: with fewer, threads wait for Python's lock longer than they compute."""
BAND = 8
"""Rows that are looked at together when slots are put in order and cut into spans of similar length."""
ALIKE = 0.75
"""Of the longest row of a span that are attended together, the least that another band may have."""
import os
NLEAST = int(os.environ.get('NLEAST', 4))
NSTEPS = int(os.environ.get('NSTEPS', 16))
REORDER = 8
"""Slots are put in order when one row in so many has ended since."""
ROW = 200
"""What a row costs beside attention, as columns of keys and values, about."""
REFILL = 8
"""Waiting rows enter when one in so many slots is free: prompts are run together, not one by one."""


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


def plan_waves(needs: Sequence[int], budget: int, most_rows: int) -> list[tuple[list[int], int]]:
    """Rows that share one allocation: ``(rows, slots)``, those that need most first.

    Args:
        needs: tokens of each row's prompt and completion together, at most.
        budget: tokens that all slots together may hold. A row that needs more has a slot to itself.
        most_rows: rows that run together at most.
    """
    order = sorted(range(len(needs)), key=lambda i: (-needs[i], i))
    waves = []
    while order:
        slots = max(1, min(most_rows, budget // needs[order[0]]))
        # where rows need less than half, twice as many slots fit
        short = [needs[i] <= needs[order[0]] // 2 for i in order]
        size = short.index(True) if True in short and slots < most_rows else len(order)
        size = max(size, min(slots, len(order)))
        waves.append((order[:size], min(slots, size)))
        order = order[size:]
    return waves


@dataclass
class Slots:
    """Keys and values of the rows that run: of each layer two tensors [S, Hkv, C, D]; and, kept once, those
    of the ``common`` beginning of all rows [Hkv, P, D]."""

    size: int
    capacity: int
    common: KeysValues | None = None
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def write(self, layer: int, slots: Tensor, columns: Tensor, k: Tensor, v: Tensor) -> None:
        """Put keys and values [Hkv, M, D] at ``columns`` of ``slots``, long [M] each."""
        if layer not in self.layers:
            # on a CPU, products of half precision with these shapes are slower than in float32
            dtype = torch.float32 if k.device.type == "cpu" else k.dtype
            shapes = [(self.size, len(x), self.capacity, x.shape[-1]) for x in (k, v)]
            # zeros, as what is hidden is still multiplied (by 0, which would keep a NaN)
            self.layers[layer] = k.new_zeros(shapes[0], dtype=dtype), v.new_zeros(shapes[1], dtype=dtype)
        self.put(layer, self.places(slots, columns, len(k)), k, v)

    def places(self, slots: Tensor, columns: Tensor, heads: int) -> Tensor:
        """Where ``put`` writes the columns of the slots: long [M × Hkv]."""
        head = torch.arange(heads, device=slots.device)
        return ((slots[:, None] * heads + head) * self.capacity + columns[:, None]).reshape(-1)

    def put(self, layer: int, places: Tensor, k: Tensor, v: Tensor) -> None:
        """Write keys and values [Hkv, M, D]: rows of a matrix, as copying by two indices is slow."""
        for kept, x in zip(self.layers[layer], (k, v)):
            rows = x.transpose(0, 1).reshape(len(places), -1)
            kept.view(-1, x.shape[-1]).index_copy_(0, places, rows.to(kept.dtype))

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy the first ``length`` columns of slots onto other slots."""
        for pair in self.layers.values():
            for x in pair:
                x[target, :, :length] = x[source, :, :length]


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
    return [(start, end, min(capacity, -(-length // GRAIN) * GRAIN)) for start, end, length in spans]


@dataclass(frozen=True)
class _Spare:
    """What a prompt gave, kept for its further samples: a row that has it, the state behind its last token,
    and of each layer keys and values [Hkv, T, D]."""

    row: int
    state: Tensor
    layers: dict[int, tuple[Tensor, Tensor]]


class Wave:
    """Runs the requests of one wave; ``advance`` until there is nothing left.

    Args:
        engine: holds the module.
        prompts: of all requests.
        requests: all of them.
        rows: the wave's.
        slots: how many of them run together.
        eos: token ids that end a completion.
        stops: finds the ends of rows with stop strings.
        native: takes several steps at once, where the model and the machine allow it.
    """

    def __init__(
        self,
        engine: HFEngine,
        prompts: Sequence[Sequence[int]],
        requests: Sequence[Generate],
        rows: Sequence[int],
        slots: int,
        eos: Collection[int],
        stops: StopStrings,
        native: Native | None = None,
    ) -> None:
        self.engine, self.stops, self.native = engine, stops, native
        self.prompts = [np.asarray(prompts[i], dtype=np.int32) for i in rows]
        self.requests = [requests[i] for i in rows]
        self.stopping = any(request.sampling.stop for request in self.requests)
        self.trie = Trie(self.prompts, [len(ids) - 1 for ids in self.prompts], budget=engine.batch_tokens)
        self.forward, self.head, self.lanes = engine.forward, quick_head(engine.head), engine.lanes
        self.run = TriePass(self.forward, self.trie, engine.lanes, engine.work)
        self.waiting = deque(row for pack in self.trie.packs for row in pack)
        self.common = self.trie.common
        before = self.trie.trunks[self.common].end if self.common >= 0 else 0
        self.before = before
        needs = [len(ids) + r.sampling.max_tokens for ids, r in zip(self.prompts, self.requests)]
        capacity = -(-(max(needs) - before) // GRAIN) * GRAIN
        self.slots = Slots(slots, capacity)
        device = engine.device
        steps = max(r.sampling.max_tokens for r in self.requests)
        self.parameters: Rows | None = None
        self.eos = torch.tensor(sorted(eos), dtype=torch.long, device=device)
        self.limits = torch.tensor([r.sampling.max_tokens for r in self.requests], device=device)
        self.tokens = torch.zeros(len(rows), steps, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(2, len(rows), steps, device=device)
        # of the slots that run: their row, the column of the newest token, the tokens produced
        self.row = torch.zeros(0, dtype=torch.long, device=device)
        self.column, self.step = self.row.clone(), self.row.clone()
        self.chosen: Rows | None = None
        self.ended: list[tuple[int, Decoded]] = []
        self.spare: _Spare | None = None
        self._native_slots = None
        self.disorder = 0  # rows that have ended since the slots were put in order

    @property
    def done(self) -> bool:
        return not self.waiting and not len(self.row)

    def advance(self) -> bool:
        """Let waiting rows enter if there is room, and decode until rows have ended that others can replace.
        True.

        Raises:
            WorkError: logits that are not numbers.
        """
        if self.waiting:
            self._enter()
        while len(self.row):
            free = self.slots.size - len(self.row)
            if self.waiting and REFILL * free >= self.slots.size:
                break
            if self._steps():
                self._decode_some()
            else:
                self._decode_one()
        return True

    def take(self) -> list[tuple[int, Decoded]]:
        """The rows that have ended since this was last asked, by their place in the wave's rows."""
        ended, self.ended = self.ended, []
        return ended

    # ---- inside

    def _enter(self) -> None:
        """Run the prompts of as many waiting rows as there is room for, and pick their first tokens."""
        n = len(self.row)
        again: list[int] = []  # samples of the prompt that was run last
        rows: list[int] = []
        size = 0
        while self.waiting and n + len(again) + len(rows) < self.slots.size:
            row = self.waiting[0]
            if not rows and self.spare is not None and self.trie.same(row, self.spare.row):
                again.append(self.waiting.popleft())
                continue
            size += len(self.prompts[row]) - self.before
            if rows and size > self.engine.batch_tokens:
                break
            rows.append(self.waiting.popleft())
        states = []
        if again and self.spare is not None:
            self._repeat(self.spare, n, len(again))
            states.append(self.spare.state.expand(len(again), -1))
        if rows:
            states.append(self._run_prompts(rows, n + len(again)))
        entered = [*again, *rows]
        self._spare(entered[-1], n + len(entered) - 1, states[-1][-1])
        logits = self._logits(torch.cat(states))
        device = self.engine.device
        if self.parameters is None:
            self.parameters = Rows.of(self.requests, logits.shape[-1], device)
        new = torch.tensor(entered, device=device)
        columns = torch.tensor([len(self.prompts[row]) - self.before - 1 for row in entered], device=device)
        self.row, self.column = torch.cat([self.row, new]), torch.cat([self.column, columns])
        self.step = torch.cat([self.step, torch.zeros_like(new)])
        self.chosen = None
        self._write(n, *pick(logits, self.parameters.select(new), self.step[n:]))
        self._settle()

    def _run_prompts(self, rows: Sequence[int], first: int) -> Tensor:
        """Run prompts into the slots from ``first`` on; gives the states [B, D] behind their last tokens."""
        layers: dict[int, tuple[Tensor, Tensor]] = {}
        states, where, trunk_of = self.run(rows, layers)
        if self.common >= 0 and self.slots.common is None:
            self.slots.common = self.run.prefix(self.common)
        self._store(rows, first, layers, where, trunk_of)
        self.engine.work.total_tokens += sum(len(self.prompts[row]) for row in rows)
        return states[torch.tensor([int(where[row][-1]) for row in rows], device=states.device)]

    def _spare(self, row: int, slot: int, state: Tensor) -> None:
        """Keep what the prompt of the row that entered last gave, where its next sample still waits."""
        if self.spare is not None and self.trie.same(row, self.spare.row):
            return
        self.spare = None
        if self.waiting and self.trie.same(row, self.waiting[0]):
            size = len(self.prompts[row]) - self.before
            layers = {
                layer: (k[slot, :, :size].clone(), v[slot, :, :size].clone())
                for layer, (k, v) in self.slots.layers.items()
            }
            self.spare = _Spare(row, state.clone(), layers)

    def _repeat(self, spare: _Spare, first: int, n: int) -> None:
        """Put the prompt that was kept into ``n`` slots from ``first`` on."""
        for layer, pair in spare.layers.items():
            for kept, x in zip(self.slots.layers[layer], pair):
                kept[first : first + n, :, : x.shape[1]] = x
        self.engine.work.total_tokens += n * len(self.prompts[spare.row])

    def _store(
        self,
        rows: Sequence[int],
        first: int,
        layers: dict[int, tuple[Tensor, Tensor]],
        where: dict[int, np.ndarray],
        trunk_of: dict[int, int],
    ) -> None:
        """Copy the prompts' keys and values, but for what is common, into the slots from ``first`` on."""
        device = self.engine.device
        places = np.concatenate([where[row] for row in rows])
        ends = [len(self.prompts[row]) - self.before for row in rows]
        columns = np.concatenate([np.arange(end - len(where[row]), end) for row, end in zip(rows, ends)])
        slots = np.repeat(np.arange(first, first + len(rows)), [len(where[row]) for row in rows])
        at, column, slot = (torch.from_numpy(x).long().to(device) for x in (places, columns, slots))
        for layer in sorted(layers):
            k, v = layers[layer]
            self.slots.write(layer, slot, column, k[:, at], v[:, at])
        kept = [self.slots.layers[layer] for layer in sorted(self.slots.layers)]
        for i, row in enumerate(rows):
            if trunk_of[row] in (-1, self.common):
                continue
            for (k, v), (keys, values) in zip(self.run.prefix(trunk_of[row]), kept):
                size = k.shape[1] - self.before
                keys[first + i, :, :size] = k[:, self.before :].to(keys.dtype)
                values[first + i, :, :size] = v[:, self.before :].to(values.dtype)

    def _steps(self) -> int:
        return int(self.native is not None and not self.parameters.filtered)

    def _decode_some(self) -> None:
        """Several tokens for every row that runs, compiled."""
        if self._native_slots is None:
            self._native_slots = NativeSlots(self.native, self.slots.layers, self.slots.common)
            p = self.parameters
            self._temperature = torch.where(p.greedy, torch.zeros(()), p.temperature)
            vocabulary = p.vocabulary
            self._pause = torch.full((vocabulary,), self.stopping, dtype=torch.uint8)
            self._pause[self.eos] = 1
            self._tested = set(self.eos.tolist())
            self._kinds = {r.sampling.stop for r in self.requests if r.sampling.stop}
        p = self.parameters
        rows = CRows(
            self.column.data_ptr(), self.step.data_ptr(), self.row.data_ptr(), self.limits.data_ptr(),
            self.tokens.data_ptr(), self.logprobs[0].data_ptr(), self.logprobs[1].data_ptr(),
            self._temperature.data_ptr(), p.uniform.data_ptr(), self._pause.data_ptr(),
            self.tokens.shape[1], p.uniform.shape[1], p.sampled)
        cost = self.column + ROW
        parts = self.lanes.share((cost / cost.double().mean()).tolist(), NLEAST)
        made = self._native_slots.decode(rows, parts, self.lanes, (1 - 1 / REFILL) if self.waiting else 0, NSTEPS)
        self.engine.work.decoded_tokens += made
        if self.stopping:
            for token in set(self.tokens[self.row, self.step - 1].tolist()) - self._tested:
                self._tested.add(token)
                if not any(self.stops._suspect(own, token) for own in self._kinds):
                    self._pause[token] = 0
        self._settle()

    def _decode_one(self) -> None:
        """One token for every row that runs."""
        assert self.parameters is not None
        self.column = self.column + 1
        if self.chosen is None:
            self.chosen = self.parameters.select(self.row)
        cost = self.column + ROW
        least = max(LEAST_ROWS, int(LEAST_WORK / sum(self.engine.weights)))
        parts = self.lanes.share((cost / cost.double().mean()).tolist(), least)
        picked = self.lanes.run(partial(self._step, self.chosen), parts)
        self.engine.work.decoded_tokens += len(self.row)
        self._write(0, *(torch.cat(parts) for parts in zip(*picked)))
        self._settle()

    def _step(self, chosen: Rows, part: slice) -> Picked:
        """Run the newest tokens of some of the slots, and pick those that follow."""
        columns, step = self.column[part], self.step[part]
        newest = self.tokens[self.row[part], step - 1]
        attend = StepAttention(self.slots, columns, part.start)
        head, layers = self.engine.weights if len(columns) == len(self.row) else (0, 0)
        with fewer_threads(layers * len(newest)):
            states = self.forward(newest, columns + self.before, attend)
        with fewer_threads(MANY * head * len(newest)):
            return pick(self._logits(states), chosen.select(part), step)

    def _logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self.head(states).float() * self.engine.scale
        return logits

    def _write(self, first: int, token: Tensor, raw: Tensor, sampling: Tensor) -> None:
        """Write down the next tokens of the slots from ``first`` on, and their log-probabilities."""
        rows, step = self.row[first:], self.step[first:]
        self.tokens[rows, step] = token
        self.logprobs[0, rows, step] = raw
        self.logprobs[1, rows, step] = sampling
        self.step[first:] += 1

    def _settle(self) -> None:
        """Take out the rows that ended with their newest token, and close the gaps."""
        newest = self.tokens[self.row, self.step - 1]
        over = torch.isin(newest, self.eos) | (self.step >= self.limits[self.row])
        gone = over.tolist()
        if self.stopping:
            own = [self.requests[row].sampling.stop for row in self.row.tolist()]
            rows, steps = self.row, self.step
            alive = [() if out else stop for out, stop in zip(gone, own)]

            def tail(i: int, n: int) -> list[int]:
                end = int(steps[i])
                ids: list[int] = self.tokens[rows[i], max(0, end - n) : end].tolist()
                return ids

            for i in self.stops.ended(alive, newest.tolist(), tail):
                gone[i] = True
        ended = [i for i, out in enumerate(gone) if out]
        if ended:
            self.ended += self._results(ended)
            self._close(ended)

    def _results(self, ended: Sequence[int]) -> list[tuple[int, Decoded]]:
        at = torch.tensor(ended, device=self.row.device)
        rows, steps = self.row[at], self.step[at]
        longest = int(steps.max())
        logprobs = self.logprobs[:, rows, :longest]  # beyond a row's end they are 0
        require_numbers(logprobs)
        tokens, (raw, sampling) = self.tokens[rows, :longest].tolist(), logprobs.tolist()
        return [
            (row, Decoded(tuple(tokens[i][:n]), tuple(raw[i][:n]), tuple(sampling[i][:n])))
            for i, (row, n) in enumerate(zip(rows.tolist(), steps.tolist()))
        ]

    def _close(self, ended: Sequence[int]) -> None:
        """Move the last rows that run into the slots of those that ended."""
        out = set(ended)
        n = len(self.row) - len(ended)
        holes = [i for i in ended if i < n]
        movers = [i for i in range(n, len(self.row)) if i not in out]
        keep = torch.arange(n, device=self.row.device)
        if holes:
            source = torch.tensor(movers, device=keep.device)
            target = torch.tensor(holes, device=keep.device)
            self.slots.move(source, target, int(self.column[source].max()) + 1)
            keep[target] = source
        self.row, self.column, self.step = self.row[keep], self.column[keep], self.step[keep]
        self.chosen = None
        self.disorder += len(ended)
        if REORDER * self.disorder >= n and not self._steps():
            self._sort()

    def _sort(self) -> None:
        """Bring rows that have most columns to the front, so that neighbours are attended together and little
        is looked at in vain; those that are about where they belong stay."""
        self.disorder = 0
        columns = self.column.tolist()
        order = sorted(range(len(columns)), key=lambda slot: (-columns[slot], slot))
        stray = [(rank, slot) for rank, slot in enumerate(order) if rank // BAND != slot // BAND]
        if not stray:
            return
        device = self.column.device
        source = torch.tensor([slot for _, slot in stray], device=device)
        target = torch.tensor(sorted(slot for _, slot in stray), device=device)
        self.slots.move(source, target, int(self.column[source].max()) + 1)
        keep = torch.arange(len(columns), device=device)
        keep[target] = source
        self.row, self.column, self.step = self.row[keep], self.column[keep], self.step[keep]
        self.chosen = None
