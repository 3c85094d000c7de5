"""Sides in processes of their own, asked in turns; and what the turns say."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

PEERS = Path(__file__).resolve().parent / "peers"

Reply = dict[str, Any]


@dataclass(frozen=True)
class Seat:
    """Who takes part: a name, the Python that it runs under, its script in ``peers/``, and how its OpenMP
    threads wait for one another (None: as the library has it, which is to spin for a while)."""

    name: str
    python: str
    script: str
    waits: str | None = None


class Worker:
    """A side's process. It loads while others are started; ``ready`` waits for it.

    Args:
        seat: who.
        setup: model, dtype, device and budget, as ``peers/serve.py`` hands them on.
        scratch: where its log and workspace go.
        threads: for matrix products, the same for every side.
    """

    def __init__(self, seat: Seat, setup: dict[str, Any], scratch: Path, threads: int) -> None:
        self.name = seat.name
        self._log = scratch / f"{seat.name}.log"
        environment = {
            **{key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"},
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "true",
            "HF_HUB_OFFLINE": "1",
            "ALIGNBENCH_HOME": str(scratch / "home"),
            # vLLM's build for processors: keys and values in GiB, no second process, every core
            "VLLM_CPU_KVCACHE_SPACE": "4",
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(scratch / "vllm"),
        }
        if seat.waits:
            environment["OMP_WAIT_POLICY"] = seat.waits
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [seat.python, str(PEERS / seat.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self._tell(setup)

    def ready(self) -> Reply:
        """Versions, threads and what is held after loading (bytes)."""
        return self._hear()

    def round(self, job: Path, *, small: bool = False) -> Reply:
        """Do the job once; ``small``: only its first requests, to warm up.

        Raises:
            SystemExit: the side has died; its last lines are told.
        """
        self._tell({"job": str(job), "small": small})
        return self._hear()

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._died()

    def _hear(self) -> Reply:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._died()
        reply: Reply = json.loads(line)
        return reply

    def _died(self) -> None:
        last = "\n".join(self._log.read_text(encoding="utf-8").splitlines()[-8:])
        raise SystemExit(f"the side {self.name} has ended; the end of {self._log}:\n{last}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def spread_of(values: Sequence[float]) -> dict[str, float]:
    """Median with the least and the most; of five independent values these two hold the true median with
    probability 1 − 2·2⁻⁵ = 0.94."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times faster ours is: the ratio of the two turns of each round, which find the machine alike.

    Args:
        theirs: seconds (or seconds a token), round by round.
        ours: likewise, as many.
    """
    return spread_of([a / b for a, b in zip(theirs, ours, strict=True)])


def agreement(ours: Reply, theirs: Reply) -> dict[str, float]:
    """How far the answers are the same: the largest difference of a log-probability in nats, or the share of
    equal texts."""
    if "logprobs" in ours:
        pairs = zip(ours["logprobs"], theirs["logprobs"], strict=True)
        return {"largest_difference": max(abs(a - b) for a, b in pairs)}
    pairs = zip(ours["texts"], theirs["texts"], strict=True)
    return {"equal_texts": statistics.mean(a == b for a, b in pairs)}


def seconds_of_work(reply: Reply, *, per_token: bool) -> float:
    """Seconds, or seconds for each token that was produced."""
    seconds: float = reply["seconds"]
    return seconds / reply["tokens"] if per_token else seconds
