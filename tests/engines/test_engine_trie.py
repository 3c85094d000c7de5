"""The plan of shared computation: each sequence is there whole, each token once, whatever the cuts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alignbench.engines.trie import Trie, common_length

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=9)
SETS = st.lists(IDS, min_size=1, max_size=12)


def lay_out(trie: Trie, rows: list[int]) -> dict[int, list[int]]:
    """The ids of each row as its trunks and its unit spell them; checks what its last token sees."""
    spelt = {}
    for unit, owners in trie.units(rows):
        before = [int(i) for t in trie.chain_of(unit.trunk) for i in trie.trunks[t].ids]
        for path, members in zip(unit.paths, owners):
            assert unit.positions[path].tolist() == [*range(len(before), len(before) + len(path))]
            for i in path:
                seen = [j for j in range(len(unit.ids)) if j <= i < unit.ends[j]]
                assert seen == [j for j in path if j <= i]
            for row in members:
                spelt[row] = before + unit.ids[path].tolist()
    return spelt


@given(SETS, st.integers(1, 40), st.integers(1, 20), st.integers(1, 4))
def test_every_sequence_is_spelt_by_its_trunks_and_its_unit(
    sequences: list[list[int]], budget: int, unit: int, worthwhile: int
) -> None:
    trie = Trie(sequences, budget=budget, unit=unit, worthwhile=worthwhile)
    assert sorted(row for pack in trie.packs for row in pack) == [*range(len(sequences))]
    for pack in trie.packs:
        assert lay_out(trie, pack) == {row: sequences[row] for row in pack}
        assert lay_out(trie, pack[::2]) == {row: sequences[row] for row in pack[::2]}, "also a part of it"


@given(SETS, st.data())
def test_what_is_needed_is_never_in_a_trunk(sequences: list[list[int]], data: st.DataObject) -> None:
    needed = [data.draw(st.integers(0, len(ids))) for ids in sequences]
    trie = Trie(sequences, needed, budget=8, unit=4, worthwhile=2)
    for pack in trie.packs:
        for unit, owners in trie.units(pack):
            depth = trie.trunks[unit.trunk].end if unit.trunk >= 0 else 0
            assert all(depth <= needed[row] for rows in owners for row in rows)


@given(SETS)
def test_in_one_unit_the_trie_has_each_beginning_once(sequences: list[list[int]]) -> None:
    beginnings = {tuple(ids[:n]) for ids in sequences for n in range(1, len(ids) + 1)}
    trie = Trie(sequences, budget=1000, unit=1000)
    assert trie.computed_tokens == len(beginnings)
    assert trie.total_tokens == sum(map(len, sequences))
    assert len(trie.packs) == 1
    assert not trie.trunks


@given(SETS, st.permutations(range(12)))
def test_the_plan_does_not_depend_on_the_order_of_requests(
    sequences: list[list[int]], order: list[int]
) -> None:
    kept = [i for i in order if i < len(sequences)]
    one = Trie(sequences, budget=12, unit=6, worthwhile=2)
    two = Trie([sequences[i] for i in kept], budget=12, unit=6, worthwhile=2)
    as_sets = [sorted(sequences[i] for i in pack) for pack in one.packs]
    assert as_sets == [sorted(sequences[kept[i]] for i in pack) for pack in two.packs]
    assert one.computed_tokens == two.computed_tokens


def test_examples_are_a_trunk_and_the_options_of_a_question_a_unit() -> None:
    examples = [*range(100, 140)]
    sequences = [[*examples, q, q + 1, o, o + 1] for q in (10, 20, 30) for o in (1, 3)]
    trie = Trie(sequences, needed=[41] * 6, budget=14, unit=8)
    (trunk,) = trie.trunks
    assert trunk.ids.tolist() == examples
    # the trunk's 40 ids and the first question's 6 are over the budget: a pack of its own
    assert trie.packs == [[0, 1], [2, 3, 4, 5]]
    assert trie.computed_tokens == 40 + 3 * 6
    ((unit, owners),) = trie.units([0, 1])
    assert (unit.trunk, unit.ids.tolist()) == (0, [10, 11, 1, 2, 3, 4])
    assert unit.positions.tolist() == [40, 41, 42, 43, 42, 43]
    assert unit.ends.tolist() == [6, 6, 4, 4, 6, 6]
    assert [path.tolist() for path in unit.paths] == [[0, 1, 2, 3], [0, 1, 4, 5]]
    assert owners == [[0], [1]]
    assert not unit.chain


def test_equal_sequences_are_computed_once_and_trunks_nest() -> None:
    outer, inner = [*range(50, 70)], [*range(80, 100)]
    sequences = [[*outer, *inner, 1], [*outer, *inner, 2], [*outer, *inner, 1], [*outer, 3], [*outer, 4, 4]]
    trie = Trie(sequences, budget=100, unit=1)
    assert [(t.start, t.end, t.parent) for t in trie.trunks] == [(0, 20, -1), (20, 40, 0)]
    assert trie.computed_tokens == 20 + 20 + 1 + 1 + 1 + 2
    units = [*trie.units([0, 2, 3])]
    assert [rows for _, rows in units] == [[[3]], [[0, 2]]]
    assert trie.chain_of(units[1][0].trunk) == [0, 1]
    assert trie.chain_of(-1) == []


def test_no_sequences() -> None:
    trie = Trie([], budget=10)
    assert (trie.packs, trie.computed_tokens, trie.total_tokens) == ([], 0, 0)


def test_common_length() -> None:
    for a, b, n in [([], [], 0), ([1], [], 0), ([1, 2], [1, 2, 3], 2), ([1, 2], [1, 3], 1), ([2], [1], 0)]:
        assert common_length(np.array(a), np.array(b)) == n
