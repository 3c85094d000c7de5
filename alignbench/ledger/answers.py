"""Look up what is held, compute the rest batch by batch, and commit each batch before the next is begun."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from alignbench.errors import WorkError
from alignbench.ledger.store import Ledger
from alignbench.progress import Advance

R = TypeVar("R")
POLL_SECONDS = 0.5


def answer(
    ledger: Ledger,
    kind: str,
    keys: Sequence[str],
    run: Callable[[frozenset[int]], Iterator[list[tuple[int, R]]]],
    *,
    encode: Callable[[R], Mapping[str, Any]],
    decode: Callable[[dict[str, Any]], R],
    keep: Callable[[R], bool] = lambda result: True,
    fresh: bool = False,
    on_done: Advance | None = None,
) -> list[R]:
    """Answers to requests, from the ledger or computed and kept.

    Of equal keys only the first is computed. What another process is computing is waited for, and computed
    here if that process dies.

    Args:
        ledger: where answers are kept.
        kind: the ledger's kind of these keys.
        keys: content key of each request.
        run: ``run(held)`` yields lists of ``(index, result)`` for at least the indices that are not in
            ``held``; an engine's verb with its requests.
        encode: result → JSON-able payload.
        decode: payload → result. What is returned went through both, held or new.
        keep: a result of which this is False answers its request in this call only: it is not encoded, and
            the request is asked again the next time.
        fresh: compute everything again and replace what is held.
        on_done: told how many of the requests have been answered.

    Returns:
        One result a key, in order.

    Raises:
        WorkError: ``run`` left a request unanswered.
    """
    copies = Counter(keys)
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    payloads: dict[str, dict[str, Any]] = {}
    passing: dict[str, R] = {}

    def gain(found: Mapping[str, dict[str, Any]]) -> None:
        payloads.update(found)
        if on_done is not None and found:
            on_done(sum(copies[key] for key in found))

    def compute(mine: set[str]) -> None:
        held = frozenset(i for i, key in enumerate(keys) if key not in mine or first[key] != i)
        try:
            for batch in run(held):
                new = {keys[i]: result for i, result in batch if i not in held}
                rows = {key: dict(encode(result)) for key, result in new.items() if keep(result)}
                passing.update((key, result) for key, result in new.items() if key not in rows)
                ledger.put(kind, rows)
                gain(rows)
                if on_done is not None and len(rows) < len(new):
                    on_done(sum(copies[key] for key in new if key not in rows))
        finally:
            ledger.release(kind, mine)
        if without := mine - payloads.keys() - passing.keys():
            raise WorkError(f"{len(without)} of {len(mine)} requests ({kind}) got no answer")

    if fresh:
        compute(set(copies))
    else:
        gain(ledger.get(kind, copies))
    while missing := [key for key in copies if key not in payloads and key not in passing]:
        mine = ledger.claim(kind, missing)
        if mine:
            compute(mine)
        else:
            time.sleep(POLL_SECONDS)
        gain(ledger.get(kind, (key for key in missing if key not in payloads)))
    return [passing[key] if key in passing else decode(payloads[key]) for key in keys]
