"""Sandboxed Jinja: templates and expressions of task files over one row's fields."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from alignbench.errors import UsageError

Fields = Mapping[str, Any]
FAILURES = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    RecursionError,
)
"""What a template's own code raises."""


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=False, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["digest"] = digest
    # a prompt is the same in every run
    del environment.filters["random"], environment.globals["lipsum"]
    return environment


def digest(value: object) -> str:
    """12 hexadecimal digits of the SHA-256 of the text: a document id that survives a reordering."""
    return hashlib.sha256(str(value).encode()).hexdigest()[:12]


def template(source: str, where: str, *, field_or: bool = False) -> Callable[[Fields], str]:
    """Compile a template; with ``field_or`` a bare word is the name of a field.

    Raises:
        UsageError: bad syntax now; an undefined name or a failure when rendered, naming ``where``.
    """
    if field_or and source.isidentifier():
        source = "{{ " + source + " }}"
    try:
        compiled = _environment().from_string(source)
    except TemplateSyntaxError as error:
        raise UsageError(f"{where}: not a valid template ({error.message}); mend it") from error

    def render(fields: Fields) -> str:
        with _failing(where, fields):
            return compiled.render(fields, row=fields)

    return render


def expression(source: str, where: str) -> Callable[[Fields], Any]:
    """Compile a Jinja expression (a field's name is one).

    Raises:
        UsageError: as ``template``.
    """
    try:
        compiled = _environment().compile_expression(source, undefined_to_none=False)
    except TemplateSyntaxError as error:
        raise UsageError(f"{where}: not a valid expression ({error.message}); mend it") from error

    def evaluate(fields: Fields) -> Any:
        with _failing(where, fields):
            value = compiled(fields, row=fields)
            if isinstance(value, Undefined):
                str(value)  # StrictUndefined raises here and names what is missing
            return value

    return evaluate


@contextmanager
def _failing(where: str, fields: Fields) -> Iterator[None]:
    """Turn an error inside a template into one sentence with the fields that there are."""
    try:
        yield
    except FAILURES as error:
        known = ", ".join(map(str, fields))
        words = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{where}: {words}; the fields are {known}") from error
