"""Between tokens and answers: what engines on weights share. Torch is not imported here."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignbench.engines.encoding import rolling_windows
from alignbench.engines.inputs import Tokens
from alignbench.engines.types import Completion, Generate, Score, Scored

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spans:
    """Sequences to score: each one's ``owners`` (the index of its request) and the index in ``starts`` (at
    least 1) of its first target; all tokens from there on are targets."""

    owners: list[int]
    sequences: list[list[int]]
    starts: list[int]


def spans_of(requests: Sequence[Score], tokens: Tokens, window: int | None) -> Spans:
    """One sequence a request; of a rolling one, one a window (see ``encoding.rolling_windows``)."""
    spans = Spans([], [], [])
    for i, (request, ids, start) in enumerate(zip(requests, tokens.sequences, tokens.starts)):
        cuts = rolling_windows(len(ids), window) if request.rolling else []
        for first, target, end in cuts or [(0, start, len(ids))]:
            spans.owners.append(i)
            spans.sequences.append(ids[first:end])
            spans.starts.append(target - first)
    return spans


def one_by_one(spans: Spans) -> Spans:
    """The same targets, each as the last token of a sequence of its own."""
    apart = Spans([], [], [])
    for owner, ids, start in zip(spans.owners, spans.sequences, spans.starts):
        for at in range(start, len(ids)) or [start]:  # without targets: as it is
            apart.owners.append(owner)
            apart.sequences.append(ids[: at + 1])
            apart.starts.append(at)
    return apart


def add_up(parts: Sequence[Scored]) -> Scored:
    """A request's answer from those of its windows; the sum does not depend on their order."""
    return Scored(
        math.fsum(part.logprob for part in parts),
        sum(part.n_tokens for part in parts),
        all(part.greedy for part in parts),
    )


def complete(
    request: Generate,
    prompt: Sequence[int],
    cut: int,
    row: Any,
    eos: Collection[int],
    decode: Callable[[list[list[int]]], list[str]],
) -> Completion:
    """The answer from a row as sampled (``decode.Decoded``): how it ended, and its text, cut before the first
    stop string. ``decode``: ids of several rows → their texts, without special tokens."""
    finish: Literal["eos", "stop", "length"] = "eos" if row.token_ids[-1] in eos else "length"
    text = decode([list(row.token_ids[:-1] if finish == "eos" else row.token_ids)])[0]
    found = [at for at in map(text.find, request.sampling.stop) if at >= 0]
    if found:
        text, finish = text[: min(found)], "stop"
    return Completion(text, tuple(prompt), row.token_ids, row.logprobs, row.sampling_logprobs, finish, cut)


def decode_rows(tokenizer: Any, rows: list[list[int]]) -> list[str]:
    """Texts without special tokens, as they were written: no space is taken away."""
    texts: list[str] = tokenizer.batch_decode(
        rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return texts


def warn_cut(cuts: Sequence[int], window: int | None) -> bool:
    """Say how many texts were cut on their left to fit into ``window``; whether any was."""
    n = sum(map(bool, cuts))
    if n:
        log.warning(
            "alignbench: %d of %d texts exceed the model's context of %s tokens and are cut on the left",
            n,
            len(cuts),
            window,
        )
    return bool(n)


def eos_ids_of(generation_config: Any, config: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a completion: the generation config's, else the config's, else the tokenizer's."""
    for ids in (
        getattr(generation_config, "eos_token_id", None),
        getattr(config.get_text_config(), "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        if ids is not None:
            return tuple(ids) if isinstance(ids, (list, tuple)) else (int(ids),)
    return ()
