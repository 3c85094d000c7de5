"""What a server's JSON says, and where a continuation's tokens begin."""

from __future__ import annotations

from typing import Any

import pytest
from faulty_server import tokens_of
from hypothesis import given
from hypothesis import strategies as st

from alignbench.engines.servers.answers import (
    Echo,
    Usage,
    completion_of,
    echo_of,
    echo_problem,
    first_target,
    scored_of,
    usage_of,
)
from alignbench.engines.servers.client import Malformed
from alignbench.engines.types import Generate, Sampling, Scored

GREEDY = Generate("p", Sampling(stop=("END",)))


def answer(**choice: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": "stop", **choice}]}


@pytest.mark.parametrize(
    ("choice", "text", "finish"),
    [
        ({"text": " a b"}, " a b", "eos"),
        ({"text": " a b", "stop_reason": "END"}, " a b", "stop"),
        ({"text": " a b", "stop_reason": 2}, " a b", "eos"),
        ({"text": " a END b", "finish_reason": "length"}, " a ", "stop"),
        ({"text": " a b", "finish_reason": "length"}, " a b", "length"),
        ({"text": ""}, "", "eos"),
    ],
)
def test_the_text_ends_before_a_stop_string(choice: dict[str, Any], text: str, finish: str) -> None:
    found = completion_of(answer(**choice), GREEDY, chat=False)
    assert (found.text, found.finish) == (text, finish)


def test_ids_and_log_probabilities_where_there_are_any() -> None:
    payload = answer(text="ab", token_ids=[7, 8], logprobs={"token_logprobs": [-0.5, -1]})
    found = completion_of(payload | {"usage": {"completion_tokens": 2}}, GREEDY, chat=False)
    assert (found.token_ids, found.logprobs, found.n_tokens) == ((7, 8), (-0.5, -1.0), 2)
    assert found.sampling_logprobs == (0.0, 0.0)  # greedy decoding draws from one token
    sampled = Generate("p", Sampling(temperature=0.7))
    assert completion_of(payload, sampled, chat=False).sampling_logprobs == ()
    bare = completion_of(answer(text="ab", token_ids=None, logprobs=None), GREEDY, chat=False)
    assert (bare.token_ids, bare.logprobs, bare.n_tokens) == ((), (), None)
    uneven = answer(text="ab", token_ids=[7, 8], logprobs={"token_logprobs": [-0.5]})
    assert completion_of(uneven, GREEDY, chat=False).logprobs == ()
    huge = answer(text="ab", token_ids=None, logprobs={"token_logprobs": [-0.5, -(10**400)]})
    assert completion_of(huge, GREEDY, chat=False).logprobs == ()


def test_a_chat_message() -> None:
    message = {"role": "assistant", "content": "hello"}
    logprobs = {"content": [{"token": "hello", "logprob": -0.25}]}
    found = completion_of(answer(message=message, logprobs=logprobs), GREEDY, chat=True)
    assert (found.text, found.logprobs) == ("hello", (-0.25,))
    assert completion_of(answer(message={"content": None}), GREEDY, chat=True).text == ""


@pytest.mark.parametrize("payload", [{}, {"choices": []}, {"choices": [3]}, {"choices": [{"text": None}]}])
def test_an_answer_without_a_text_is_malformed(payload: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        completion_of(payload, GREEDY, chat=False)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 0}, Usage(3, 0)),
        ({"prompt_tokens": 3}, Usage(3, None)),
        ({"prompt_tokens": "3", "completion_tokens": -1}, Usage()),
        ({"prompt_tokens": 10**30, "completion_tokens": True}, Usage()),
        (None, Usage()),
    ],
)
def test_usage(usage: Any, expected: Usage) -> None:
    assert usage_of({"usage": usage}) == expected


@given(st.text("ab é.", max_size=12), st.text("ab é.", min_size=1, max_size=12), st.booleans())
def test_the_continuation_begins_at_the_token_that_reaches_beyond_the_context(
    context: str, continuation: str, bos: bool
) -> None:
    text = context + continuation
    tokens = ["<s>"] * bos + tokens_of(text)
    start = first_target(tokens, text, len(context))
    assert start is not None
    ends = len("".join(tokens[:start]).removeprefix("<s>" * bos))
    assert ends <= len(context) < ends + len(tokens[start])


@pytest.mark.parametrize(
    ("tokens", "text", "at", "expected"),
    [
        (["the", " ca", "t"], "the cat", 4, 1),  # " ca" crosses
        (["\ufffd", "\ufffd", "a", " b"], "µa b", 2, 3),  # parts of a character before: found from the end
        (["a", " b", "", "µ"], "a bµ", 1, 1),  # and behind: from the front
        (["a", "", "µ"], "aµ", 1, None),  # the empty one may be the continuation's first half
        (["a", "\ufffd", "\ufffd", "b"], "aµb", 1, None),
        (["a", "b"], "ab", 2, 2),
        (["x", "y"], "ab", 1, None),
    ],
)
def test_tokens_that_are_parts_of_characters(
    tokens: list[str], text: str, at: int, expected: int | None
) -> None:
    assert first_target(tokens, text, at) == expected


def test_the_sum_and_whether_it_is_greedy() -> None:
    echo = Echo(("a", "b", "c"), (None, -1.0, -0.5), (None, -0.5, -0.5))
    assert scored_of(echo, 1) == Scored(-1.5, 2, False)
    assert scored_of(echo, 2).greedy
    with pytest.raises(Malformed, match="first token"):
        scored_of(echo, 0)
    with pytest.raises(Malformed, match="likeliest"):
        scored_of(Echo(("a", "b"), (None, -1.0), (None, None)), 1)


def echoed(**changes: Any) -> dict[str, Any]:
    top = {"x": -0.1}
    found = {
        "tokens": ["a", " b", " c", "!"],
        "token_logprobs": [None, -1.0, -2.0, -0.1],
        "top_logprobs": [None, top, top, top],
    }
    return answer(logprobs=found | changes)


def test_what_was_generated_behind_an_echo_is_left_out() -> None:
    assert echo_of(echoed(), 1).tokens == ("a", " b", " c")
    assert echo_problem(echo_of(echoed(), 1), "a b c") is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tokens": ["a", " b"]}, "not one a token"),
        ({"tokens": [1, 2, 3, 4]}, "no text"),
        ({"token_logprobs": [None, -1.0, 3.0, -1.0]}, "are none"),
        ({"token_logprobs": [None, -1.0, float("nan"), -1.0]}, "are none"),
        ({"token_logprobs": [None, -1.0, -(10**400), -1.0]}, "are none"),
        ({"top_logprobs": [None, {"x": None}, None, None]}, "are none"),
        ({"top_logprobs": [None, {"x": "high"}, None, None]}, "are none"),
        ({"top_logprobs": [None, {"x": float("nan")}, None, None]}, "are none"),
    ],
)
def test_a_malformed_echo(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(Malformed, match=problem):
        echo_of(echoed(**changes), 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tokens": ["a", " b", " x", "!"]}, "not those of the prompt"),
        ({"token_logprobs": [None, -1.0, None, -0.1]}, "no log-probability"),
        ({"token_logprobs": [None, 0.0, 0.0, 0.0]}, "the same"),
        ({"top_logprobs": None}, "likeliest token"),
        ({"top_logprobs": [None, *[{"x": -5.0}] * 3]}, "likelier than the likeliest"),
    ],
)
def test_an_echo_that_is_not_the_prompt_s(changes: dict[str, Any], problem: str) -> None:
    found = echo_problem(echo_of(echoed(**changes), 0), "a b c!")
    assert found is not None
    assert problem in found
