"""A first task of one's own: a commented task file and a few invented rows, which run at once."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import get_args

from alignbench.errors import UsageError, WorkError
from alignbench.tasks.registry import look
from alignbench.tasks.types import Kind

KINDS: tuple[str, ...] = get_args(Kind)


def write_starter(name: str, kind: str, folder: Path) -> list[Path]:
    """Write ``NAME.yaml`` and ``NAME.jsonl`` into ``folder``, which is made where it is not there.

    Returns:
        The two files, the task file first.

    Raises:
        UsageError: a name that no task may have, that is taken, or whose files are there already.
        WorkError: the folder cannot be written.
    """
    if re.fullmatch(r"[\w.-]+", name) is None or name.startswith(("-", ".")):
        raise UsageError(f"the task name {name!r} is none; write letters, digits and . _ - only")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--dir {folder} is a file; name a folder")
    paths = [folder / f"{name}{suffix}" for suffix in (".yaml", ".jsonl")]
    for path in paths:
        if path.exists():
            raise UsageError(f"{path} is there already, and is left as it is; choose another name, or --dir")
    taken = next((e for e in look([folder] if folder.is_dir() else []).entries if e.name == name), None)
    if taken is not None:
        raise UsageError(f"the task name {name!r} is that of {taken.path}; choose another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            text = files("alignbench.tasks").joinpath("starters", f"{kind}{path.suffix}").read_text("utf-8")
            path.write_text(text.replace("NAME", name), encoding="utf-8")
    except OSError as error:
        raise WorkError(
            f"{folder} cannot be written ({error.strerror}); name another folder with --dir"
        ) from None
    return paths
