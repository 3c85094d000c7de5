"""Data parallelism: an engine on several devices of one machine, with a process and a copy of the model for
each. Torch is not imported here; the processes do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import connection
from typing import Any

from alignbench.engines.inputs import Encodes, open_inputs
from alignbench.engines.plan import Work
from alignbench.engines.policy import Policy
from alignbench.engines.types import (
    Completion,
    Generate,
    Request,
    Reward,
    Rewarded,
    Score,
    Scored,
)
from alignbench.errors import AlignbenchError, UsageError, WorkError

CHUNKS = 4
"""Stretches of the sorted requests that each process gets: more of them even out what a request really costs,
fewer let more requests share what their texts begin with."""
CHARACTERS = 4
"""Characters that a token of text has, about."""
Load = Callable[[Policy, int | None, int], Any]


def devices_of(policy: Policy) -> list[str]:
    """The devices that a policy's option names, separated by commas; ``cuda:all`` are all CUDA GPUs. Without
    the option none: the engine chooses one.

    Raises:
        UsageError: nothing between two commas, or no CUDA GPU for ``cuda:all``.
    """
    named = policy.options.get("device", "")
    if named == "cuda:all":
        import torch

        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        if not devices:
            raise UsageError(f"policy {policy.spec!r}: device=cuda:all, but no CUDA GPU is here")
        return devices
    devices = [device.strip() for device in named.split(",")] if named else []
    if not all(devices):
        raise UsageError(f"policy {policy.spec!r}: device={named} names no device next to a comma")
    return devices


class ParallelEngine(Encodes):
    """Generate, score and reward on several devices at once. The answers, and the place in the ledger, are
    those of one device, but for what another batch plan changes.

    Which process gets a request is fixed by the whole set of requests, so that the same set on the same
    devices gives the same bytes. The processes end with this object, and with this process however it ends.

    Args:
        policy: that weights are loaded for.
        devices: torch's names of them, one a process. A CPU may be named several times: its threads are
            divided.
        batch_tokens: tokens that a batch may hold, on each device.
        load: makes a process's engine, of the policy with its ``device``, ``batch_tokens`` and the number
            of processes that share the CPU; that of the engine ``hf`` by default.

    Raises:
        UsageError: the policy cannot be loaded, or a device cannot be used.
        WorkError: a process ended, or the devices do not answer alike (by the dtype that fits each).
    """

    def __init__(
        self,
        policy: Policy,
        devices: Sequence[str],
        *,
        batch_tokens: int | None = None,
        load: Load | None = None,
    ) -> None:
        self._load = load or _load
        self.policy, self.devices, self._batch_tokens = policy, tuple(devices), batch_tokens
        self._workers: list[_Worker] = []
        self._done: dict[connection.Connection, Work] = {}
        weakref.finalize(self, _end, self._workers)
        self._identity, self._described = self._start()

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON-able parts of the ledger key; the devices are none of them."""
        return self._identity

    def describe(self) -> Mapping[str, Any]:
        """See ``Engine.describe``."""
        return self._described

    @property
    def work(self) -> Work:
        """What the processes have computed, together."""
        return sum(self._done.values(), Work())

    @cached_property
    def inputs(self) -> Any:
        """How requests become token ids, as ``HFEngine.inputs``."""
        return open_inputs(self.policy)[0]

    def generate(
        self, requests: Sequence[Generate], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        """See ``Engine.generate``. Batches come as the devices finish them."""
        return self._run("generate", requests, held)

    def score(
        self, requests: Sequence[Score], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Scored]]]:
        """See ``Engine.score``. Batches come as the devices finish them."""
        return self._run("score", requests, held)

    def reward(
        self, requests: Sequence[Reward], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Rewarded]]]:
        """See ``Engine.reward``. Batches come as the devices finish them."""
        return self._run("reward", requests, held)

    # ---- inside

    def _run(
        self, verb: str, requests: Sequence[Request], held: Collection[int]
    ) -> Iterator[list[tuple[int, Any]]]:
        if not self._workers:  # an error, or a caller that stopped asking, ended them
            self._start()
        done = frozenset(held)
        places: dict[connection.Connection, list[int]] = {}
        finished = False
        try:
            for worker, mine in zip(self._workers, assign(requests, len(self._workers))):
                local = [k for k, i in enumerate(mine) if i in done]
                if len(local) < len(mine):
                    try:
                        worker.pipe.send((verb, [requests[i] for i in mine], local))
                    except OSError:  # it ended since it last answered: hearing from it says so
                        self._hear(worker.pipe)
                    places[worker.pipe] = mine
            while places:
                for pipe in connection.wait(list(places)):
                    assert isinstance(pipe, connection.Connection)
                    batch = self._hear(pipe)
                    if isinstance(batch, Work):
                        self._done[pipe] = batch
                        del places[pipe]
                    else:
                        yield [(places[pipe][k], result) for k, result in batch]
            finished = True
        finally:
            if not finished:  # they would go on with what nobody waits for
                _end(self._workers)

    def _start(self) -> tuple[dict[str, Any], dict[str, Any]]:
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads and locks
        sharers = sum(device.startswith("cpu") for device in self.devices)
        for device in self.devices:
            ours, theirs = context.Pipe()
            policy = replace(self.policy, options={**self.policy.options, "device": device})
            arguments = (theirs, policy, self._batch_tokens, sharers, self._load)
            process = context.Process(target=_work, args=arguments, daemon=True, name=f"engine on {device}")
            process.start()
            theirs.close()  # so that the end of the process is the end of the pipe
            self._workers.append(_Worker(device, process, ours))
        try:
            first: tuple[dict[str, Any], dict[str, Any]] = self._hear(self._workers[0].pipe)
            if any(self._hear(worker.pipe) != first for worker in self._workers[1:]):
                raise WorkError(
                    f"policy {self.policy.spec!r} loads differently on {', '.join(self.devices)}; "
                    "name a dtype (dtype=float32), or devices of one kind"
                )
        except BaseException:
            _end(self._workers)
            raise
        return first

    def _hear(self, pipe: connection.Connection) -> Any:
        """What a process says next.

        Raises:
            AlignbenchError: its error.
        """
        try:
            said = pipe.recv()
        except (EOFError, ConnectionError) as error:
            worker = next(worker for worker in self._workers if worker.pipe is pipe)
            worker.process.join()
            raise WorkError(
                f"the process on the device {worker.device} ended unexpectedly (exit status "
                f"{worker.process.exitcode}); where memory ran out, name fewer devices"
            ) from error
        try:
            if isinstance(said, AlignbenchError):
                raise said
            return said
        finally:
            del said  # a frame that holds its own error would keep this object, and the processes, alive


@dataclass(frozen=True)
class _Worker:
    device: str
    process: Any
    pipe: connection.Connection


def assign(requests: Sequence[Request], n: int) -> list[list[int]]:
    """Which requests each of ``n`` processes gets, as indices.

    They are sorted by their text and cut into ``CHUNKS`` stretches a process, of about equal cost in
    characters, dealt out in turn: what begins alike stays together. Requests with the same context or prompt
    are not parted, unless they are worth more than a stretch.
    """
    texts = [_texts(request) for request in requests]
    order = sorted(range(len(requests)), key=lambda i: texts[i])
    costs = [len("".join(texts[i])) + CHARACTERS * _tokens(request) for i, request in enumerate(requests)]
    stretch = sum(costs) / (n * CHUNKS)
    shards: list[list[int]] = [[] for _ in range(n)]
    spent = begun = 0
    shared = None
    for i in order:
        if texts[i][0] != shared or spent - begun >= stretch:
            shared, begun = texts[i][0], spent
        shards[int(begun / stretch) % n].append(i)
        spent += costs[i]
    return [sorted(shard) for shard in shards]


def _texts(request: Request) -> tuple[str, str]:
    """What requests may have in common, and what is each one's own."""
    if isinstance(request, Score):
        return request.context, request.continuation
    return request.prompt, request.response if isinstance(request, Reward) else ""


def _tokens(request: Request) -> int:
    """Tokens that a request costs besides its text's; at least one, as no request is free."""
    return request.sampling.max_tokens if isinstance(request, Generate) else 1


def _end(workers: list[_Worker]) -> None:
    """End the processes, also in the middle of their work, and forget them."""
    for worker in workers:
        worker.process.terminate()
        worker.pipe.close()
    for worker in workers:
        worker.process.join()
    workers.clear()


# ---- in the process of one device


def _work(
    pipe: connection.Connection, policy: Policy, batch_tokens: int | None, sharers: int, load: Load
) -> None:
    """Answer what the parent sends: identity and description at first, then for each call the batches and
    what has been computed so far. An error is sent and ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its processes
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):  # the parent let go
        try:
            engine = load(policy, batch_tokens, sharers)
            pipe.send((dict(engine.identity), dict(engine.describe())))
            while True:
                verb, requests, held = pipe.recv()
                for batch in getattr(engine, verb)(requests, held=held):
                    pipe.send(batch)
                pipe.send(engine.work)
        except AlignbenchError as error:
            pipe.send(error)
        except (EOFError, ConnectionError):
            raise
        except Exception as error:
            device = policy.options["device"]
            reason = (str(error).strip().splitlines() or ["no words"])[0][:300]
            pipe.send(WorkError(f"on the device {device}: {type(error).__name__}: {reason}"))


def _load(policy: Policy, batch_tokens: int | None, sharers: int) -> Any:
    import torch

    from alignbench.engines.weights import load_policy

    if policy.options["device"].startswith("cpu"):
        torch.set_num_threads(max(1, torch.get_num_threads() // sharers))
    return load_policy(policy, batch_tokens=batch_tokens)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
