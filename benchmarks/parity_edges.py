"""Edge cases: what lies on the boundary between context and continuation, and at the window's end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parity_requests import RequestSet

REFUSED = "lm-eval stops with an AssertionError (a continuation without a token); "
REFUSED_EMPTY = "lm-eval stops with an IndexError (it looks at the first token of nothing); "

PAIRS: dict[str, tuple[str, str]] = {
    "plain": ("The man walks onto the floor", " and dances."),
    "space at the end of the context": ("The man walks onto the floor ", "and dances."),
    "two spaces and a tab at its end": ("The man walks onto the floor  \t", "and dances."),
    "line breaks at its end": ("Question: who dances?\n\n", "The man."),
    "no space at all": ("The man walks onto the floor:", "and dances."),
    "a merge across the boundary": ("The man wal", "ks onto the floor"),
    "digits across the boundary": ("It happened in 20", "17, they say"),
    "a continuation of one character": ("The man walks onto the floor", "."),
    "a continuation of many tokens": ("The", " man walks onto the floor" * 12),
    "empty context": ("", "The man walks onto the floor."),
    "accents": ("Über die Größe des Flußes", " schweigt der Café-Besitzer Zoë."),
    "decomposed accents": ("Cafe\u0301 and nai\u0308ve", " re\u0301sume\u0301"),
    "an accent behind the boundary": ("The man drinks cafe", "\u0301 au lait"),
    "Chinese": ("珍妮特的鸭子每天下", "16 颗蛋。"),
    "Arabic and Thai": ("مرحبا بالعالم", " สวัสดีชาวโลก"),
    "emoji": ("He laughs 😂", " 😂🤣 out loud"),
    "an emoji of several code points": ("The family 👨\u200d👩", "\u200d👧\u200d👦 dances"),
    "carriage returns": ("A line\r\n", "\r\nanother line"),
    "no-break and zero-width spaces": ("A line\u00a0", "\u200banother\u00a0line"),
    "NUL and other control characters": ("A\x00line\x07", "\x1b[0m another"),
    "markup like special tokens": ("The man <unk> says <pad>", " <mask> and dances <|nothing|>"),
}


def edges(tokenizer: Any, window: int | None, *, causal: bool) -> RequestSet:
    """Every pair of ``PAIRS``, and those that depend on the tokenizer and the window.

    Args:
        tokenizer: the checkpoint's.
        window: tokens that the model attends to; None where it has no bound.
        causal: whether context and continuation are one text (not so for encoder–decoder models).
    """
    pairs, known = list(PAIRS.values()), {}
    bos = bool(tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)
    pairs.append((" \n", "The man."))
    if causal and not bos:
        known[len(pairs) - 1] = REFUSED.replace("continuation", "context") + "it counts as empty here"
    pairs.append(("The man", ""))
    known[len(pairs) - 1] = REFUSED + "here its log-probability is 0, of no token"
    pairs.append(("", ""))
    known[len(pairs) - 1] = REFUSED_EMPTY + "here its log-probability is 0, of no token"
    end = tokenizer.eos_token
    pairs += [("The man dances.", f" The end.{end}"), (f"The man dances.{end}", "The man sleeps.")]
    pairs.append((end, "The man sleeps."))
    if tokenizer.bos_token:
        pairs += [(f"{tokenizer.bos_token}The man", " dances"), ("", f"{tokenizer.bos_token}The man")]
    swallowed = _swallowed(tokenizer)
    if causal and swallowed:
        pairs.append(swallowed)
        known[len(pairs) - 1] = REFUSED + "here the token that swallowed the continuation is scored"
    if causal and window:
        count: Callable[[str], int] = lambda text: len(tokenizer(text)["input_ids"])  # noqa: E731
        for surplus in (-1, 0, 1, 2, 300):
            whole = _of_length(count, window + surplus)
            pairs.append((whole[:-8], whole[-8:]))  # " the the"
        whole = _of_length(count, window + 200)
        pairs.append(("The man", whole))
        known[len(pairs) - 1] = (
            "lm-eval stops with an AssertionError (a continuation longer than the window); here its last "
            "tokens are scored, and the cut is counted"
        )
    return RequestSet("edge cases", "loglikelihood", list(pairs), known=known, apart=True)


def boundaries() -> RequestSet:
    """One text cut at different places, all in one call: their sums differ by what is scored, no more."""
    words = ["The", "man", "walks", "onto", "the", "floor", "and", "dances"]
    pairs = [(" ".join(words[:i]), " " + " ".join(words[i:])) for i in range(1, len(words))]
    why = (
        "lm-eval groups requests that agree in all tokens but the last, and gathers a shorter continuation's "
        "log-probabilities at the first positions of the longest one's (HFLM._loglikelihood_tokens: what "
        "torch.gather reads is not sliced): wrong sums for every request of the group but the longest"
    )
    known = dict.fromkeys(range(1, len(pairs)), why)
    return RequestSet("one text, many boundaries", "loglikelihood", list(pairs), known=known)


def _swallowed(tokenizer: Any) -> tuple[str, str] | None:
    """A word that is one token, cut so that its beginning is one token too."""
    for word in ("the", "them", "man", "into", "Question", "with"):
        for cut in range(1, len(word)):
            if len(tokenizer(word)["input_ids"]) == len(tokenizer(word[:cut])["input_ids"]):
                return word[:cut], word[cut:]
    return None


def _of_length(count: Callable[[str], int], length: int) -> str:
    """A text of exactly ``length`` tokens that ends in " the the"."""
    text = "a" + " the" * (length - count("a"))
    assert count(text) == length, "the edge case needs ' the' to be one token"
    return text
