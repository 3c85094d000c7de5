"""Python functions in a file beside a task file. They are code that runs; a stranger's is announced once."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from alignbench.errors import UsageError, nearest


def function(reference: str, task_file: Path, *, trusted: bool) -> Callable[..., Any]:
    """Return the function of ``"file.py:function"``, the file lying beside ``task_file``.

    Args:
        trusted: part of alignbench itself; any other file is named on stderr when it is first run.

    Raises:
        UsageError: no such file or function, or the file fails when it is run.
    """
    file, _, name = reference.partition(":")
    path = (task_file.parent / file).resolve()
    if not path.is_file():
        raise UsageError(f"{task_file}: {reference!r} names no file; put {file} beside the task file")
    module = _module(path, trusted)
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(f"{task_file}: {file} has no function {name!r}{nearest(name, known)}")
    return found  # type: ignore[no-any-return]


@cache
def _module(path: Path, trusted: bool) -> ModuleType:
    if not trusted:
        print(f"alignbench: running {path}, which is code beside a task file", file=sys.stderr)
    name = f"alignbench_task_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(f"{path} fails when it is run ({type(error).__name__}: {error}); mend it") from error
    return module
