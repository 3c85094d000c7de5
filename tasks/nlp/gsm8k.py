"""GSM8K: problems with their solutions, without the marks that its authors' calculator reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return question, solution (its steps, the last line "#### number") and number.

    Raises:
        ValueError: the solution ends with no number.
    """
    solution = re.sub(r"<<[^<>]*>>", "", row["answer"]).strip()
    _, mark, number = solution.rpartition("#### ")
    if not mark:
        raise ValueError("the answer has no line '#### number'")
    return {"question": row["question"].strip(), "solution": solution, "number": number.strip()}
