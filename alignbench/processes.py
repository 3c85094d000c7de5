"""Processes side by side: children that die with their parent, and folders that one process writes to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from alignbench.errors import UsageError

if sys.platform != "win32":
    import fcntl

TETHER = "ALIGNBENCH_TETHER"
LOCK = ".alignbench.lock"

_held: set[Path] = set()


@contextmanager
def tethered(
    words: Sequence[str], *, log: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python -m alignbench WORDS`` as a child that outlives this process by no more than a moment, also
    where this one is killed with ``kill -9``: the child's stdin is a pipe, which the kernel then closes.

    At the end of the context a child that still runs is terminated.

    Args:
        words: the command, without ``alignbench``.
        log: file that takes the child's stdout and stderr; None: they are this process's own.
        environment: variables on top of this process's.
    """
    with _opened(log) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "alignbench", *words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {}), TETHER: "1"},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def hold_tether() -> None:
    """In a child that ``tethered`` started: end this process as soon as its parent is gone. Else nothing."""
    # taken out, so that what this process starts is not tied to a stdin of its own
    if os.environ.pop(TETHER, None):
        threading.Thread(target=_exit_at_end_of_stdin, daemon=True, name="tether").start()


def _exit_at_end_of_stdin() -> None:
    # the bare descriptor: a thread that waits in sys.stdin would hold its lock when the interpreter ends
    while os.read(0, 1024):
        pass
    os._exit(1)


@contextmanager
def folder_lock(folder: Path, work: str) -> Iterator[None]:
    """Make ``folder`` and keep other processes from working in it at the same time.

    The lock is the kernel's (``flock``), so that no killed process leaves one behind; the file with its name
    only says who holds it. Within one process it may be taken again. On a file system that knows no locks
    (and on Windows) nothing is locked.

    Args:
        folder: made where it is missing; what was named with ``--out``.
        work: what is done there, as the end of ``alignbench …``, for the other's message.

    Raises:
        UsageError: another process holds it, or the folder cannot be written.
    """
    place = folder.resolve()
    if place in _held:
        yield
        return
    file = _lock(folder)
    file.truncate(0)
    file.write(f"process {os.getpid()} (alignbench {work})")
    file.flush()
    _held.add(place)
    try:
        yield
    finally:
        _held.discard(place)
        (folder / LOCK).unlink(missing_ok=True)  # before it is let go of: nobody else's can be hit
        file.close()


def _lock(folder: Path) -> IO[str]:
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            if folder.is_file():
                raise UsageError(f"--out {folder} is a file; name a folder") from error
            raise UsageError(
                f"--out {folder} is not writable ({error.strerror}); name another folder"
            ) from error
        if not _flock(file):
            with file:
                file.seek(0)
                holder = file.read() or "another process"
            raise UsageError(
                f"--out {folder}: {holder} is working there; wait until it ends, or name another folder"
            )
        # the one before may have removed the file between our opening and locking it
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                return file
        file.close()


def _flock(file: IO[str]) -> bool:
    """Whether no other process holds the file's lock."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
    return True


@contextmanager
def _opened(log: Path | None) -> Iterator[IO[bytes] | None]:
    if log is None:
        yield None
        return
    with log.open("wb") as file:
        yield file
