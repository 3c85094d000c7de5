"""Text to token ids: what exactly reaches the model. Shared by the engine and by training.

A context and its continuation are encoded as **one** text, because merges may cross the boundary. The
continuation's first token follows the rule of lm-evaluation-harness (``TemplateLM._encode_pair``): white
space at the end of the context moves to the continuation, and the continuation starts at index
``len(encode(context))``. One case is added: where a merge has swallowed the whole continuation, its last
token is the target, so that a continuation that is not empty always has one.

Special tokens: in front, whatever the tokenizer puts there by default (BOS or nothing); behind, never any
(``eos=True`` appends EOS as an id). A text that a chat template has made holds its own (``special=False``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Encoded = tuple[list[int], int]
"""Token ids of the one text, and the index where the continuation's tokens start."""


def special_prefix(tokenizer: Any) -> list[int]:
    """Ids that the tokenizer puts in front of a text by default: ``[bos]`` or ``[]`` for most."""
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    full: list[int] = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start]
    return []


def encode_texts(tokenizer: Any, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
    """Token ids of each text, with the tokenizer's default special tokens in front and none behind. A text
    that begins with them already (``<s>`` written out) gets no second ones."""
    if not texts:
        return []
    bodies: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    prefix = special_prefix(tokenizer) if special else []
    return [body if body[: len(prefix)] == prefix else prefix + body for body in bodies]


def encode_pairs(
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    *,
    eos: bool = False,
    max_length: int | None = None,
    special: bool = True,
) -> list[Encoded]:
    """Encode ``(context, continuation)`` pairs; see the module's rule.

    Args:
        tokenizer: a Hugging Face tokenizer.
        pairs: any number of pairs; either side may be empty.
        eos: append the tokenizer's EOS id; it counts as part of the continuation.
        max_length: keep the last ``max_length`` ids. The start moves with them, not below 0.
        special: put the tokenizer's default special tokens in front.

    Raises:
        ValueError: ``eos`` with a tokenizer that has no EOS token.
    """
    if eos and tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no EOS token to end a text with")
    moved = [move_space(*pair) for pair in pairs]
    contexts = sorted({context for context, _ in moved})  # choices share their context: encode it once
    lengths = dict(zip(contexts, map(len, encode_texts(tokenizer, contexts, special=special))))
    wholes = encode_texts(tokenizer, [context + rest for context, rest in moved], special=special)
    encoded = []
    for (context, continuation), ids in zip(moved, wholes):
        start = min(lengths[context], len(ids) - 1 if continuation else len(ids))
        if eos:
            ids = [*ids, tokenizer.eos_token_id]
        surplus = 0 if max_length is None else max(0, len(ids) - max_length)
        encoded.append((ids[surplus:], max(0, start - surplus)))
    return encoded


def encode_pair(
    tokenizer: Any, context: str, continuation: str, *, eos: bool = False, max_length: int | None = None
) -> Encoded:
    """One pair; see ``encode_pairs``."""
    return encode_pairs(tokenizer, [(context, continuation)], eos=eos, max_length=max_length)[0]


def rolling_windows(n_ids: int, window: int | None) -> list[tuple[int, int, int]]:
    """How a text that may be longer than the model's context is scored: in windows that together predict
    every token once.

    The first window predicts as many tokens as the context holds from the start token on; each further one as
    many behind one token of the text, and the last, which has fewer to predict, behind as many tokens as fit.
    These are the windows of lm-evaluation-harness's ``loglikelihood_rolling`` (``context_len`` 1).

    Args:
        n_ids: ids of the text, with the start token in front counted.
        window: ids that the model can take at once; None: any number.

    Returns:
        ``(first, target, end)`` for each window: its ids are ``ids[first:end]``, of which the model gets all
        but the last, and ``ids[target:end]`` are predicted. Empty where there is nothing to predict.
    """
    size = window or max(1, n_ids)
    spans = [(target, min(target + size, n_ids)) for target in range(1, n_ids, size)]
    return [(max(0, end - size - 1), target, end) for target, end in spans]


def move_space(context: str, continuation: str) -> tuple[str, str]:
    """White space at the end of the context goes to the beginning of the continuation."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
