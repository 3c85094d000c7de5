"""What is wrong with a file's keys, one sentence each: what, in which file and line, and the mend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from alignbench.errors import nearest
from alignbench.tasks.taskfile import Location, TaskFile

Misfit = tuple[Location, str]
"""Where a problem lies, and what it is."""
M = TypeVar("M", bound=BaseModel)


def _quoted(detail: Any) -> str:
    """YAML reads ``true``, ``no`` and ``3`` as no text, where they are bare."""
    bare = isinstance(detail["input"], bool | int | float)
    return "write text in quotes" if bare else "write text"


_EXPECTED: dict[str, Callable[[Any], str]] = {
    "string_type": _quoted,
    "bool_type": lambda detail: "write true or false",
    "bool_parsing": lambda detail: "write true or false",
    "tuple_type": lambda detail: "write a list",
    "dict_type": lambda detail: "write a mapping of keys",
    "model_type": lambda detail: "write a mapping of keys",
    "model_attributes_type": lambda detail: "write a mapping of keys",
    "float_type": lambda detail: "write a number",
    "float_parsing": lambda detail: "write a number",
    "finite_number": lambda detail: "write a finite number",
    "int_type": lambda detail: "write a whole number",
    "int_parsing": lambda detail: "write a whole number",
    "int_from_float": lambda detail: "write a whole number",
    "too_short": lambda detail: "it is empty",
    "string_too_short": lambda detail: "it is empty",
    "literal_error": lambda detail: f"write {detail['ctx']['expected']}",
}
_PATTERNS = {
    r"^[\w-]+\.py:[A-Za-z_]\w*$": "write file.py:function, of a file beside this one",
    r"^\w+$": "write letters, digits and _ only",
    r"^[\w.-]+$": "write letters, digits and . _ - only",
}


def validated(
    model: type[M],
    file: TaskFile,
    misfits: Callable[[M], Iterable[Misfit]] = lambda spec: (),
    also_known: Iterable[str] = (),
) -> tuple[M | None, list[str]]:
    """The file's keys as ``model``, or None and every problem.

    Args:
        misfits: what the model's types cannot say; asked where they are right.
        also_known: keys of the file that the model does not have.
    """
    # ``key: null`` takes a key away
    keys = {key: value for key, value in file.keys.items() if value is not None}
    try:
        spec = model.model_validate(keys)
    except ValidationError as error:
        # a mistyped key explains the missing one, so it comes first
        details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        return None, _sentences(model, file, details, tuple(also_known))
    problems = [said(file, location, problem) for location, problem in misfits(spec)]
    return (None if problems else spec), problems


def said(file: TaskFile, location: Location, problem: str) -> str:
    """A problem with its file and line; of a key that is taken over from another file with both."""
    where = file.where(location)[1]
    if location and file.owners.get(location[0], file.path) != file.path:
        return f"{file.path}: {problem} ({where})"
    return f"{where}: {problem}"


def _sentences(
    model: type[BaseModel], file: TaskFile, details: list[Any], also_known: tuple[str, ...]
) -> list[str]:
    """One sentence a place: the members of a union are wrong together."""
    grouped: dict[tuple[str, Location, str], list[Any]] = {}
    for detail in details:
        location: Location = tuple(detail["loc"])
        kind = detail["type"] if detail["type"] in ("extra_forbidden", "missing") else ""
        # a union's member ("float", "literal['uniform']") is part of pydantic's location but of no file
        found, where = file.where(location)
        grouped.setdefault((where, location if kind else found, kind), []).append(detail)
    sentences = []
    for (where, location, kind), held in grouped.items():
        if kind == "extra_forbidden":
            known = _keys_at(model, location[:-1]) + ([] if location[1:] else list(also_known))
            near = nearest(str(location[-1]), known)
            sentences.append(f"{where}: unknown key {dotted(location)!r}{near}; known are {', '.join(known)}")
        elif kind == "missing":
            sentences.append(f"{where}: key {dotted(location)!r} is missing; add it")
        else:
            sentences.append(f"{where}: {dotted(location)!r}: {_expected(held)}, not {_shown(held[0])}")
    return sentences


def _expected(details: list[Any]) -> str:
    words = []
    for detail in details:
        kind, message = detail["type"], detail["msg"]
        if kind == "string_pattern_mismatch":
            words.append(_PATTERNS.get(detail["ctx"]["pattern"], message))
        elif kind in _EXPECTED:
            words.append(_EXPECTED[kind](detail))
        else:
            words.append(message[:1].lower() + message[1:])
    text = " or ".join(dict.fromkeys(words)).replace(" or write ", " or ")
    given = str(details[0]["input"])
    near = nearest(given, re.findall(r"'([^']+)'", text)) if "literal_error" in details[-1]["type"] else ""
    return text + near


def _shown(detail: Any, most: int = 60) -> str:
    text = repr(detail["input"])
    return text if len(text) <= most else text[: most - 1] + "…"


def dotted(location: Location) -> str:
    """``metrics.0.name``."""
    return ".".join(map(str, location))


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that may stand at a place: those of the innermost model on the way there."""
    for part in location:
        if part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model within a type such as ``tuple[Model, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
