"""One side of a measurement: a process that loads a model once and then does rounds of work as it is told.

The first line on stdin is a JSON object, the setup; the answer is a line with what the process holds after
loading. Each further line is {"job": FILE, "small": bool}: the work in FILE is done once (or, small, its
first requests, to warm up), and the answer has the seconds it took, what memory it took and the answers.
Standard library only: each side runs under its own Python.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

Job = dict[str, Any]
Side = Callable[[Job], Callable[[], dict[str, Any]]]
"""Prepares a job, untimed; what it returns does the job, is timed, and returns the answers."""

WARM = 4


def serve(load: Callable[[dict[str, Any]], Side], packages: list[str]) -> None:
    """Answer lines until stdin ends. What libraries print goes to stderr.

    Args:
        load: from the setup to a side that is ready.
        packages: whose versions are told.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    setup = json.loads(sys.stdin.readline())
    side = load(setup)
    loaded = memory("VmRSS")
    reset_peak()
    told = {"versions": versions(packages), "loaded": loaded, "threads": threads()}
    replies.write(json.dumps(told) + "\n")
    for line in sys.stdin:
        asked = json.loads(line)
        with open(asked["job"], encoding="utf-8") as file:
            job = json.load(file)
        if asked["small"]:
            job["requests"] = job["requests"][:WARM]
        work = side(job)
        began = time.perf_counter()
        answers = work()
        seconds = time.perf_counter() - began
        told = {"seconds": seconds, "peak": memory("VmHWM"), "loaded": loaded, **answers}
        replies.write(json.dumps(told) + "\n")


def memory(key: str) -> int | None:
    """Bytes that Linux counts for this process: VmRSS is held now, VmHWM was the most; elsewhere None."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            found = [line.split() for line in file if line.startswith(key + ":")]
    except OSError:
        return None
    return int(found[0][1]) * 1024 if found else None


def reset_peak() -> None:
    """Forget what loading took (Linux; elsewhere the peak is not known anyway)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass


def versions(packages: list[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def threads() -> int:
    import torch

    return torch.get_num_threads()
