"""Stop strings while text is generated: which rows end with the token that they have just got."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import torch


class StopStrings:
    """Finds the token that completes a stop string, row by row.

    Only a token with the stop string's last character in it can complete it, so a row's text is decoded
    after such tokens alone; what each token says is asked once.

    Args:
        decode: ids of several rows → their texts, without special tokens.
    """

    def __init__(self, decode: Callable[[list[list[int]]], list[str]]) -> None:
        self._decode = decode
        self._pieces: dict[int, str] = {}
        self._suspects: dict[tuple[str, ...], dict[int, bool]] = {}

    def ended(self, stops: Sequence[tuple[str, ...]], tokens: Sequence[int], tails: Tails) -> list[int]:
        """Rows (their places in ``stops``) whose newest token completes one of their stop strings.

        Args:
            stops: each row's stop strings; none for most rows, often.
            tokens: each row's newest token.
            tails: the last ``n`` ids of a row, the newest included: ``tails(row, n)``.
        """
        rows = [
            row for row, (own, token) in enumerate(zip(stops, tokens)) if own and self.suspect(own, token)
        ]
        if not rows:
            return []
        # a character is at most 4 bytes, a token at least 1 (specials: 0; the end looks at all the text)
        texts = self._decode([tails(row, 4 * max(map(len, stops[row])) + 4) for row in rows])
        return [row for row, text in zip(rows, texts) if any(stop in text for stop in stops[row])]

    def suspect(self, stops: tuple[str, ...], token: int) -> bool:
        """Whether ``token`` may complete one of ``stops``."""
        known = self._suspects.setdefault(stops, {})
        if token not in known:
            if token not in self._pieces:
                self._pieces[token] = self._decode([[token]])[0]
            piece = self._pieces[token]
            # part of a character shows as U+FFFD; a blank at the beginning of a text may not be shown at all
            known[token] = "\ufffd" in piece or any(s[-1] in piece or s[-1] == " " for s in stops)
        return known[token]


Tails = Callable[[int, int], list[int]]


class Pauses:
    """Which tokens may end a row, so that it has to be looked at before it goes on.

    A token that may complete a stop string is known by its text, which is asked when the token first comes
    up: until then any token may.

    Args:
        vocabulary: how many tokens there are.
        eos: those that end every row.
        stops: knows tokens' texts.
        kinds: the stop strings of the rows.
    """

    def __init__(
        self, vocabulary: int, eos: Collection[int], stops: StopStrings, kinds: Iterable[tuple[str, ...]]
    ) -> None:
        self._stops, self._kinds = stops, [kind for kind in kinds if kind]
        self.mask = torch.full((vocabulary,), int(bool(self._kinds)), dtype=torch.uint8)
        """1 where a token may end a row: uint8 [V]."""
        self._known = {token for token in eos if token < vocabulary}
        self.mask[sorted(self._known)] = 1

    def learn(self, tokens: Iterable[int]) -> None:
        """Tokens that have come up: behind those that can complete no stop string, rows go on."""
        for token in set(tokens) - self._known if self._kinds else ():
            self._known.add(token)
            self.mask[token] = any(self._stops.suspect(kind, token) for kind in self._kinds)
