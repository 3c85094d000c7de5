"""Self-Instruct's user-oriented instructions: one row, one instruction with one instance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the prompt, without the blank ends that the published predictions dropped too.

    ``instances`` is a list of {input, output} in the authors' file, {input: [...], output: [...]} on the hub.

    Raises:
        ValueError: a row with more than one instance, or none.
    """
    found = row["instances"]
    if isinstance(found, dict):
        found = [{"input": given, "output": output} for given, output in zip(found["input"], found["output"])]
    if len(found) != 1:
        raise ValueError(f"{row['id']} has {len(found)} instances where one was expected")
    return {
        "id": row["id"],
        "instruction": row["instruction"].strip(),
        "input": found[0]["input"].strip(),
        "reference": found[0]["output"],
    }
