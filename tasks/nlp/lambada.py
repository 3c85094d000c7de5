"""One shape for LAMBADA's two layouts: the hub's whole passages, and rows already parted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return passage, context and word, the passage's last: what stands behind its last space.

    Raises:
        KeyError: the row has neither layout's columns.
    """
    passage = f"{row['context']} {row['continuation']}" if "continuation" in row else row["text"]
    context, _, word = passage.rpartition(" ")
    return {"passage": passage, "context": context, "word": word}
