"""Which requests share a batch: fixed from the whole request set; the same set gives the same batches."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import TypeVar

R = TypeVar("R")


@dataclass
class Work:
    """What an engine has computed, in tokens.

    ``total_tokens``: of the requests, each counted whole, as if nothing were shared; ``computed_tokens``:
    those that went through the model, each once; ``padding_tokens``: those that were computed to fill up a
    batch (of packed passes: rows of attention); ``decoded_tokens``: generated one by one.
    """

    total_tokens: int = 0
    computed_tokens: int = 0
    padding_tokens: int = 0
    decoded_tokens: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other))))

    def __str__(self) -> str:
        """One line, as it is printed when a policy is done."""
        said = [f"{self.total_tokens:,} tokens read, {self.computed_tokens:,} of them computed"]
        if self.decoded_tokens:
            said.append(f"{self.decoded_tokens:,} generated")
        if self.computed_tokens:
            share = self.padding_tokens / (self.computed_tokens + self.decoded_tokens)
            said.append(f"{share:.1%} more for padding")
        return "; ".join(said)

    def add_padded(self, lengths: Sequence[int]) -> None:
        """Count a batch of rows that are padded to the longest."""
        self.total_tokens += sum(lengths)
        self.computed_tokens += sum(lengths)
        self.padding_tokens += max(lengths) * len(lengths) - sum(lengths)


def plan_batches(
    lengths: Sequence[int], budget: int, *, extra: Sequence[int] | None = None
) -> list[list[int]]:
    """Partition ``range(len(lengths))`` into batches of similar length under a token budget.

    Args:
        lengths: tokens of each request (its prompt, for generation).
        budget: the most tokens a padded batch may hold: rows × (longest length + largest extra). A request
            that is larger by itself gets its own batch.
        extra: tokens that each row may still grow by (``max_tokens``); none by default.

    Returns:
        Batches of indices, longest first, so that memory runs out at once or not at all. Ties keep their
        order.
    """
    growth = extra if extra is not None else [0] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], -growth[i]))
    batches: list[list[int]] = []
    batch: list[int] = []
    longest = grown = 0
    for i in order:
        longest_with, grown_with = max(longest, lengths[i]), max(grown, growth[i])
        if batch and (len(batch) + 1) * (longest_with + grown_with) > budget:
            batches.append(batch)
            batch, longest_with, grown_with = [], lengths[i], growth[i]
        batch.append(i)
        longest, grown = longest_with, grown_with
    if batch:
        batches.append(batch)
    return batches


def plan_shared(contexts: Sequence[tuple[int, ...]], growth: Sequence[int], budget: int) -> list[list[int]]:
    """Partition ``range(len(contexts))`` like ``plan_batches``, but requests with the same context stay
    together, so that it is computed once; they part only where they alone exceed the budget.

    Args:
        contexts: each request's token ids up to where it has its own.
        growth: tokens behind them.
        budget: the most tokens a padded batch may hold: rows × (longest context + largest growth).

    Returns:
        Batches of indices, those with the longest contexts first. Ties keep their order.
    """
    groups: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, context in enumerate(contexts):
        groups[context].append(i)
    sizes = {context: max(growth[i] for i in group) for context, group in groups.items()}
    batches: list[list[int]] = []
    batch: list[int] = []
    longest = grown = 0
    for context in sorted(groups, key=lambda context: (-len(context), -sizes[context])):
        group, rows = groups[context], max(1, budget // max(1, len(context) + sizes[context]))
        for piece in (group[at : at + rows] for at in range(0, len(group), rows)):
            longest_with, grown_with = max(longest, len(context)), max(grown, sizes[context])
            if batch and (len(batch) + len(piece)) * (longest_with + grown_with) > budget:
                batches.append(batch)
                batch, longest_with, grown_with = [], len(context), sizes[context]
            batch = [*batch, *piece]
            longest, grown = longest_with, grown_with
    if batch:
        batches.append(batch)
    return batches


def join_parts(
    batches: Iterator[list[tuple[int, R]]], owners: Sequence[int]
) -> Iterator[list[tuple[int, list[R]]]]:
    """From batches of parts' results to batches of ``(request, its parts' results)``, each request with the
    batch that completes it, its parts as they came.

    Args:
        batches: ``(part, result)``.
        owners: the request that each part belongs to.
    """
    left = Counter(owners)
    parts: defaultdict[int, list[R]] = defaultdict(list)
    for batch in batches:
        whole = []
        for part, result in batch:
            owner = owners[part]
            parts[owner].append(result)
            if len(parts[owner]) == left[owner]:
                whole.append((owner, parts.pop(owner)))
        if whole:
            yield whole
