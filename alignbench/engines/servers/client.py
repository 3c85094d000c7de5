"""One server over HTTP: a request is tried again where that can help, and what finally fails is one sentence.

The key comes from the environment, goes into the one header that needs it, and is taken out of everything
that the server says, so that it can be written nowhere.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from alignbench.engines.servers.target import KEY, SHORTEST_KEY
from alignbench.errors import UsageError, WorkError

T = TypeVar("T")
HIDDEN = "[key]"
AGAIN = frozenset({408, 425, 429, *range(500, 600)} - {501, 505})
"""HTTP statuses that another try may mend: overload and failures of the server, not refusals."""
SHOWN = 300
"""Characters of a server's own words that a message quotes."""
LONGEST_ANSWER = 64 * 2**20
"""Bytes of an answer that are read; no model's text is longer."""
SURROGATES = re.compile("[\ud800-\udfff]")
"""Halves of characters, as JSON can write them and no file can hold them."""


@dataclass(frozen=True)
class Retries:
    """How often and when a request is tried again. The wait before another try is drawn from 0 to ``base``
    seconds, doubled with each try, at most ``most`` (exponential backoff with full jitter). Where the server
    names a time (``Retry-After``) it is that and a little jitter; one of more than ``longest`` seconds is not
    waited for."""

    attempts: int = 6
    base: float = 1.0
    most: float = 60.0
    longest: float = 600.0

    def wait(self, attempt: int, after: float | None) -> float:
        """Seconds before the next try, when ``attempt`` tries (from 1) have failed."""
        if after is not None:
            return after + random.uniform(0, self.base)
        return random.uniform(0, min(self.most, self.base * 2 ** (attempt - 1)))


RETRIES = Retries()


class Failed(WorkError):
    """A request that got no answer. ``status``: of HTTP, None where there was none; ``said``: the server's
    own words, else what happened."""

    def __init__(self, message: str, said: str, status: int | None = None) -> None:
        super().__init__(message)
        self.said, self.status = said, status


class Malformed(ValueError):
    """An answer that is not what was asked for, so that another try may help."""


class Secret:
    """The key, or none; printing it shows nothing."""

    def __init__(self, value: str = "") -> None:
        self._value = value

    @classmethod
    def from_environment(cls) -> Secret:
        """The key in ``OPENAI_API_KEY``.

        Raises:
            UsageError: it holds what no HTTP header can carry.
        """
        value = os.environ.get(KEY, "").strip()
        if not all("!" <= character <= "~" for character in value):
            raise UsageError(f"{KEY} holds a character that no HTTP header can carry; set it again")
        return cls(value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return f"Secret({HIDDEN if self else ''})"

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._value}"} if self else {}

    def redact(self, text: str) -> str:
        """The text without the key, also as JSON may write it."""
        if not self or not text:
            return text
        written = json.dumps(self._value)[1:-1]
        for form in (self._value, written, written.replace("/", "\\/")):
            text = text.replace(form, HIDDEN)
        return text

    def cleaned(self, value: Any) -> Any:
        """A JSON value whose texts hold neither the key nor halves of characters. It is looked for in what
        was read, as JSON can write every character in two ways; names and numbers stay as they are."""
        if isinstance(value, str):
            whole = SURROGATES.sub("\ufffd", value)
            return self.redact(whole) if len(self._value) >= SHORTEST_KEY else whole
        if isinstance(value, dict):
            return {name: self.cleaned(each) for name, each in value.items()}
        return [self.cleaned(each) for each in value] if isinstance(value, list) else value


def pause(seconds: float, closing: threading.Event) -> None:
    """Wait before another try, no longer than until ``closing`` is set."""
    closing.wait(seconds)


class Client:
    """Sends JSON, gets JSON; any thread may use it.

    Args:
        url: of the server, without a slash at its end.
        secret: its key.
        connections: requests that are under way at once, at most.
        timeout: seconds that a server may be silent, and that an answer which has begun may take.
        retries: see ``Retries``; ``RETRIES`` by default.

    Attributes:
        closing: once it is set nothing is tried again, and nobody waits.
        tries: requests sent, with those that were sent again.
        again: those that were sent again.

    Raises:
        UsageError: the environment names a proxy or certificates that cannot be used.
    """

    def __init__(
        self, url: str, secret: Secret, *, connections: int, timeout: float, retries: Retries | None = None
    ) -> None:
        import httpx2

        self.url, self.closing = url, threading.Event()
        self.tries = self.again = 0
        self._secret, self._retries, self._timeout = secret, retries or RETRIES, timeout
        self._lock = threading.Lock()
        self._errors = (httpx2.RequestError, httpx2.InvalidURL)
        self._slow = httpx2.TimeoutException
        try:
            self._http = httpx2.Client(
                headers=secret.headers(),
                timeout=httpx2.Timeout(timeout, connect=min(timeout, 30.0), pool=None),
                limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            )
        except (ValueError, ImportError, OSError) as error:  # what the environment says is read there
            raise UsageError(
                f"{url} cannot be asked ({str(error).rstrip('.')}); mend the variables HTTP_PROXY, "
                "HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
            ) from None

    def redact(self, text: str) -> str:
        """The text without the key."""
        return self._secret.redact(text)

    def get(self, path: str, *, attempts: int | None = None) -> Mapping[str, Any]:
        """The JSON object at ``path``; raises as ``post`` does."""
        return self._ask("GET", path, None, lambda payload: payload, attempts)

    def post(
        self,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[Mapping[str, Any]], T],
        *,
        attempts: int | None = None,
    ) -> T:
        """Send ``body``; what ``read`` makes of the answer.

        Args:
            path: after the server's address.
            read: raises ``Malformed`` where the answer is not what was asked for.
            attempts: tries at most; those of ``retries`` by default.

        Raises:
            Failed: refused, or every try failed.
        """
        return self._ask("POST", path, body, read, attempts)

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Mapping[str, Any]], T],
        attempts: int | None,
    ) -> T:
        most = attempts or self._retries.attempts
        attempt = 0
        while True:
            attempt += 1
            with self._lock:
                self.tries += 1
                self.again += attempt > 1
            answer, after, failed = self._once(method, path, body, read)
            if failed is None:
                return answer  # type: ignore[return-value]  # it is one where nothing failed
            if failed.status is not None and failed.status not in AGAIN:
                raise failed
            if after is not None and after > self._retries.longest:
                raise Failed(f"{failed}, and asks to wait {after:,.0f} s", failed.said, failed.status)
            if attempt < most and not self.closing.is_set():
                pause(self._retries.wait(attempt, after), self.closing)
            if attempt == most or self.closing.is_set():
                tries = f" (tried {attempt} times)" if attempt > 1 else ""
                raise Failed(f"{failed}{tries}", failed.said, failed.status)

    def _once(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Mapping[str, Any]], T],
    ) -> tuple[T | None, float | None, Failed | None]:
        """One try: the answer, the seconds that the server asks to wait, and what failed."""
        try:
            with self._http.stream(method, self.url + path, json=body) as response:
                text = self._text(response.iter_bytes())
        except Malformed as error:
            return None, None, Failed(f"{self.url} answers nothing that can be read: {error}", str(error))
        except self._slow:
            said = f"no answer within {self._timeout:g} s"
            return None, None, Failed(f"{self.url} gives {said}", said)
        except self._errors as error:  # its text, not itself: it holds the request and so the key
            said = self._secret.redact(" ".join(str(error).split())) or type(error).__name__
            return None, None, Failed(f"{self.url} cannot be reached: {said}", said)
        if not response.is_success:
            headers = response.headers  # a date is the server's, whose clock may be another
            after = seconds_to_wait(headers.get("retry-after"), _time_of(headers.get("date")))
            return None, after, self._refusal(response.status_code, text)
        try:
            payload = self._secret.cleaned(json.loads(text))
            if not isinstance(payload, dict):
                raise Malformed("its answer is no JSON object")
            return read(payload), None, None
        except Malformed as error:
            said = self._secret.redact(str(error))
        except (ValueError, RecursionError):
            said = "its answer is no valid JSON"
        return None, None, Failed(f"{self.url} answers nothing that can be read: {said}", said)

    def _text(self, parts: Iterator[bytes]) -> str:
        """An answer's text.

        Raises:
            Malformed: there is no end of it.
        """
        began, held, size = time.monotonic(), list[bytes](), 0
        for part in parts:
            held.append(part)
            size += len(part)
            if size > LONGEST_ANSWER:
                raise Malformed(f"its answer is longer than {LONGEST_ANSWER // 2**20} MiB")
            if time.monotonic() - began > self._timeout:
                raise Malformed(f"its answer does not end within {self._timeout:g} s")
        return b"".join(held).decode(errors="replace")  # JSON is UTF-8

    def _refusal(self, status: int, text: str) -> Failed:
        said = message_of(text, self._secret.redact)
        if status in (401, 403):
            mend = f"the key in {KEY}" if self._secret else f"a request without a key ({KEY} is not set)"
            return Failed(f"{self.url} refuses {mend}: HTTP {status}: {said}", said, status)
        return Failed(f"{self.url} says HTTP {status}: {said}", said, status)


def seconds_to_wait(header: str | None, now: float | None = None) -> float | None:
    """``Retry-After`` in seconds from ``now`` (of ``time.time``): a number, or a date; None where it is
    neither."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        until = _time_of(header)
        if until is None:
            return None
        seconds = until - (time.time() if now is None else now)
    return max(0.0, seconds) if seconds == seconds else None


def _time_of(header: str | None) -> float | None:
    """A date of HTTP as ``time.time`` counts; None where it is none."""
    try:
        date = parsedate_to_datetime(header or "")
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def message_of(text: str, redact: Callable[[str], str] = str) -> str:
    """A server's words about what it refuses, in one line: from the JSON that OpenAI, vLLM and others send,
    else the text itself. ``redact`` sees all of them, before they are cut to a message's length."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    for _ in range(3):
        if not isinstance(found, dict):
            break
        found = next((found[name] for name in ("error", "message", "detail") if found.get(name)), str(found))
    line = SURROGATES.sub("\ufffd", redact(" ".join(str(found).split()))) or "nothing more"
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
