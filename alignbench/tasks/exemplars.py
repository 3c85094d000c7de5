"""Few-shot exemplars: which documents stand before which prompt."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from alignbench.errors import UsageError
from alignbench.tasks.spec import FewShotSpec
from alignbench.tasks.templates import digest
from alignbench.tasks.types import Document


def with_exemplars(
    documents: Sequence[Document], pool: Sequence[Document], shots: FewShotSpec, task: str
) -> list[Document]:
    """Put ``n`` exemplars of ``pool`` before every prompt.

    All documents take theirs from one seeded order of the pool, the first that are allowed, so nearly all
    share their exemplars. Not allowed are the document itself, those of its cluster, those whose prompt is
    the same but for case and spaces, and those without a target to show. With ``balance`` each target has a
    quota, n divided by the number of different targets, the rest to those that come first in the order.

    Raises:
        UsageError: the pool holds too few; the caller says which file asked.
    """
    order = [doc for doc in pool if doc.target]
    random.Random(int(digest(f"few-shot {shots.seed} {task}"), 16)).shuffle(order)
    shown = [doc.prompt + doc.delimiter + (doc.target or "") for doc in order]
    plain = [_plain(doc.prompt) for doc in order]
    quotas = _quotas([doc.target for doc in order], shots.n) if shots.balance else None
    result = []
    for doc in documents:
        own, left, picked = _plain(doc.prompt), Counter(quotas), list[str]()
        for other, text, prompt in zip(order, shown, plain, strict=True):
            if len(picked) == shots.n:
                break
            if other.cluster == doc.cluster or prompt == own or (quotas and not left[other.target]):
                continue
            left[other.target] -= 1
            picked.append(text)
        if len(picked) < shots.n:
            raise UsageError(f"few_shot.n is {shots.n}, but there are only {len(picked)} exemplars")
        result.append(replace(doc, prompt=shots.separator.join([*picked, doc.prompt])))
    return result


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _quotas(targets: Sequence[str | None], n: int) -> Counter[str | None]:
    kinds = list(dict.fromkeys(targets))
    return Counter({kind: n // len(kinds) + (i < n % len(kinds)) for i, kind in enumerate(kinds)})
