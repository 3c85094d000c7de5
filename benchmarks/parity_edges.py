"""Edge cases: what lies on the boundary between context and continuation, and at the window's end."""

from __future__ import annotations

from typing import Any

from parity_requests import RequestSet

REFUSED_NOTHING = (
    "an empty continuation: lm-eval stops with an error; here its log-probability is 0, of no token"
)
REFUSED_CONTEXT = (
    "a context of nothing but white space, without BOS: lm-eval stops with an AssertionError (a context "
    "without tokens); here it counts as empty"
)
REFUSED_SWALLOWED = (
    "a continuation that a merge has swallowed whole: lm-eval stops with an AssertionError (a continuation "
    "without tokens); here the token that swallowed it is scored"
)
REFUSED_LENGTH = (
    "a continuation longer than the window: lm-eval stops with an AssertionError; here the last tokens that "
    "fit are scored, and the cut is counted"
)
MERGED = (
    "a merge across the boundary: lm-eval takes the continuation's tokens from the encoding of the whole "
    "text, but feeds the model the context's own encoding before them (TemplateLM._encode_pair); the two "
    "together encode no text, or another one; here the whole text's tokens are scored"
)
SHORTENED = (
    "a context longer than the tokenizer's model_max_length, for a model with relative positions: lm-eval "
    "cuts it on the left, and a rolling text into windows (resolve_max_length); here all of it is read"
)
BOUNDARIES = (
    "requests that agree in all tokens but the last: lm-eval computes them once and gathers a shorter "
    "continuation's log-probabilities at the first positions of the longest one's "
    "(HFLM._loglikelihood_tokens: what torch.gather reads is not sliced), so that every sum but the longest "
    "one's is wrong"
)

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


def edges(tokenizer: Any, window: int | None) -> RequestSet:
    """Every pair of ``PAIRS``, and those that depend on the tokenizer and the window (None: no bound)."""
    pairs = [*PAIRS.values(), (" \n", "The man."), ("The man", ""), ("", "")]
    end = tokenizer.eos_token
    pairs += [("The man dances.", f" The end.{end}"), (f"The man dances.{end}", "The man sleeps.")]
    pairs += [(end, "The man sleeps."), *_swallowed(tokenizer)]
    if tokenizer.bos_token:
        pairs += [(f"{tokenizer.bos_token}The man", " dances"), ("", f"{tokenizer.bos_token}The man")]
    if window:
        for surplus in (-1, 0, 1, 2, 300):
            whole = _of_length(tokenizer, window + surplus)
            pairs.append((whole[:-8], whole[-8:]))  # " the the"
        pairs.append(("The man", _of_length(tokenizer, window + 200)))
    return RequestSet("edge cases", "loglikelihood", list(pairs), apart=True)


def known_differences(
    requests: RequestSet, tokenizer: Any, window: int | None, *, causal: bool
) -> dict[int, str]:
    """Which requests lm-eval answers otherwise by its rules, and why: index → reason.

    Args:
        requests: of any verb.
        tokenizer: the checkpoint's.
        window: tokens that the model attends to; None where it has no bound.
        causal: whether context and continuation are one text (not so for encoder–decoder models).
    """
    lengths: dict[str, list[int]] = {}

    def ids(text: str) -> list[int]:
        if text not in lengths:
            lengths[text] = tokenizer(text, verbose=False)["input_ids"]
        return lengths[text]

    def reason(context: str, continuation: str = "") -> str | None:
        if not causal and len(ids(context)) > tokenizer.model_max_length:
            return SHORTENED
        if requests.verb != "loglikelihood":
            return None
        if not continuation and context == context.rstrip():
            return REFUSED_NOTHING
        if not context or not causal:
            return None
        before, whole = ids(context.rstrip()), ids(context + continuation)
        if not before:
            return REFUSED_CONTEXT
        if len(whole) <= len(before):
            return REFUSED_SWALLOWED
        if window and len(whole) - len(before) > window:
            return REFUSED_LENGTH
        return None if whole[: len(before)] == before else MERGED

    reasons = {i: reason(*request) for i, request in enumerate(requests.requests)}
    return {i: why for i, why in reasons.items() if why}


def boundaries() -> RequestSet:
    """One text cut at different places, all in one call: their sums differ by what is scored, no more."""
    words = ["The", "man", "walks", "onto", "the", "floor", "and", "dances"]
    pairs = [(" ".join(words[:i]), " " + " ".join(words[i:])) for i in range(1, len(words))]
    known = dict.fromkeys(range(1, len(pairs)), BOUNDARIES)
    return RequestSet("one text, many boundaries", "loglikelihood", list(pairs), known=known)


def _swallowed(tokenizer: Any) -> list[tuple[str, str]]:
    """A word that is one token, cut so that its beginning is one token too; none where there is none."""
    for word in ("the", "them", "man", "into", "Question", "with"):
        for cut in range(1, len(word)):
            if len(tokenizer(word)["input_ids"]) == len(tokenizer(word[:cut])["input_ids"]):
                return [(word[:cut], word[cut:])]
    return []


def _of_length(tokenizer: Any, length: int) -> str:
    """A text of exactly ``length`` tokens that ends in " the the".

    Raises:
        ValueError: the tokenizer has no token " the".
    """
    text = "a" + " the" * (length - len(tokenizer("a")["input_ids"]))
    if len(tokenizer(text, verbose=False)["input_ids"]) != length:
        raise ValueError("the edge case needs ' the' to be one token")
    return text
