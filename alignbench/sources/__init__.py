"""Where rows come from: a local file or folder, a local mirror of data sets, or the Hugging Face hub.

A *source* is a path or the name of a data set. A name is looked up in this order, and the first hit counts:

1. an existing path;
2. the mirror: ``DIR/ORG/NAME``, then the alias file ``DIR/alignbench.yaml``, then the folder or file in
   ``DIR`` whose name is the same but for case and ``-``/``_`` (also by the last part of ``ORG/NAME``);
3. the hub, by ``datasets.load_dataset``.

``files`` are globs within the data set's folder, alternatives in order of preference: the first that matches
anything is read, all its matches one after the other. In a mirror they are also tried from ``DIR`` itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from alignbench.errors import DataAbsentError, UsageError, nearest
from alignbench.sources.files import Row, format_of, read_rows
from alignbench.sources.mirror import locate

__all__ = ["load_rows", "locate", "read_rows"]


def load_rows(
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    mirror: Path | None = None,
    files: Sequence[str] = (),
) -> list[Row]:
    """Load all rows of ``source`` as dictionaries, in file order.

    Args:
        source: a file, a folder, or the name of a data set.
        split: which split of a folder or hub data set; the default is the only one, else ``train``. In a
            folder a file belongs to a split when a part of its name says so (``x_test.jsonl``).
        config: the hub's configuration; in a folder, a subfolder's or file's name.
        revision: hub revision (branch, tag, commit).
        mirror: folder that is looked up before the hub; default the variable ``ALIGNBENCH_DATA``.
        files: globs within the data set's folder, before ``config`` and ``split`` and in their place. On the
            hub, and in a folder where none matches, ``config`` and ``split`` count where they are given.

    Raises:
        DataAbsentError: nothing found.
        UsageError: no rows, an unknown format or an unreadable file.
    """
    name = os.fspath(source)
    if mirror is None and os.environ.get("ALIGNBENCH_DATA"):
        mirror = Path(os.environ["ALIGNBENCH_DATA"])
    looked: list[str] = []
    found = locate(name, split=split, config=config, mirror=mirror, files=files, looked=looked)
    rows = _read_all(found) if found else _from_hub(name, split, config, revision, files, looked, mirror)
    if not rows:
        raise UsageError(f"data {name!r} holds no rows; choose another file or split")
    return rows


def _read_all(paths: Sequence[Path]) -> list[Row]:
    tables = [read_rows(path) for path in paths]
    columns = [set(table[0]) for table in tables]
    for path, found in zip(paths, columns, strict=True):
        if found != columns[0]:
            raise UsageError(
                f"{paths[0]} and {path} have different columns and are no one data set; name one of the files"
            )
    return [row for table in tables for row in table]


def _from_hub(
    name: str,
    split: str | None,
    config: str | None,
    revision: str | None,
    files: Sequence[str],
    looked: Sequence[str],
    mirror: Path | None,
) -> list[Row]:
    places = ", ".join(looked)
    mend = (
        "give the folder that holds it with --data DIR" if mirror is None else "check the name and the folder"
    )
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or format_of(Path(name)) is not None:
        near = nearest(Path(name).name, _siblings(Path(name)))
        raise DataAbsentError(f"data {name!r} not found{near}; looked up: {places}; {mend}")
    from alignbench.sources.hub import hub_rows

    try:
        return hub_rows(name, split, config, revision, files)
    except LookupError as error:
        raise DataAbsentError(
            f"data {name!r} not found; looked up: {places}, the hub ({error}); {mend}"
        ) from error


def _siblings(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
