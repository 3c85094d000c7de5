"""A task file as it was written: its YAML keys, with the file and line that each comes from.

``extends: other.yaml`` takes over the keys of another file of the same folder. A key of the file itself
replaces that of the extended one, a mapping or list as a whole; ``key: null`` takes it away. ``task``, the
name, is never taken over.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from alignbench.errors import UsageError

EXTENDS = "extends"
DEEPEST = 50
"""How deep lists and mappings may lie in each other."""
LARGEST = 100_000
"""How many values a file may stand for, counting what an anchor holds wherever it is named."""
MERGE = "tag:yaml.org,2002:merge"
Location = tuple[Any, ...]
"""Path of a key or list item: ``("metrics", 0, "name")``."""


@dataclass(frozen=True)
class TaskFile:
    """``keys``: the file's own and those that it takes over. ``files``: the file, then those that it extends,
    nearest first. ``owners``: top-level key → the file that it comes from."""

    path: Path
    keys: dict[str, Any]
    files: tuple[Path, ...]
    owners: dict[str, Path]

    def where(self, location: Location) -> tuple[Location, str]:
        """The nearest enclosing location that stands in a file, and ``file, line N`` of it."""
        owner = self.owners.get(location[0], self.path) if location else self.path
        lines = _lines(owner.read_text(encoding="utf-8"))
        while location and location not in lines:
            location = location[:-1]
        return location, f"{owner}, line {lines[location]}" if location else str(owner)


def read_taskfile(path: Path) -> TaskFile:
    """Read a task file and those that it extends.

    Raises:
        UsageError: unreadable, not YAML, not a mapping, or an ``extends`` that names no file of the folder
            or comes back to itself; the sentence names the file, and the line where there is one.
    """
    at, files, keys, owners = path, list[Path](), dict[str, Any](), dict[str, Path]()
    while True:
        own = _load(at)
        for key, value in own.items():
            if key not in keys and (key != "task" or at == path):
                keys[key], owners[key] = value, at
        files.append(at)
        keys.pop(EXTENDS, None)
        if EXTENDS not in own:
            return TaskFile(path, keys, tuple(files), owners)
        at = _extended(at, own[EXTENDS], files)


def _extended(at: Path, name: Any, files: list[Path]) -> Path:
    def refusal(problem: str) -> UsageError:
        line = _lines(at.read_text(encoding="utf-8"))[(EXTENDS,)]
        return UsageError(f"{at}, line {line}: {EXTENDS!r}: {problem}")

    if not isinstance(name, str) or Path(name).name != name or Path(name).suffix not in (".yaml", ".yml"):
        raise refusal(f"name a task file of the same folder, such as other.yaml, not {name!r}")
    target = at.with_name(name)
    if not target.is_file():
        raise refusal(f"{target} does not exist; name a task file of the same folder")
    if target in files:
        circle = " → ".join(file.name for file in [*files[files.index(target) :], target])
        raise refusal(f"the files extend each other in a circle ({circle}); take one of them out")
    return target


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        _check_depth(text)
        raw = yaml.load(text, Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}, line {line}: not valid YAML ({error.problem}); mend this line") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: a task file is a mapping of keys such as task, area, kind, prompt")
    return raw


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML that refuses a key given twice instead of keeping the last, a key that is a list or mapping,
    and a value that holds itself; whatever it refuses, the error has the line. Keys are text, ``yes`` too."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        _check_circles(node, (), {})
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # PyYAML's own, of a bad scalar
            reason = f"{node.value!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                _refuse("a key is a word, not a list or mapping", key)
            if key.value in seen:
                _refuse(f"key {key.value!r} twice", key)
            seen.add(key.value)
            if key.tag != MERGE:  # YAML 1.1 takes the words yes, no, on and off for truth values
                key.tag = "tag:yaml.org,2002:str"
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def _check_depth(text: str) -> None:
    """Refuse what lies too deep, by the stream of events: making nodes of it could end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            _refuse(f"lists or mappings over {DEEPEST} deep", event)


def _check_circles(node: Any, around: tuple[Any, ...], sizes: dict[int, int]) -> int:
    """Refuse a node that lies in itself (``&a [*a]``), or too deep or too large by way of anchors, each of
    which may multiply the last. Returns how many values it stands for; ``sizes``: those of nodes seen."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) in sizes:
        return sizes[id(node)]
    if any(node is outer for outer in around):
        _refuse("a value holds itself", node)
    if len(around) == DEEPEST:
        _refuse(f"lists or mappings over {DEEPEST} deep", node)
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(item,) for item in node.value]
    inner = (part for pair in pairs for part in pair)
    size = 1 + sum(_check_circles(part, (*around, node), sizes) for part in inner)
    if size > LARGEST:
        _refuse(f"over {LARGEST:,} values", node)
    sizes[id(node)] = size
    return size


def _refuse(problem: str, at: Any) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, at.start_mark)


def _lines(text: str) -> dict[Location, int]:
    """Line of each key and list item, by its path."""
    lines: dict[Location, int] = {}

    def walk(node: Any, location: Location) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines[(*location, key.value)] = key.start_mark.line + 1
                walk(value, (*location, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[(*location, index)] = value.start_mark.line + 1
                walk(value, (*location, index))

    walk(yaml.compose(text, Loader=yaml.SafeLoader), ())
    return lines
