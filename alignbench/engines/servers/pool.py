"""Many requests at once, a few threads wide; answers come as they arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from alignbench.engines.servers.client import Failed
from alignbench.errors import WorkError

T = TypeVar("T")
_Outcome = tuple[int, T] | BaseException | None
"""An answer with its index, what went wrong, or None: a thread has ended."""


def ask_all(
    indices: Sequence[int],
    ask: Callable[[int], T],
    *,
    width: int,
    closing: threading.Event,
) -> Iterator[list[tuple[int, T]]]:
    """``ask(index)`` for every index, ``width`` at once; lists of answers as they arrive.

    The first request that fails for good ends the sending; those under way are waited for, and their answers
    yielded, before the error is raised. So it is when the person at the terminal interrupts, but that what is
    under way is not waited for. The threads are daemons: none keeps the process from ending.

    Args:
        closing: set when no more is to be sent; ``ask`` should then not try again.

    Raises:
        WorkError: requests failed; it says how many, why the first did, and what becomes of the rest.
    """
    left, lock, over = iter(indices), threading.Lock(), threading.Event()
    outcomes: SimpleQueue[_Outcome[T]] = SimpleQueue()

    def work() -> None:
        while True:
            with lock:
                index = None if over.is_set() or closing.is_set() else next(left, None)
            if index is None:
                break
            try:
                outcomes.put((index, ask(index)))
            except BaseException as error:  # of any kind: the caller's thread raises it
                closing.set()
                outcomes.put(error)
        outcomes.put(None)

    closing.clear()
    running = min(width, len(indices))
    for _ in range(running):
        threading.Thread(target=work, daemon=True).start()
    answered, failed = 0, list[BaseException]()
    try:
        while running:
            interrupted, batch = None, list[tuple[int, T]]()
            try:
                arrived = [outcomes.get()]
            except KeyboardInterrupt as error:
                closing.set()
                interrupted, arrived = error, []
            arrived += _drain(outcomes)
            for outcome in arrived:
                if outcome is None:
                    running -= 1
                elif isinstance(outcome, BaseException):
                    failed.append(outcome)
                else:
                    batch.append(outcome)
            answered += len(batch)
            if batch:
                yield batch
            if interrupted is not None:
                raise interrupted
    finally:
        over.set()  # ``closing`` may be cleared for another call while a thread of this one still waits
        closing.set()
    if failed:
        raise _failure(failed, answered, len(indices))


def _drain(outcomes: SimpleQueue[_Outcome[T]]) -> list[_Outcome[T]]:
    """All that has arrived, without waiting."""
    found: list[_Outcome[T]] = []
    while True:
        try:
            found.append(outcomes.get_nowait())
        except Empty:
            return found


def _failure(failed: list[BaseException], answered: int, n: int) -> BaseException:
    """One sentence; an error that is none of a server's as it is."""
    other = next((error for error in failed if not isinstance(error, Failed)), None)
    if other is not None:
        return other
    unsent = n - answered - len(failed)
    rest = f", {unsent:,} were not sent" if unsent else ""
    kept = f"; the {answered:,} that were answered are kept" if answered else ""
    return WorkError(
        f"{len(failed):,} of {n:,} requests failed{rest}{kept}; {failed[0]}; "
        "once that is mended, the same command asks only for the rest (without --fresh)"
    )
