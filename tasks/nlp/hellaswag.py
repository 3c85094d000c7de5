"""One shape for HellaSwag's two layouts: the authors' and hub's columns, and rows already put together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return ind, context, the list endings, label (index of the right one) and source.

    The authors' rows have activity_label, ctx_a, ctx_b and endings; others query, choices and gold, where the
    query is already "label: context". ``ctx_b`` begins the sentence to be continued, so it gets a capital.
    The source is the video or article; where the row does not name it, the first sentence stands for it (an
    article's title, or what a video begins with).

    Raises:
        KeyError: the row has neither layout's columns.
        ValueError: no label (the test split has none).
    """
    if "query" in row:
        context, endings, label = row["query"], row["choices"], row["gold"]
    else:
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        endings, label = row["endings"], row["label"]
    context = _clean(context)
    return {
        "ind": row["ind"],
        "context": context,
        "endings": [_clean(ending) for ending in endings],
        "label": int(label),
        "source": row.get("source_id") or context.partition(". ")[0],
    }


def _clean(text: str) -> str:
    """Take out WikiHow's marks: ``[title]`` ends a sentence, any other bracket goes with what it holds."""
    text = re.sub(r"\[[^\]]*\]", "", text.replace(" [title]", ". "))
    return re.sub(r" {2,}", " ", text).strip()
