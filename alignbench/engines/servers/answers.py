"""What a server's JSON says: completions, and the log-probabilities of an echoed text. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignbench.engines.servers.client import Malformed
from alignbench.engines.types import Completion, Generate, Scored

SLACK = 1e-3
"""A log-probability above 0 by no more than this is rounding."""
COUNT = 2**53
"""No count or id is as high; beyond it JSON's numbers are not exact."""


@dataclass(frozen=True)
class Usage:
    """Tokens as the server counts them: of the prompt and of the completion; None where it does not say."""

    prompt: int | None = None
    completion: int | None = None


@dataclass(frozen=True)
class Echo:
    """An echoed text: its ``tokens``, their log-probabilities (None where a token has none) and for each the
    highest log-probability that any token has there (None where the server does not tell)."""

    tokens: tuple[str, ...]
    logprobs: tuple[float | None, ...]
    highest: tuple[float | None, ...]


def usage_of(payload: Mapping[str, Any]) -> Usage:
    """The answer's token counts."""
    found = payload.get("usage")
    if not isinstance(found, dict):
        return Usage()
    counts = [found.get("prompt_tokens"), found.get("completion_tokens")]
    return Usage(*(n if _whole(n) else None for n in counts))


def model_of(payload: Mapping[str, Any]) -> str:
    """What the answer calls the model; empty where it does not."""
    found = payload.get("model")
    return found if isinstance(found, str) else ""


def completion_of(payload: Mapping[str, Any], request: Generate, *, chat: bool) -> Completion:
    """The first choice of an answer to a ``Generate``.

    ``finish`` is ``stop`` where the server says that one of the request's stop strings ended it, or sends one
    in the text; a server that does not say what it stopped at gives ``eos``.

    Raises:
        Malformed: it has none, or one without text.
    """
    choice = _choice(payload)
    if chat:
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else None
        text = "" if text is None and isinstance(message, dict) else text  # nothing but a tool call, say
    else:
        text = choice.get("text")
    if not isinstance(text, str):
        raise Malformed("a choice has no text")
    stops = request.sampling.stop
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    finish: Literal["eos", "stop", "length"] = "eos"
    if found or choice.get("stop_reason") in stops:
        finish = "stop"
    elif choice.get("finish_reason") == "length":
        finish = "length"
    ids = _ids(choice)
    logprobs = _sampled(choice.get("logprobs"), chat)
    if ids and len(logprobs) != len(ids):
        logprobs = ()
    greedy = request.sampling.temperature == 0
    return Completion(
        text=text[: min(found)] if found else text,
        prompt_ids=(),
        token_ids=ids,
        logprobs=logprobs,
        sampling_logprobs=(0.0,) * max(len(ids), len(logprobs)) if greedy else (),
        finish=finish,
        n_tokens=usage_of(payload).completion,
    )


def echo_of(payload: Mapping[str, Any], generated: int) -> Echo:
    """The echoed text of an answer, less what was ``generated`` behind it (tokens).

    Raises:
        Malformed: it has no log-probabilities, or they are not one a token.
    """
    found = _choice(payload).get("logprobs")
    if not isinstance(found, dict):
        raise Malformed("it sends no log-probabilities of the prompt")
    tokens, logprobs, tops = (found.get(key) for key in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(tokens, list) or not isinstance(logprobs, list) or len(tokens) != len(logprobs):
        raise Malformed("its log-probabilities are not one a token")
    if not all(isinstance(token, str) for token in tokens):
        raise Malformed("its echoed tokens are no text")
    if not all(value is None or _logprob(value) for value in logprobs):
        raise Malformed("what it calls log-probabilities are none")
    listed = tops if isinstance(tops, list) and len(tops) == len(tokens) else [None] * len(tokens)
    given = [[*top.values()] if isinstance(top, dict) else [] for top in listed]
    if not all(_logprob(value) for values in given for value in values):
        raise Malformed("what it calls log-probabilities (top_logprobs) are none")
    highest = [max(map(float, values), default=None) for values in given]
    n = len(tokens) - generated
    return Echo(tuple(tokens[:n]), tuple(logprobs[:n]), tuple(highest[:n]))


def first_target(tokens: Sequence[str], text: str, at: int) -> int | None:
    """The first token that reaches beyond character ``at`` of the echoed ``text``, one that crosses it
    included: the continuation's first. What stands in front of the text (BOS) is passed over.

    None where that cannot be told, because tokens around it are parts of characters.
    """
    if at >= len(text):
        return len(tokens)
    begins = len(text)
    for index in reversed(range(len(tokens))):
        token = tokens[index]
        if not token or not text.endswith(token, 0, begins):
            break
        begins -= len(token)
        if begins <= at:
            before = tokens[index - 1] if index else "-"
            return index if before and "\ufffd" not in before else None  # it may be a part of this one
    ends = 0
    for index, token in enumerate(tokens):
        if ends == 0 and not text.startswith(token):
            continue  # BOS
        if not token or not text.startswith(token, ends):
            break
        ends += len(token)
        if ends > at:
            return index
    return None


def scored_of(echo: Echo, start: int) -> Scored:
    """The sum over the tokens from ``start`` on.

    Raises:
        Malformed: one of them has no log-probability, or none to compare it with.
    """
    values, highest = echo.logprobs[start:], echo.highest[start:]
    numbers = [value for value in values if value is not None]
    best = [value for value in highest if value is not None]
    if len(numbers) < len(values):
        raise Malformed("it gives the first token of a text no log-probability")
    if len(best) < len(highest):
        raise Malformed("it does not tell the likeliest token (top_logprobs)")
    greedy = all(value >= top for value, top in zip(numbers, best))
    return Scored(math.fsum(numbers), len(numbers), greedy)


def echo_problem(echo: Echo, text: str) -> str | None:
    """Why what an echo claims is not the log-probabilities of ``text``; None where it is."""
    joined = "".join(echo.tokens)
    if not joined.endswith(text):
        return "the echoed tokens are not those of the prompt"
    first = first_target(echo.tokens, text, 0)
    numbers = echo.logprobs[1:]
    if first is None or len(echo.tokens) - first < 2:
        return "the echoed prompt has too few tokens"
    if any(value is None for value in numbers):
        return "tokens of the prompt have no log-probability"
    if len(set(numbers)) == 1:
        return "all tokens of the prompt have the same log-probability"
    if any(value is None for value in echo.highest[1:]):
        return "it does not tell the likeliest token (top_logprobs)"
    if any(top < value - SLACK for value, top in zip(numbers, echo.highest[1:]) if value and top):
        return "tokens of the prompt are likelier than the likeliest"
    return None


def _choice(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = payload.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Malformed("its answer holds no choice")
    return choices[0]


def _ids(choice: Mapping[str, Any]) -> tuple[int, ...]:
    ids = choice.get("token_ids")
    return tuple(ids) if isinstance(ids, list) and all(map(_whole, ids)) else ()


def _sampled(found: Any, chat: bool) -> tuple[float, ...]:
    """Log-probabilities of sampled tokens; none where they are not one a token."""
    if not isinstance(found, dict):
        return ()
    if chat:
        listed = found.get("content")
        rows = listed if isinstance(listed, list) else []
        values = [row.get("logprob") if isinstance(row, dict) else None for row in rows]
    else:
        listed = found.get("token_logprobs")
        values = listed if isinstance(listed, list) else []
    return tuple(float(value) for value in values) if all(map(_logprob, values)) else ()  # type: ignore[arg-type]


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < COUNT


def _logprob(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and (-1e300 < value <= SLACK or value == -math.inf)  # type: ignore[operator]
