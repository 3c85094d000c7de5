"""Local data: files of a folder by split, and the look-up of a name in a mirror."""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from pathlib import Path

from alignbench.errors import UsageError
from alignbench.sources.files import FORMATS, format_of

ALIAS_FILE = "alignbench.yaml"
SPLITS = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}


def locate(
    name: str,
    *,
    split: str | None = None,
    config: str | None = None,
    mirror: Path | None = None,
    files: Sequence[str] = (),
    looked: list[str] | None = None,
) -> list[Path]:
    """Return the local files that ``name`` means, or an empty list; the places tried go into ``looked``."""
    looked = [] if looked is None else looked
    _refuse_escapes(files)
    if not name:
        raise UsageError("data: an empty name; give a file, a folder or the name of a data set")
    path = Path(os.path.expanduser(name))
    if os.path.exists(path):  # unlike Path.exists, False where the name can be no path
        return _pick(path, split, config, files) or _nothing_in(path, files)
    looked.append(f"path {name}")
    if mirror is None:
        return []
    if not mirror.is_dir():
        raise UsageError(f"the data folder {mirror} does not exist; give an existing one with --data DIR")
    for place in _places(mirror, name):
        looked.append(str(place))
        if os.path.exists(place) and (hits := _pick(place, split, config, files)):
            return hits
    if aliased := _aliased(mirror, name):
        return aliased
    looked.append(f"{mirror / ALIAS_FILE}")
    for place in _alike(mirror, name):
        if hits := _pick(place, split, config, files):
            return hits
    looked.append(f"a folder like {name.rsplit('/', 1)[-1]} in {mirror}")
    return _first_glob(mirror, files)


def _pick(place: Path, split: str | None, config: str | None, files: Sequence[str]) -> list[Path]:
    """The files of ``place`` (a file or a folder) that are asked for."""
    if place.is_file():
        return [place]
    if files and (hits := _first_glob(place, files)):
        return hits
    if files and not config:
        return []
    every = sorted(path for path in place.rglob("*") if path.is_file() and format_of(path) is not None)
    if config and config != "default":  # the hub's name for the only one, which no folder bears
        every = [path for path in every if _same(config, str(path.relative_to(place)))]
    return _of_split(every, split, place)


def _same(config: str, relative: str) -> bool:
    parts = relative.split("/")
    stem = parts.pop().split(".", 1)[0]
    wanted = _plain(config)
    return any(_plain(part) == wanted for part in parts) or f"_{wanted}_" in f"_{_plain(stem)}_"


def _of_split(paths: list[Path], split: str | None, place: Path) -> list[Path]:
    by_split: dict[str | None, list[Path]] = {}
    for path in paths:
        by_split.setdefault(_split_of(path.relative_to(place)), []).append(path)
    known = sorted(name for name in by_split if name is not None)
    if not known:
        return paths
    if split is None:
        split = known[0] if len(known) == 1 else "train"
        beside = {format_of(path) for path in by_split.get(None, ())}
        if split != "train" and not beside.isdisjoint(map(format_of, by_split[split])):
            raise UsageError(
                f"{place} holds {split} data beside files of no split; name a file, or the split {split}"
            )
    wanted = SPLITS.get(split, split)
    if wanted not in by_split:
        raise UsageError(f"{place} has no split {split!r}; it has {', '.join(known)}")
    return by_split[wanted]


def _split_of(relative: Path) -> str | None:
    """``harmless-base_test.jsonl`` → ``test``; the file's own name is asked before its folders'."""
    for part in reversed(relative.parts):
        words = re.split(r"[^a-z]+", part.lower())
        if hits := [SPLITS[word] for word in words if word in SPLITS]:
            return hits[-1]
    return None


def _first_glob(place: Path, files: Sequence[str]) -> list[Path]:
    for pattern in files:
        if hits := sorted(path for path in place.glob(pattern) if path.is_file()):
            return hits
    return []


def _refuse_escapes(files: Sequence[str]) -> None:
    for pattern in files:
        parts = Path(pattern).parts
        if not parts or any("**" in part and part != "**" for part in parts):
            raise UsageError(
                f"the file pattern {pattern!r} is none; write one such as '*.jsonl' or '**/*.csv'"
            )
        if Path(pattern).is_absolute() or ".." in parts:
            raise UsageError(
                f"the file pattern {pattern!r} leaves its folder; write it relative, without '..'"
            )


def _nothing_in(path: Path, files: Sequence[str]) -> list[Path]:
    wanted = ", ".join(files) or ", ".join(FORMATS)
    raise UsageError(f"{path} holds no file that matches {wanted}; name a file")


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _places(mirror: Path, name: str) -> list[Path]:
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        return []
    return [mirror / name]


def _aliased(mirror: Path, name: str) -> list[Path]:
    path = mirror / ALIAS_FILE
    if not path.is_file():
        return []
    import yaml

    try:
        aliases = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is no valid YAML ({reason}); mend or remove it") from error
    if not isinstance(aliases, dict):
        raise UsageError(f"{path}: expected lines of the form 'data-set name: file or glob'")
    for alias, value in aliases.items():
        if _plain(str(alias)) != _plain(name):
            continue
        patterns = [value] if isinstance(value, str) else value
        if not isinstance(patterns, list) or not all(isinstance(item, str) for item in patterns):
            raise UsageError(f"{path}: {alias!r} must name a file, a glob or a list of them")
        _refuse_escapes(patterns)
        hits = sorted({hit for pattern in patterns for hit in mirror.glob(pattern) if hit.is_file()})
        return hits or _nothing_in(mirror, patterns)
    return []


def _alike(mirror: Path, name: str) -> list[Path]:
    wanted = {_plain(name), _plain(name.rsplit("/", 1)[-1])}
    return [place for place in sorted(mirror.iterdir()) if _plain(place.name.split(".", 1)[0]) in wanted]
