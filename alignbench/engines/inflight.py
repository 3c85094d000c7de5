"""Generation with in-flight batching: rows that end leave, waiting rows enter.

The rows that run are always the first slots (``slots``). What all prompts begin with is kept once beside them
and attended to in one product. Prompts are run packed (see ``packed``), equal ones once; then rows are taken
through steps of decoding (``steps``, ``native``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alignbench.engines.decode import Decoded
from alignbench.engines.heads import require_numbers
from alignbench.engines.packed import TriePass
from alignbench.engines.sampling import Rows, pick
from alignbench.engines.slots import Slots, rounded
from alignbench.engines.steps import BAND, REFILL, Running, Steps
from alignbench.engines.stops import Pauses, StopStrings
from alignbench.engines.trie import Trie
from alignbench.engines.types import Generate

if TYPE_CHECKING:
    from alignbench.engines.hf import HFEngine

REORDER = 8
"""Slots are put in order when one row in so many has ended since."""


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
        make_steps: from the slots, and from which tokens may end a row, to what decodes.
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
        make_steps: Callable[[Slots, Pauses], Steps],
    ) -> None:
        self.engine, self.stops = engine, stops
        self.prompts = [np.asarray(prompts[i], dtype=np.int32) for i in rows]
        self.requests = [requests[i] for i in rows]
        self.stopping = any(request.sampling.stop for request in self.requests)
        self.trie = Trie(self.prompts, [len(ids) - 1 for ids in self.prompts], budget=engine.batch_tokens)
        self.run = TriePass(engine.forward, self.trie, engine.lanes, engine.work)
        self.waiting = deque(row for pack in self.trie.packs for row in pack)
        self.common = self.trie.common
        self.before = self.trie.trunks[self.common].end if self.common >= 0 else 0
        needs = [len(ids) + r.sampling.max_tokens for ids, r in zip(self.prompts, self.requests)]
        self.slots = Slots(slots, rounded(max(needs) - self.before))
        device, vocabulary = engine.device, engine.vocabulary
        self.running = Running.none(Rows.of(self.requests, vocabulary, device), self.requests, device)
        kinds = {request.sampling.stop for request in self.requests}
        self.steps = make_steps(self.slots, Pauses(vocabulary, eos, stops, kinds))
        self.eos = torch.tensor(sorted(eos), dtype=torch.long, device=device)
        self.ended: list[tuple[int, Decoded]] = []
        self.spare: _Spare | None = None
        self.disorder = 0  # rows that have ended since the slots were put in order

    @property
    def done(self) -> bool:
        return not self.waiting and not len(self.running)

    def advance(self) -> bool:
        """Let waiting rows enter if there is room, and decode until rows have ended that others can replace.
        True.

        Raises:
            WorkError: logits that are not numbers.
        """
        if self.waiting:
            self._enter()
        while len(self.running):
            free = self.slots.size - len(self.running)
            if self.waiting and REFILL * free >= self.slots.size:
                break
            self.engine.work.decoded_tokens += self.steps.advance(self.running)
            self._settle()
        return True

    def take(self) -> list[tuple[int, Decoded]]:
        """The rows that have ended since this was last asked, by their place in the wave's rows."""
        ended, self.ended = self.ended, []
        return ended

    # ---- inside

    def _enter(self) -> None:
        """Run the prompts of as many waiting rows as there is room for, and pick their first tokens."""
        n = len(self.running)
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
        logits = self.engine.head(torch.cat(states)).float() * self.engine.scale
        running = self.running
        running.add(entered, [len(self.prompts[row]) - self.before - 1 for row in entered])
        running.waiting = bool(self.waiting)
        running.write(n, *pick(logits, running.parameters.select(running.row[n:]), running.step[n:]))
        self._settle()

    def _run_prompts(self, rows: Sequence[int], first: int) -> Tensor:
        """Run prompts into the slots from ``first`` on; gives the states [B, D] behind their last tokens."""
        layers: dict[int, tuple[Tensor, Tensor]] = {}
        states, where, trunk_of = self.run(rows, layers)
        if self.common >= 0 and self.slots.common is None:
            self.slots.common = self.run.prefix(self.common)
        self._store(rows, first, layers, where, trunk_of)
        longest = max(len(self.prompts[row]) for row in rows) - self.before
        self.steps.entered(first, len(rows), longest)
        self.engine.work.total_tokens += sum(len(self.prompts[row]) for row in rows)
        return states[torch.tensor([int(where[row][-1]) for row in rows], device=states.device)]

    def _spare(self, row: int, slot: int, state: Tensor) -> None:
        """Keep what the prompt of the row that entered last gave, where its next sample still waits."""
        if self.spare is not None and self.trie.same(row, self.spare.row):
            return
        self.spare = None
        if self.waiting and self.trie.same(row, self.waiting[0]):
            size = rounded(len(self.prompts[row]) - self.before)
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

    def _settle(self) -> None:
        """Take out the rows that ended with their newest token, and close the gaps."""
        running = self.running
        newest, step = running.newest, running.step
        over = torch.isin(newest, self.eos) | (step >= running.limits[running.row])
        gone = over.tolist()
        if self.stopping:
            own = [self.requests[row].sampling.stop for row in running.row.tolist()]
            alive = [() if out else stop for out, stop in zip(gone, own)]

            def tail(i: int, n: int) -> list[int]:
                end = int(step[i])
                ids: list[int] = running.tokens[running.row[i], max(0, end - n) : end].tolist()
                return ids

            for i in self.stops.ended(alive, newest.tolist(), tail):
                gone[i] = True
        ended = [i for i, out in enumerate(gone) if out]
        if ended:
            self.ended += self._results(ended)
            self._close(ended)

    def _results(self, ended: Sequence[int]) -> list[tuple[int, Decoded]]:
        running = self.running
        at = torch.tensor(ended, device=running.row.device)
        rows, steps = running.row[at], running.step[at]
        longest = int(steps.max())
        logprobs = running.logprobs[:, rows, :longest]  # beyond a row's end they are 0
        require_numbers(logprobs)
        tokens, (raw, sampling) = running.tokens[rows, :longest].tolist(), logprobs.tolist()
        return [
            (row, Decoded(tuple(tokens[i][:n]), tuple(raw[i][:n]), tuple(sampling[i][:n])))
            for i, (row, n) in enumerate(zip(rows.tolist(), steps.tolist()))
        ]

    def _close(self, ended: Sequence[int]) -> None:
        """Move the last rows that run into the slots of those that ended."""
        out = set(ended)
        n = len(self.running) - len(ended)
        holes = [i for i in ended if i < n]
        self._move([i for i in range(n, len(self.running)) if i not in out], holes, n)
        self.disorder += len(ended)
        if self.steps.ordered and REORDER * self.disorder >= n:
            self._sort()

    def _sort(self) -> None:
        """Bring rows that have most columns to the front, so that neighbours are attended together and little
        is looked at in vain; those that are about where they belong stay."""
        self.disorder = 0
        columns = self.running.column.tolist()
        order = sorted(range(len(columns)), key=lambda slot: (-columns[slot], slot))
        stray = [slot for rank, slot in enumerate(order) if rank // BAND != slot // BAND]
        self._move(stray, sorted(stray), len(columns))

    def _move(self, sources: Sequence[int], targets: Sequence[int], n: int) -> None:
        """Rows at ``sources`` go to the slots ``targets``; the first ``n`` slots go on."""
        running = self.running
        keep = torch.arange(n, device=running.row.device)
        if sources:
            source, target = (torch.tensor(slots, device=keep.device) for slots in (sources, targets))
            self.slots.move(source, target, rounded(int(running.column[source].max()) + 1))
            keep[target] = source
        running.keep(keep)
