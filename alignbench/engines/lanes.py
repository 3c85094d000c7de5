"""A step's rows, shared among threads: one rendezvous a step, instead of one in every operation.

A step of decoding is hundreds of small operations. With several threads in each, the threads wait for one
another hundreds of times; here each has rows of its own and runs them through the whole model. What they
share is Python's lock, which torch lets go of while it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch

P = TypeVar("P")
R = TypeVar("R")

LANES = 4
"""Lanes at most whose operations are torch's: their turns at Python's lock add up."""
THREADS = 64
"""Lanes at most, whatever they do."""


class Lanes:
    """Shares work among the threads of a CPU; an accelerator has one lane.

    Args:
        device: where it is computed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool: ThreadPoolExecutor | None = None

    def share(self, sizes: Sequence[float], least: int, most: int = LANES) -> list[slice]:
        """Slices of what has these sizes, one a lane: in their order, about equal in sum, and as many as
        leave each ``least`` or more on average, but no more than ``most``."""
        ends = np.cumsum([0, *sizes])
        most = min(most, THREADS, torch.get_num_threads()) if self.device.type == "cpu" else 1
        lanes = max(1, min(most, round(float(ends[-1])) // least))
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, lanes) / lanes)
        return [slice(int(a), int(b)) for a, b in pairwise([0, *cuts, len(sizes)]) if a < b]

    def run(self, compute: Callable[[P], R], parts: Sequence[P]) -> list[R]:
        """``compute`` of each part, each in a thread of its own where there are several.

        Every thread is in inference mode and has its share of torch's threads. An error is raised when all
        have come to their end.
        """
        if len(parts) == 1:
            return [compute(parts[0])]
        threads = torch.get_num_threads()
        each = max(1, threads // len(parts))
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="lane")
        torch.set_num_threads(each)  # of this thread, and of MKL in all of them
        others = [self._pool.submit(_alone, compute, part, each) for part in parts[1:]]
        try:
            first = compute(parts[0])
        finally:
            wait(others)
            torch.set_num_threads(threads)
        return [first, *(other.result() for other in others)]


def _alone(compute: Callable[[P], R], part: P, threads: int) -> R:
    torch.set_num_threads(threads)
    with torch.inference_mode():
        return compute(part)
