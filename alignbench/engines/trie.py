"""Which tokens are computed, and together with which: sequences share what they begin with.

The sequences of a request set form a trie of token ids. It is cut into

* **units**: small subtrees, each computed in one piece in depth-first order, every token seeing its ancestors
  only. The options of one question are a unit: the question once, then each option.
* **trunks**: runs of ids that several units begin with (a task's examples, a system prompt). A trunk is
  computed once, its keys and values are kept while units that hang on it are computed.
* **packs**: units that share a forward pass, under a budget of tokens. Tokens are packed, not padded.

All of it follows from the set of sequences and the budget alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Ids = np.ndarray
"""Token ids of one sequence: int32 [T]."""

UNIT = 768
"""Tokens up to which a subtree is computed in one piece: its attention is masked, not skipped, so larger
pieces would pay for pairs of tokens that do not see each other."""
WORTHWHILE = 16
"""Tokens from which a common beginning is worth a trunk instead of being computed in every unit."""


@dataclass(frozen=True)
class Trunk:
    """Ids [start, end) that several units begin with, after those of the trunk ``parent`` (-1: none)."""

    ids: Ids
    parent: int
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.ids)


@dataclass(frozen=True)
class Unit:
    """Tokens of one unit in depth-first order.

    ``ids``, ``positions`` int32 [N]; ``ends`` int32 [N]: token i sees token j of its unit where
    ``j <= i < ends[j]``; ``trunk`` the trunk it hangs on, or -1; ``paths``: of each sequence, the places of
    its tokens behind the trunk. ``chain``: no branches, so that attention is plainly causal.
    """

    trunk: int
    ids: Ids
    positions: Ids
    ends: Ids
    paths: list[Ids]

    @property
    def chain(self) -> bool:
        return bool((self.ends == len(self.ids)).all())


class Trie:
    """The plan for a set of sequences.

    Args:
        sequences: token ids, at least one each; int32 arrays or lists.
        needed: of each sequence the first position whose hidden state is asked for, by default its last. A
            trunk ends before it, so that what is asked for is computed in one pack.
        budget: tokens of a pack; a unit that is larger by itself is a pack of its own.
        unit, worthwhile: see ``UNIT`` and ``WORTHWHILE``.

    Attributes:
        packs: indices of sequences that share a forward pass, in the order in which to compute them. Equal
            sequences are always in the same pack.
        trunks: see ``Trunk``.
        total_tokens: of all sequences.
        computed_tokens: those that are left to compute, each once.
    """

    def __init__(
        self,
        sequences: Sequence[Sequence[int] | Ids],
        needed: Sequence[int] | None = None,
        *,
        budget: int,
        unit: int = UNIT,
        worthwhile: int = WORTHWHILE,
    ) -> None:
        arrays = [np.asarray(ids, dtype=np.int32) for ids in sequences]
        first = [len(ids) - 1 for ids in arrays] if needed is None else list(needed)
        self._budget, self._unit, self._worthwhile = budget, min(unit, budget), worthwhile
        self._sort(arrays, first)
        self.trunks: list[Trunk] = []
        self._unit_of = np.zeros(len(self._sorted), dtype=np.int64)
        self._units: list[tuple[int, int, int]] = []  # trunk, and the range of distinct sequences
        self._cut()
        self.total_tokens = sum(map(len, arrays))
        self.packs = self._pack()

    def units(self, rows: Iterable[int]) -> Iterator[tuple[Unit, list[list[int]]]]:
        """The units of the sequences at ``rows``, and for each of a unit's ``paths`` the rows that it is."""
        wanted: dict[int, dict[int, list[int]]] = {}
        for row in rows:
            place = int(self._place[row])
            wanted.setdefault(int(self._unit_of[place]), {}).setdefault(place, []).append(row)
        for index in sorted(wanted):
            places = sorted(wanted[index])
            yield self._grow(self._units[index][0], places), [wanted[index][place] for place in places]

    def chain_of(self, trunk: int) -> list[int]:
        """A trunk and those before it, the first one first; empty for -1."""
        chain: list[int] = []
        while trunk >= 0:
            chain.append(trunk)
            trunk = self.trunks[trunk].parent
        return chain[::-1]

    def same(self, a: int, b: int) -> bool:
        """Whether two sequences are equal."""
        return bool(self._place[a] == self._place[b])

    @property
    def common(self) -> int:
        """The trunk that all sequences begin with, or -1."""
        roots = {(self.chain_of(trunk) or [-1])[0] for trunk, _, _ in self._units}
        return roots.pop() if len(roots) == 1 else -1

    # ---- inside

    def _sort(self, arrays: Sequence[Ids], first: Sequence[int]) -> None:
        """Distinct sequences in lexicographic order, and how many ids each shares with the one before."""
        keys = [ids.astype(">u4").tobytes() for ids in arrays]
        order = sorted(set(keys))
        place = {key: i for i, key in enumerate(order)}
        self._place = np.array([place[key] for key in keys], dtype=np.int64)
        self._sorted: list[Ids] = [np.empty(0, np.int32)] * len(order)
        self._needed = np.full(len(order), np.iinfo(np.int64).max)
        for row, (ids, start) in enumerate(zip(arrays, first)):
            i = self._place[row]
            self._sorted[i] = ids
            self._needed[i] = min(self._needed[i], start)
        pairs = zip(self._sorted, self._sorted[1:])
        self._common = np.array([0, *(common_length(a, b) for a, b in pairs)], dtype=np.int64)
        lengths = np.array([*map(len, self._sorted)], dtype=np.int64)
        # tokens of the trie up to and with each sequence, so that any range's are a difference
        self._new = np.concatenate([[0], np.cumsum(lengths - self._common[: len(lengths)])])

    def _cut(self) -> None:
        """Cut the trie into trunks and units, depth first."""
        todo = [(0, len(self._sorted), -1, 0)] if self._sorted else []
        while todo:
            low, high, trunk, depth = todo.pop()
            # what a whole range shares beyond the trunk would be computed again in each of its units
            if high - low == 1 or self._size(low, high, depth) <= self._unit:
                self._unit_of[low:high] = len(self._units)
                self._units.append((trunk, low, high))
                continue
            shared = self._common[low + 1 : high]
            least = int(shared.min())
            end = min(least, int(self._needed[low:high].min()))
            if end - depth >= self._worthwhile:
                self.trunks.append(Trunk(self._sorted[low][depth:end], trunk, depth))
                trunk, depth = len(self.trunks) - 1, end
            cuts = [low, *(low + 1 + np.flatnonzero(shared == least)).tolist(), high]
            todo.extend((a, b, trunk, depth) for a, b in reversed([*itertools.pairwise(cuts)]))

    def _size(self, low: int, high: int, depth: int) -> int:
        """Tokens beyond ``depth`` of the subtree that the range of distinct sequences is."""
        return len(self._sorted[low]) - depth + int(self._new[high] - self._new[low + 1])

    def _pack(self) -> list[list[int]]:
        rows_of: list[list[int]] = [[] for _ in self._sorted]
        for row, place in enumerate(self._place.tolist()):
            rows_of[place].append(row)
        packs: list[list[int]] = []
        pack: list[int] = []
        size, alive = 0, frozenset[int]()  # the trunks that the pack before, and this one, have computed
        self.computed_tokens = 0
        here: frozenset[int] = frozenset()
        for trunk, low, high in self._units:
            chain = frozenset(self.chain_of(trunk))
            tokens = self._size(low, high, self.trunks[trunk].end if trunk >= 0 else 0)
            more = tokens + sum(len(self.trunks[t].ids) for t in chain - alive - here)
            if pack and size + more > self._budget:
                packs.append(pack)
                pack, size, alive, here = [], 0, here, frozenset()
                more = tokens + sum(len(self.trunks[t].ids) for t in chain - alive)
            pack.extend(row for place in range(low, high) for row in rows_of[place])
            size, here = size + more, here | chain
            self.computed_tokens += more
        return [*packs, pack] if pack else packs

    def _grow(self, trunk: int, places: Sequence[int]) -> Unit:
        """The unit of some distinct sequences of one unit, in order."""
        depth = self.trunks[trunk].end if trunk >= 0 else 0
        ids: list[Ids] = []
        positions: list[Ids] = []
        paths: list[Ids] = []
        size = (
            len(self._sorted[places[0]])
            - depth
            + sum(len(self._sorted[b]) - self._overlap(a, b) for a, b in itertools.pairwise(places))
        )
        ends = np.full(size, size, dtype=np.int32)
        n = 0
        for i, place in enumerate(places):
            sequence = self._sorted[place]
            common = self._overlap(places[i - 1], place) if i else depth
            path = np.empty(len(sequence) - depth, dtype=np.int32)
            if i:
                before = paths[-1]
                path[: common - depth] = before[: common - depth]
                ends[before[common - depth :]] = n  # what the sequence before had for itself ends here
            fresh = len(sequence) - common
            path[common - depth :] = np.arange(n, n + fresh)
            ids.append(sequence[common:])
            positions.append(np.arange(common, len(sequence), dtype=np.int32))
            paths.append(path)
            n += fresh
        return Unit(trunk, np.concatenate(ids), np.concatenate(positions), ends, paths)

    def _overlap(self, a: int, b: int) -> int:
        """How many ids two distinct sequences, ``a`` before ``b`` in order, begin with in common."""
        return int(self._common[a + 1 : b + 1].min())


def common_length(a: Ids, b: Ids) -> int:
    """How many ids two sequences begin with in common."""
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    at = int(differ.argmax()) if n else 0
    return at if n and differ[at] else n
