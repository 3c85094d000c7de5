"""What engines on weights share between tokens and answers."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from alignbench.engines.answering import Spans, add_up, one_by_one, spans_of
from alignbench.engines.inputs import Tokens
from alignbench.engines.types import Score, Scored


def test_a_request_is_one_sequence_and_a_rolling_one_its_windows() -> None:
    tokens = Tokens([[1, 2, 3], [0, 1, 2, 3, 4, 5]], [2, 1], [0, 0])
    spans = spans_of([Score("a", "b"), Score("", "c", rolling=True)], tokens, 3)
    assert spans == Spans([0, 1, 1], [[1, 2, 3], [0, 1, 2, 3], [2, 3, 4, 5]], [2, 1, 2])
    whole = spans_of([Score("a", "b"), Score("", "c", rolling=True)], tokens, None)
    assert whole == Spans([0, 1], tokens.sequences, tokens.starts)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 6)), max_size=5)
)
def test_targets_one_by_one_are_the_same_targets(drawn: list[tuple[list[int], int]]) -> None:
    spans = Spans([], [], [])
    for owner, (ids, start) in enumerate(drawn):
        spans.owners.append(owner)
        spans.sequences.append(ids)
        spans.starts.append(min(start, len(ids)))
    apart = one_by_one(spans)
    assert set(apart.owners) == set(spans.owners), "no request is left without an answer"

    def targets(s: Spans) -> list[tuple[int, tuple[int, ...], int]]:
        return sorted(
            (owner, tuple(ids[:at]), ids[at])
            for owner, ids, start in zip(s.owners, s.sequences, s.starts)
            for at in range(start, len(ids))
        )

    assert targets(apart) == targets(spans)
    assert all(len(ids) - start <= 1 for ids, start in zip(apart.sequences, apart.starts))


def test_windows_add_up() -> None:
    parts = [Scored(-0.1, 1, True), Scored(-1e17, 2, True), Scored(1e17, 0, False)]
    assert add_up(parts) == Scored(math.fsum([-0.1, -1e17, 1e17]), 3, False)
    assert add_up(parts[::-1]) == add_up(parts)
