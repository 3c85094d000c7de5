"""Requests over HTTP: what is tried again, how long is waited, and that the key is nowhere to be read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from faulty_server import FaultyServer
from hypothesis import given
from hypothesis import strategies as st

from alignbench.engines.servers import client as server_client
from alignbench.engines.servers.client import (
    Client,
    Failed,
    Retries,
    Secret,
    message_of,
    seconds_to_wait,
)
from alignbench.errors import UsageError

KEY = "sk-planted/0123456789"
BODY = {"model": "toy", "prompt": "a b", "max_tokens": 1, "temperature": 0}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before other tries, which take no time."""
    found: list[float] = []
    monkeypatch.setattr(server_client, "pause", lambda seconds, closing: found.append(seconds))
    return found


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as found:
        yield found


def make(url: str, secret: str = "", timeout: float = 5.0, **retries: Any) -> Client:
    return Client(url, Secret(secret), connections=2, timeout=timeout, retries=Retries(**retries))


def ask(client: Client, body: dict[str, Any] = BODY) -> Any:
    return client.post("/completions", body, lambda payload: payload["choices"][0]["text"])


@pytest.mark.parametrize("fault", ["429", "500", "503", "408", "reset", "half", "short"])
def test_what_another_try_may_mend(fault: str, server: FaultyServer, waits: list[float]) -> None:
    server.behaviour.faults.extend([fault, fault])
    client = make(server.url)
    assert ask(client).startswith(" ")
    assert (server.asked["a b"], client.tries, client.again, len(waits)) == (3, 3, 2, 2)


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "422", "501"])
def test_a_refusal_is_final(status: str, server: FaultyServer, waits: list[float]) -> None:
    server.behaviour.faults.append(status)
    with pytest.raises(Failed, match=f"told to say {status}") as error:
        ask(make(server.url))
    assert error.value.status == int(status)
    assert (server.asked["a b"], waits) == (1, [])


def test_tries_are_bounded(server: FaultyServer, waits: list[float]) -> None:
    server.behaviour.always["a b"] = "500"
    with pytest.raises(Failed, match=r"HTTP 500: told to say 500 \(tried 4 times\)"):
        ask(make(server.url, attempts=4))
    assert server.asked["a b"] == 4


def test_silence_is_a_time_out(server: FaultyServer, waits: list[float]) -> None:
    server.behaviour.always["a b"] = "silence"
    with pytest.raises(Failed, match=r"no answer within 0\.2 s \(tried 2 times\)"):
        ask(make(server.url, timeout=0.2, attempts=2))


@pytest.mark.parametrize(
    ("fault", "said"), [("drip", r"does not end within 0\.3 s"), ("flood", "longer than")]
)
def test_an_answer_without_end(
    fault: str, said: str, server: FaultyServer, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_client, "LONGEST_ANSWER", 2**22)
    server.behaviour.always["a b"] = fault
    timeout = 0.3 if fault == "drip" else 30.0
    with pytest.raises(Failed, match=rf"{said}.*\(tried 2 times\)"):
        ask(make(server.url, timeout=timeout, attempts=2))


@pytest.mark.parametrize(
    ("name", "value"),
    [("HTTP_PROXY", "strange://u:pass@host:1"), ("SSL_CERT_FILE", "/nowhere/there is none.pem")],
)
def test_an_environment_that_cannot_be_used(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=rf"cannot be asked \(.*mend the variables .*{name}") as error:
        make("http://127.0.0.1:9/v1")
    assert "pass@" not in str(error.value)


def test_a_redirect_is_not_followed(server: FaultyServer, waits: list[float]) -> None:
    """The key would go along, to whoever is there."""
    with FaultyServer() as other:
        handler: Any = server._http.RequestHandlerClass
        handler.fail = lambda self, *words: self._raw(307, b"", 0, {"Location": f"{other.url}/completions"})
        server.behaviour.faults.append("redirect")
        with pytest.raises(Failed, match="HTTP 307"):
            ask(make(server.url, KEY))
        assert other.headers == []


def test_half_a_character_is_none(server: FaultyServer) -> None:
    handler: Any = server._http.RequestHandlerClass
    handler._answer = lambda self, *words: (200, {"choices": [{"text": " sea \ud83d"}]})
    assert ask(make(server.url)) == " sea \ufffd"


def test_nobody_listens(waits: list[float]) -> None:
    with FaultyServer() as server:
        url = server.url
    with pytest.raises(Failed, match=r"cannot be reached: .*\(tried 2 times\)"):
        ask(make(url, attempts=2))


@pytest.mark.parametrize(
    ("after", "least", "most"), [("7", 7.0, 7.5), ("0", 0.0, 0.5), (formatdate(4e9, usegmt=True), 1e9, 4e9)]
)
def test_the_wait_that_a_server_asks_for(
    after: str, least: float, most: float, server: FaultyServer, waits: list[float]
) -> None:
    server.behaviour.faults.append(f"429 {after}")
    ask(make(server.url, base=0.5, longest=1e10))
    assert least <= waits[0] <= most


def test_a_wait_that_is_too_long_is_an_error(server: FaultyServer, waits: list[float]) -> None:
    server.behaviour.faults.append("429 7200")
    with pytest.raises(Failed, match="asks to wait 7,200 s"):
        ask(make(server.url))
    assert waits == []


@given(st.integers(1, 30))
def test_backoff_is_exponential_with_full_jitter(attempt: int) -> None:
    retries = Retries(base=1.0, most=60.0)
    most = min(60.0, 2.0 ** (attempt - 1))
    drawn = [retries.wait(attempt, None) for _ in range(200)]
    assert 0 <= min(drawn) < 0.2 * most
    assert 0.8 * most < max(drawn) <= most


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("12", 12.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("nan", None),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:02:00 -0000", 20.0),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert seconds_to_wait(header, now=100.0) == seconds


def test_a_date_is_read_by_the_server_s_clock(server: FaultyServer, waits: list[float]) -> None:
    handler: Any = server._http.RequestHandlerClass
    handler.date_time_string = lambda self, timestamp=None: "Thu, 01 Jan 1970 00:00:00 GMT"
    server.behaviour.faults.append("429 Thu, 01 Jan 1970 00:00:09 GMT")
    ask(make(server.url, base=0.5))
    assert 9 <= waits[0] <= 9.5


def test_when_closing_nothing_is_tried_again(server: FaultyServer) -> None:
    server.behaviour.always["a b"] = "429 300"
    client = make(server.url)
    threading.Timer(0.2, client.closing.set).start()
    with pytest.raises(Failed):  # without waiting 300 s
        ask(client)
    assert server.asked["a b"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"error": {"message": "too long", "code": 400}}', "too long"),
        ('{"error": "no such model"}', "no such model"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"object": "error", "message": "bad\\nline"}', "bad line"),
        ("<html>gateway</html>", "<html>gateway</html>"),
        ("", "nothing more"),
        ("x" * 1000, "x" * 299 + "…"),
    ],
)
def test_the_server_s_own_words(text: str, said: str) -> None:
    assert message_of(text) == said


# --- the key -----------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_shown_nowhere(server: FaultyServer, waits: list[float]) -> None:
    server.behaviour.faults.append("leak")
    client = make(server.url, KEY)
    with pytest.raises(Failed) as error:
        ask(client)
    assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"
    assert "cannot take Bearer [key] from you" in str(error.value)
    assert KEY not in repr(Secret(KEY)) + str(Secret(KEY)) + repr(vars(client)) + repr(vars(error.value))
    assert error.value.__cause__ is None


def test_a_refused_key_is_named_and_not_shown(server: FaultyServer) -> None:
    server.behaviour.key = "another"
    for key, words in ((KEY, "refuses the key in OPENAI_API_KEY"), ("", "OPENAI_API_KEY is not set")):
        with pytest.raises(Failed, match=words) as error:
            ask(make(server.url, key))
        assert KEY not in str(error.value)


def test_no_key_no_header(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    ask(make(server.url))
    assert "Authorization" not in server.headers[-1]
    assert not Secret.from_environment()


def test_a_key_that_no_header_can_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " sk-abc\n")
    assert Secret.from_environment().headers() == {"Authorization": "Bearer sk-abc"}
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ab\nc")
    with pytest.raises(UsageError, match="no HTTP header can carry") as error:
        Secret.from_environment()
    assert "sk-ab" not in str(error.value)


@pytest.mark.parametrize("text", [f"a {KEY} b", f'{{"k": "{KEY}"}}', 'a "sk-planted\\/0123456789"'])
def test_redaction(text: str) -> None:
    found = Secret(KEY).redact(text)
    assert "planted" not in found
    assert "[key]" in found


def test_a_key_that_json_writes_otherwise(server: FaultyServer, waits: list[float]) -> None:
    """Every character may be written by its number; and a message is cut only when the key is out of it."""
    handler: Any = server._http.RequestHandlerClass
    plain = handler._raw
    escaped = "".join(f"\\u{ord(character):04x}" for character in KEY).encode()

    def raw(self: Any, status: int, data: bytes, length: int, headers: Any = None) -> None:
        data = data.replace(b"HERE", escaped)
        plain(self, status, data, len(data), headers)

    handler._raw = raw
    handler._answer = lambda self, *words: (200, {"choices": [{"text": "my key: HERE"}]})
    client = make(server.url, KEY)
    assert ask(client) == "my key: [key]"
    handler._answer = lambda self, *words: (400, {"error": {"message": "x" * 290 + " HERE"}})
    with pytest.raises(Failed) as error:
        ask(client)
    assert "[key]" in str(error.value)
    assert KEY[:6] not in str(error.value)


@pytest.mark.parametrize("key", ["EMPTY", "x", "text", "0"])
def test_a_key_that_is_a_word_leaves_answers_alone(key: str, server: FaultyServer) -> None:
    """vLLM's users set ``EMPTY`` where the server wants no key; texts and JSON may hold such words."""
    handler: Any = server._http.RequestHandlerClass
    handler._answer = lambda self, *words: (200, {"choices": [{"text": "an EMPTY box, 0 x text"}]})
    assert ask(make(server.url, key)) == "an EMPTY box, 0 x text"
