"""native.c as a library: compiled once for this processor with the machine's own C compiler, and kept.

Where there is no compiler, or what it makes cannot be loaded, there is no library, and everything is computed
with torch. ``ALIGNBENCH_NATIVE`` is the folder that it is kept in (else one in the workspace), or 0: there
shall be none.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from ctypes import POINTER, c_float, c_int64, c_void_p
from functools import cache
from pathlib import Path

from alignbench.workspace import default_workspace

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("native.c")
COMPILERS = ("cc", "gcc", "clang")
FOR_THIS_PROCESSOR = (("-march=native",), ("-mcpu=native",), ())
"""Compilers differ in how they are told; without, the code is slow but right."""
OPTIMISED = ("-O3", "-std=gnu11", "-shared", "-fPIC")
SECONDS = 120


class CLinear(ctypes.Structure):
    _fields_ = [
        ("matrix", c_void_p),
        ("bias", c_void_p),
        *((name, c_int64) for name in ("inputs", "outputs", "halves")),
    ]


class CNorm(ctypes.Structure):
    _fields_ = [("weight", c_void_p), ("bias", c_void_p)]


class CLayer(ctypes.Structure):
    _fields_ = [
        *((name, CNorm) for name in ("before", "behind", "query", "key")),
        *((name, CLinear) for name in ("qkv", "out", "up", "down")),
        ("window", c_int64),
        ("scale", c_float),
    ]


class CModel(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("layers", "width", "heads", "groups", "size", "inner", "vocabulary")),
        ("gated", c_int64),
        ("epsilon", c_float),
        ("scale", c_float),
        *((name, c_void_p) for name in ("embedding", "positions", "cosine", "sine")),
        ("layer", POINTER(CLayer)),
        ("last", CNorm),
        ("head", CLinear),
    ]


class CCache(ctypes.Structure):
    _fields_ = [
        *((name, POINTER(c_void_p)) for name in ("keys", "values", "common_keys", "common_values")),
        ("capacity", c_int64),
        ("common", c_int64),
    ]


class CRows(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("column", "step", "row", "limit", "tokens", "raw", "sampled")),
        *((name, c_void_p) for name in ("temperature", "top_k", "top_p", "uniform", "pause")),
        *((name, c_int64) for name in ("longest", "draws", "any_sampled")),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library, or None where there is none; asked once a process."""
    found, reason = _opened()
    if found is None and os.environ.get("ALIGNBENCH_NATIVE") != "0":
        log.warning("alignbench: decoding is not compiled here and takes several times as long: %s", reason)
    return found


def why_not() -> str | None:
    """Why there is no library, in a few words; None where there is one. It is tried anew."""
    return _opened()[1]


def compiler() -> list[str] | None:
    """The C compiler's command: ``CC``, else the first compiler that is found; None where there is none."""
    asked = shlex.split(os.environ.get("CC", ""))
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    return asked or ([found] if found else None)


def _opened() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or why there is none."""
    if os.environ.get("ALIGNBENCH_NATIVE") == "0":
        return None, "turned off by ALIGNBENCH_NATIVE=0"
    try:
        return _declared(ctypes.CDLL(str(_built()))), None
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        return None, " ".join(str(error).split())


def _declared(lib: ctypes.CDLL) -> ctypes.CDLL:
    model, kept, rows = POINTER(CModel), POINTER(CCache), POINTER(CRows)
    lib.decode.argtypes = [model, kept, rows, c_int64, c_int64, c_int64, c_int64, c_void_p]
    lib.scratch_floats.argtypes = [model, kept, c_int64, c_int64]
    for function in (lib.lay_panels, lib.lay_halves):
        function.argtypes = [c_void_p, c_int64, c_int64, c_int64, c_int64, c_void_p]
        function.restype = None
    lib.turn_keys.argtypes = [c_void_p, c_int64, c_int64, c_int64, c_int64, c_void_p]
    lib.turn_keys.restype = None
    for function in (
        lib.decode,
        lib.scratch_floats,
        lib.panel_columns,
        lib.vector_floats,
        lib.multiplies_halves,
    ):
        function.restype = c_int64
    return lib


def _built() -> Path:
    """The library's file, made where it is not there yet.

    Raises:
        OSError: no compiler, or nowhere to keep what it makes.
        SubprocessError: it does not compile the source.
    """
    command = compiler()
    if not command:
        raise OSError(f"no C compiler ({', '.join(COMPILERS)}) is installed")
    folder = _folder()
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    place = folder / f"decode-{_digest(command)}{suffix}"
    if not _whole(place):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            draft = Path(scratch) / place.name
            _compile(command, draft)
            # its digest first: a library without one, or of another, is made again
            _note(place).write_text(hashlib.sha256(draft.read_bytes()).hexdigest(), encoding="ascii")
            draft.replace(place)
    return place


def _folder() -> Path:
    """Where libraries are kept: what is loaded from it must be the user's own.

    Raises:
        OSError: it cannot be made, or is another user's.
    """
    asked = os.environ.get("ALIGNBENCH_NATIVE")
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(asked).expanduser() if asked else default_workspace() / "native" / str(user)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(os, "getuid") and folder.stat().st_uid not in (user, 0):
        raise OSError(f"the folder {folder} is another user's; name one of your own in ALIGNBENCH_NATIVE")
    return folder


def _note(place: Path) -> Path:
    return place.with_suffix(".sha256")


def _whole(place: Path) -> bool:
    """Whether a library is there, as it was written: a cut one would end the process when it is run."""
    try:
        noted = _note(place).read_text(encoding="ascii")
        return hashlib.sha256(place.read_bytes()).hexdigest() == noted
    except (OSError, UnicodeDecodeError):
        return False


def _compile(compiler: Sequence[str], target: Path) -> None:
    for flags in FOR_THIS_PROCESSOR:
        command = [*compiler, *OPTIMISED, *flags, "-o", str(target), str(SOURCE), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode == 0:
            return
    said = done.stderr.strip()[-500:] or f"status {done.returncode}"
    raise subprocess.SubprocessError(f"{' '.join(compiler)} does not compile it: {said}")


def _digest(compiler: Sequence[str]) -> str:
    """What the library depends on: a workspace may be shared by machines with different processors."""
    seen = hashlib.sha256(SOURCE.read_bytes())
    how = " ".join((*compiler, *OPTIMISED, *sum(FOR_THIS_PROCESSOR, ())))
    for each in (how, platform.machine(), platform.processor(), processor_flags() or platform.node()):
        seen.update(b"\0" + each.encode())
    return seen.hexdigest()[:16]


def processor_flags() -> str:
    """What the processor can do, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
