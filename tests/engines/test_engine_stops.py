"""Stop strings are found with the token that completes them, and few texts are decoded for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from alignbench.engines.stops import StopStrings

PIECES = ["a", "b", "\n", "\n\n", "ab", "b\n", "", "Q:", " ", "é"]


def decode(rows: list[list[int]]) -> list[str]:
    return ["".join(PIECES[i] for i in row) for row in rows]


@given(
    st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=20),
    st.sampled_from([("\n\n",), ("ab", "Q:"), ("b\nb",), (" ",), ("é",)]),
)
def test_the_first_token_that_completes_a_stop_string(ids: list[int], stops: tuple[str, ...]) -> None:
    finder = StopStrings(decode)
    ended = [
        n
        for n in range(1, len(ids) + 1)
        if finder.ended([stops], [ids[n - 1]], lambda _, k, n=n: ids[max(0, n - k) : n])
    ]
    want = [n for n in range(1, len(ids) + 1) if any(s in decode([ids[:n]])[0] for s in stops)]
    assert ended[:1] == want[:1]


def test_only_suspects_are_decoded() -> None:
    asked: list[int] = []

    def told(rows: list[list[int]]) -> list[str]:
        asked.append(len(rows))
        return decode(rows)

    finder = StopStrings(told)
    rows = [[0, 1, 0], [0, 2], [3], [4]]
    stops = [("\n\n",), ("\n\n",), ("\n\n",), ()]
    tails = lambda row, n: rows[row][-n:]  # noqa: E731
    assert finder.ended(stops, [row[-1] for row in rows], tails) == [2]
    assert asked == [1, 1, 1, 2], "each new token once, then the two rows that may have ended"
    assert finder.ended(stops, [row[-1] for row in rows], tails) == [2]
    assert asked[4:] == [2]


def test_part_of_a_character_is_a_suspect() -> None:
    halves = {(0,): "\ufffd", (1,): "\ufffd", (0, 1): "é"}
    finder = StopStrings(lambda rows: [halves[tuple(row)] for row in rows])
    assert finder.ended([("é",)], [0], lambda *_: [0]) == []
    assert finder.ended([("é",)], [1], lambda *_: [0, 1]) == [0]
