"""Opening a policy on a server: what it is called, what is refused, what the server can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from faulty_server import FaultyServer, reply_of

from alignbench.engines import open_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Completion, Engine, Generate, Sampling
from alignbench.errors import UsageError, WorkError

Serve = Callable[..., FaultyServer]


def opened(server: FaultyServer, options: str = "", **more: Any) -> Engine:
    return open_engine(parse_policy(server.policy(options)), **more)


def generate(engine: Engine, request: Generate) -> Completion:
    return next(engine.generate([request]))[0][1]


def test_what_a_policy_is_called() -> None:
    policy = parse_policy("openai:org/Model-7B@HTTP://LocalHost:80/v1/")
    assert (policy.name, policy.kind) == ("Model-7B", "openai")
    assert parse_policy("mine=openai:org/m@http://h/v1").name == "mine"
    assert parse_policy("openai:a@b@https://h").name == "a@b"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("openai:gpt2", "write openai:MODEL@BASE_URL"),
        ("openai:@http://h", "write openai:MODEL@BASE_URL"),
        ("openai:m@ftp://h", "no http or https address"),
        ("openai:m@http://", "no http or https address"),
        ("openai:m@http://h:port/v1", "no http or https address"),
        ("openai:m@http://h/v1?concurency=3", "did you mean 'concurrency'"),
        ("openai:m@http://h/v1?adapter=x", "the engine openai does not support 'adapter'"),
        ("openai:m@http://h/v1?dtype=float32", "the engine openai does not support 'dtype'"),
        ("openai:m@http://h/v1?device=cpu", "the engine openai does not support 'device'"),
        ("openai:m@http://h/v1?best_of=2", "the engine openai does not support 'best_of'"),
        ("openai:m@http://h/v1?generator=g", "the engine openai does not support 'generator'"),
        ("openai:m@http://h/v1?chat_template=maybe", "auto, on .chat. or off"),
        ("openai:m@http://h/v1?concurrency=0", "from 1 to 256"),
        ("openai:m@http://h/v1?concurrency=2.5", "whole number"),
        ("openai:m@http://h/v1?timeout=soon", "write seconds"),
        ("openai:m@http://h/v1?price_in=1", "both price_in and price_out"),
        ("openai:m@http://h/v1?price_in=1&price_out=-2", "a price of a million tokens"),
        ("openai:m@http://h/v1?prefix=/none.txt", "cannot be read"),
        ("tiny?concurrency=3", "the engine hf does not support 'concurrency'"),
    ],
)
def test_bad_specifications(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        open_engine(parse_policy(spec))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "spec",
    [
        "openai:m@http://user:hunter2@h/v1",
        "openai:m@http://hunter2@h/v1",
        "openai:m@http://h/v1?api_key=hunter2",
        "openai:m@http://h/v1?prefix=a&key=hunter2",
        "openai:m@http://h/v1?access_token=hunter2",
        "x=openai:m@http://user:hunter2@h/v1",
        "bad:name=openai:m@http://user:hunter2@h/v1",
    ],
)
def test_a_key_in_the_address_is_refused_and_not_repeated(spec: str) -> None:
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as error:
        parse_policy(spec)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "place", ["openai:m@http://h/{}/v1", "openai:{}@http://h/v1", "{}=openai:m@http://h/v1"]
)
def test_the_environment_s_key_in_an_address_is_refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2-hunter2")
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as error:
        parse_policy(place.format("hunter2-hunter2"))
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")  # what is said to servers that want none
    assert parse_policy(place.format("EMPTY")).kind == "openai"


def test_a_wrong_model_names_what_there_is(serve: Serve) -> None:
    server = serve(models=("toy-large", "other"))
    with pytest.raises(UsageError, match=r"the model 'toy'; it offers toy-large, other"):
        opened(server)
    with pytest.raises(UsageError, match=r"does not serve 'toy' .*`toy` does not exist"):
        opened(serve(models=("other",), listed=False))


def test_a_server_that_answers_by_another_model_s_name(serve: Serve) -> None:
    """An alias (OpenAI's dated names), or a server that takes any name and answers with what it has."""
    server = serve()
    assert "call the model" not in open_engine(parse_policy(server.policy())).describe()["server"]
    handler: Any = server._http.RequestHandlerClass
    plain = handler._complete
    handler._complete = lambda self, *words: plain(self, *words) | {"model": "toy-2024"}
    for fresh in (True, False):  # found out, and remembered
        described = open_engine(parse_policy(server.policy()), fresh=fresh).describe()["server"]
        assert "its answers call the model toy-2024;" in described


def test_no_server(serve: Serve) -> None:
    with FaultyServer() as server:
        spec = server.policy()
    with pytest.raises(WorkError, match=r"cannot be reached: .*is the server up"):
        open_engine(parse_policy(spec))
    silent = serve(key="sk-1")
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
        opened(silent)


def test_what_a_full_server_can_do(serve: Serve) -> None:
    server = serve(token_ids=True, bos="<s>")
    engine = opened(server)
    assert engine.identity == {
        "engine": "openai",
        "protocol": 1,
        "server": server.url,
        "model": "toy",
        "weights": None,
        "endpoint": "completions",
        "template": None,
        "seed": True,
        "prefix": None,
    }
    described = engine.describe()
    assert described["server"] == (
        f"{server.url}, completions; prompt log-probabilities; a seed repeats its text; "
        "no weight hash: known by its address"
    )
    assert (described["in_front"], described["context_length"], described["chat_template"]) == (
        "<s>",
        512,
        False,
    )
    assert len(server.bodies) <= 6
    assert max(body["max_tokens"] for body in server.bodies) <= 16


def test_a_server_that_refuses_what_it_does_not_know(serve: Serve) -> None:
    server = serve(refuses=("return_token_ids", "seed", "logprobs"))
    engine = opened(server)
    completion = generate(engine, Generate("a b", Sampling(max_tokens=2)))
    assert completion.text == "".join(reply_of("a b", 2))
    assert (completion.token_ids, completion.logprobs, completion.n_tokens) == ((), (), 2)
    assert {"seed", "logprobs", "return_token_ids"}.isdisjoint(server.bodies[-1])
    assert "seeds refused" in engine.describe()["server"]
    assert engine.identity["seed"] is False


def test_another_name_for_max_tokens(serve: Serve) -> None:
    server = serve(endpoints=("chat",), refuses=("return_token_ids",))
    handler = server._http.RequestHandlerClass
    plain = handler._answer  # type: ignore[attr-defined]

    def strict(self: Any, body: dict[str, Any], prompt: str, chat: bool) -> Any:
        if "max_tokens" in body and chat:
            said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return 400, {"error": {"message": said}}
        return plain(self, body, prompt, chat)

    handler._answer = strict  # type: ignore[attr-defined]
    generate(opened(server), Generate("a b", Sampling(max_tokens=3)))
    assert server.bodies[-1]["max_completion_tokens"] == 3


def test_seeds_that_do_not_repeat_are_said(serve: Serve) -> None:
    assert "a seed does not repeat its text" in opened(serve(seeded=False)).describe()["server"]


@pytest.mark.parametrize(
    ("behaviour", "options", "endpoint"),
    [
        ({}, "", "completions"),
        ({}, "?chat_template=off", "completions"),
        ({}, "?chat_template=on", "chat"),
        ({"endpoints": ("chat",)}, "", "chat"),
        ({"endpoints": ("completions",)}, "", "completions"),
    ],
)
def test_the_endpoint(serve: Serve, behaviour: dict[str, Any], options: str, endpoint: str) -> None:
    server = serve(**behaviour)
    engine = opened(server, options)
    generate(engine, Generate("a b"))
    assert ("messages" in server.bodies[-1]) == (endpoint == "chat")
    assert (engine.identity["endpoint"], engine.describe()["chat_template"]) == (endpoint, endpoint == "chat")


@pytest.mark.parametrize(
    ("behaviour", "options", "message"),
    [
        ({"endpoints": ("chat",)}, "?chat_template=off", "as completions .*chat_template=auto"),
        ({"endpoints": ("completions",)}, "?chat_template=on", "as chat .*chat_template=auto"),
        ({"endpoints": ()}, "", "as completions or chat"),
    ],
)
def test_no_such_endpoint(serve: Serve, behaviour: dict[str, Any], options: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        opened(serve(**behaviour), options)


def test_what_it_can_do_is_remembered_until_it_is_asked(serve: Serve) -> None:
    server = serve()
    first = opened(server)
    probes = len(server.bodies)
    second = opened(server)
    assert len(server.bodies) == probes  # nothing was asked
    assert (dict(second.identity), dict(second.describe())) == (dict(first.identity), dict(first.describe()))
    generate(second, Generate("a b"))
    assert len(server.bodies) == 2 * probes + 1
    opened(server, fresh=True)
    assert len(server.bodies) == 3 * probes + 1


def test_a_server_that_has_become_another_is_noticed(serve: Serve) -> None:
    server = serve()
    opened(server)
    server.behaviour.endpoints = ("chat",)
    with pytest.raises(WorkError, match="offers other endpoints"):
        generate(opened(server), Generate("a b"))
    assert opened(server).identity["endpoint"] == "chat"
