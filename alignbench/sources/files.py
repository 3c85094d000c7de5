"""One file of rows: JSON, JSON lines, CSV, TSV or Parquet, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from alignbench.errors import UsageError

FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read one JSON, JSONL, CSV, TSV (both with a header) or Parquet file, ``.gz`` or not.

    A JSON file is a list of objects, an object with exactly one such list in it, or JSON lines.

    Raises:
        UsageError: unknown format, no rows, content that is not of the format (with the line), or half a
            character in a row.
    """
    suffix = format_of(path)
    if suffix is None:
        raise UsageError(f"{path}: unknown format; known are {', '.join(FORMATS)}, each also with .gz")
    try:
        raw = path.read_bytes()
        if path.suffix.lower() == ".gz":
            raw = gzip.decompress(raw)
        rows = _parse_parquet(raw, path) if suffix == ".parquet" else _parse_text(raw, suffix, path)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); check the file") from error
    if not rows:
        raise UsageError(f"{path} holds no rows; give a file with data")
    return rows


def format_of(path: Path) -> str | None:
    """The format that a file's name says, as its suffix; None where it is no known one."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), None)


def stem(name: str) -> str:
    """A file's name without its folders, its format and ``.gz``: ``a/gpt-3.5.jsonl.gz`` → ``gpt-3.5``."""
    bare = Path(name).name
    suffix = format_of(Path(bare))
    return bare if suffix is None else bare[: bare.lower().rindex(suffix)]


def _parse_text(raw: bytes, suffix: str, path: Path) -> list[Row]:
    text = raw.decode("utf-8-sig")
    if suffix in (".csv", ".tsv"):
        return _parse_table(text, "," if suffix == ".csv" else "\t", path)
    rows = _parse_json(text, suffix, path)
    if re.search(r"\\u[dD][89a-fA-F]", text):  # only such an escape can stand for half a character
        _refuse_halves(rows, path)
    return rows


def _parse_json(text: str, suffix: str, path: Path) -> list[Row]:
    if suffix == ".json":
        try:
            return _rows_of_json(json.loads(text), path)
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":  # several objects: JSON lines under a .json name, common on the hub
                raise _broken(path, error.lineno, error.msg) from error
    return list(_parse_lines(text, path))


def _refuse_halves(rows: list[Row], path: Path) -> None:
    """A lone surrogate, which JSON can spell, is no Unicode text (RFC 8259, 8.2): nothing can write it."""
    for number, row in enumerate(rows, start=1):
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise UsageError(
                f"{path}: row {number} holds {half} alone, half of a surrogate pair; remove it"
            ) from error


def _parse_lines(text: str, path: Path) -> Iterator[Row]:
    # not splitlines(): U+2028 and its like are legal inside a JSON string
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise _broken(path, number, error.msg) from error
        if not isinstance(row, dict):
            raise _broken(path, number, "each line must be a JSON object")
        yield row


def _rows_of_json(value: Any, path: Path) -> list[Row]:
    if isinstance(value, dict):
        lists = [
            part for part in value.values() if isinstance(part, list) and part and isinstance(part[0], dict)
        ]
        value = lists[0] if len(lists) == 1 else [value]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UsageError(f"{path}: expected a list of JSON objects, one a row")
    return value


def _parse_table(text: str, delimiter: str, path: Path) -> list[Row]:
    try:
        return _read_table(text, delimiter, csv.QUOTE_MINIMAL, path)
    except UsageError:
        if delimiter != "\t":
            raise
        return _read_table(
            text, delimiter, csv.QUOTE_NONE, path
        )  # TSV as IANA has it: a quote is a character


def _read_table(text: str, delimiter: str, quoting: Literal[0, 3], path: Path) -> list[Row]:
    csv.field_size_limit(2**31 - 1)
    lines = io.StringIO(text, newline="")
    reader = csv.DictReader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    rows: list[Row] = []
    try:
        names = list(reader.fieldnames or ())
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise _broken(path, 1, f"the header has the column {twice!r} twice")
        for row in reader:
            if None in row or None in row.values():
                raise _broken(
                    path, reader.line_num, "this row and the header differ in their number of columns"
                )
            rows.append(dict(row))
    except csv.Error as error:
        raise _broken(path, reader.line_num, str(error)) from error
    return rows


def _parse_parquet(raw: bytes, path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(io.BytesIO(raw)).to_pylist()
    except pyarrow.ArrowException as error:
        raise UsageError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from error
    return rows


def _broken(path: Path, line: int, why: str) -> UsageError:
    return UsageError(f"{path}, line {line}: {why}; mend this line")
