"""A server of our own on loopback that speaks OpenAI's completions and chat, and fails as it is told.

Its model is a function of the text: tokens are words with the space before them, and their log-probabilities
and what follows a prompt come from hashes. Every answer is known beforehand (``logprob_of``, ``reply_of``).
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ("sea", "wind", "salt", "ship", "gull", "wave", "sand", "rope")
PROBES = ("The quick brown fox", "Write a short story")
"""How the prompts begin that find out what the server can do; they are not counted, and do not fail."""


def tokens_of(text: str) -> list[str]:
    """Words with the space before them, and single other characters."""
    return re.findall(r" ?\w+|[^\w]", text)


def number_of(*parts: object) -> float:
    """A number in [0, 1) that follows from the parts."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def logprob_of(before: str, token: str) -> float:
    """Of a token behind a text: between −8 and −0.1."""
    return -0.1 - 7.9 * number_of("logprob", before, token)


def is_likeliest(before: str, token: str) -> bool:
    return number_of("greedy", before, token) < 0.5


def reply_of(prompt: str, max_tokens: int, seed: int | None = None) -> list[str]:
    """The tokens that follow a prompt."""
    return [" " + WORDS[int(number_of("reply", prompt, seed, i) * len(WORDS))] for i in range(max_tokens)]


@dataclass
class Behaviour:
    """What the server has and how it fails. ``faults``: of the next requests that are no probes, by name (see
    ``Handler.fail``); ``always``: of every such request whose prompt holds the text."""

    models: tuple[str, ...] = ("toy",)
    listed: bool = True
    endpoints: tuple[str, ...] = ("completions", "chat")
    echo: str = "yes"
    """``yes``, or how it is none: ``refused``, ``ignored``, ``bare`` (no logprobs), ``zeros``, ``other``."""
    least: int = 0
    """Tokens that an echo must write at least."""
    bos: str = ""
    refuses: tuple[str, ...] = ()
    token_ids: bool = False
    seeded: bool = True
    usage: bool = True
    key: str | None = None
    faults: deque[str] = field(default_factory=deque)
    always: dict[str, str] = field(default_factory=dict)


class FaultyServer:
    """A context manager; ``url`` is its address. ``asked``: how often each prompt arrived, ``paid``: how
    often it was answered in full; ``bodies``: what arrived, probes included; ``most``: requests at once."""

    def __init__(self, **behaviour: Any) -> None:
        faults = deque(behaviour.pop("faults", ()))
        self.behaviour = Behaviour(**behaviour, faults=faults)
        self.asked: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.running = self.most = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"faulty": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> FaultyServer:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def policy(self, options: str = "", model: str = "toy") -> str:
        return f"openai:{model}@{self.url}{options}"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    faulty: FaultyServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        behaviour = self.faulty.behaviour
        if self._unauthorised():
            return
        if self.path != "/v1/models" or not behaviour.listed:
            self._error(404, "Not Found")
            return
        self._send(200, {"data": [{"id": name, "max_model_len": 512} for name in behaviour.models]})

    def do_POST(self) -> None:
        faulty, behaviour = self.faulty, self.faulty.behaviour
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.path.endswith("/chat/completions")
        prompt = body["messages"][0]["content"] if chat else body.get("prompt", "")
        with faulty.lock:
            faulty.bodies.append(body)
            faulty.headers.append(dict(self.headers))
            faulty.running += 1
            faulty.most = max(faulty.most, faulty.running)
            fault = None
            if not prompt.startswith(PROBES):
                faulty.asked[prompt] += 1
                always = [name for text, name in behaviour.always.items() if text in prompt]
                fault = always[0] if always else behaviour.faults.popleft() if behaviour.faults else None
        try:
            if self._unauthorised():
                return
            if fault == "slow":  # an answer all the same
                time.sleep(0.3)
            elif fault not in (None, "ok"):
                self.fail(str(fault), body, prompt, chat)
                return
            status, payload = self._answer(body, prompt, chat)
            if status == 200 and not prompt.startswith(PROBES):
                with faulty.lock:
                    faulty.paid[prompt] += 1
            self._send(status, payload)
        finally:
            with faulty.lock:
                faulty.running -= 1

    def fail(self, fault: str, body: dict[str, Any], prompt: str, chat: bool) -> None:
        """``429``, ``429 SECONDS`` and ``429 DATE`` (Retry-After), any other status, ``reset``, ``half`` (of
        the JSON), ``short`` (less than its Content-Length), ``nonsense`` (JSON of another kind), ``silence``,
        ``leak`` (a refusal that quotes the request's headers), ``drip`` (a byte now and then), ``flood``
        (without end)."""
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault in ("half", "short"):
            text = json.dumps(self._answer(body, prompt, chat)[1]).encode()
            half = text[: len(text) // 2]
            self._raw(200, half, len(half) if fault == "half" else len(text))
            self.close_connection = fault == "short"
        elif fault == "nonsense":
            self._send(200, {"object": "list", "data": []})
        elif fault == "silence":
            self.faulty.closing.wait(30)
            self.close_connection = True
        elif fault in ("drip", "flood"):
            self._raw(200, b" ", 2**40)
            self.close_connection = True
            with suppress(OSError):
                while not self.faulty.closing.wait(0.05 if fault == "drip" else 0):
                    self.wfile.write(b" " if fault == "drip" else b" " * 2**20)
        elif fault == "leak":
            self._error(400, f"cannot take {self.headers.get('Authorization')} from you")
        else:
            status, _, after = fault.partition(" ")
            self._error(int(status), f"told to say {status}", {"Retry-After": after} if after else {})

    def _unauthorised(self) -> bool:
        key = self.faulty.behaviour.key
        given = self.headers.get("Authorization", "")
        if key is None or given == f"Bearer {key}":
            return False
        self._error(401, f"Incorrect API key provided: {given}")
        return True

    def _answer(self, body: dict[str, Any], prompt: str, chat: bool) -> tuple[int, dict[str, Any]]:
        behaviour = self.faulty.behaviour
        if ("chat" if chat else "completions") not in behaviour.endpoints:
            return 404, {"error": {"message": "Not Found"}}
        if body["model"] not in behaviour.models:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        for name in behaviour.refuses:
            if name in body:
                return 400, {"error": {"message": f"Unrecognized request argument supplied: {name}"}}
        if body.get("echo") and behaviour.echo == "refused":
            return 400, {"error": {"message": "echo is not supported"}}
        return 200, self._complete(body, prompt, chat)

    def _complete(self, body: dict[str, Any], prompt: str, chat: bool) -> dict[str, Any]:
        behaviour, faulty = self.faulty.behaviour, self.faulty
        echo = bool(body.get("echo")) and behaviour.echo != "ignored"
        n = max(body.get("max_tokens", body.get("max_completion_tokens", 16)), behaviour.least if echo else 0)
        seed = body.get("seed") if body["temperature"] > 0 else None
        if body["temperature"] > 0 and not behaviour.seeded:
            with faulty.lock:
                seed = len(faulty.bodies)
        written = reply_of(prompt, n, seed)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        stopped = [i for i, token in enumerate(written) if any(s in token for s in body.get("stop", []))]
        if stopped:
            stop = next(s for s in body["stop"] if s in written[stopped[0]])
            written = written[: stopped[0] + 1]
            choice |= {"finish_reason": "stop", "stop_reason": stop}
        text = "".join(written[:-1] if stopped else written)
        front = [behaviour.bos] if behaviour.bos else []
        read = front + tokens_of(prompt)
        tokens = (read if echo else []) + written
        choice |= (
            {"message": {"role": "assistant", "content": text}} if chat else {"text": prompt * echo + text}
        )
        if behaviour.token_ids and body.get("return_token_ids"):
            choice["token_ids"] = [int(number_of(token) * 1000) for token in written]
        if "logprobs" in body and not (echo and behaviour.echo == "bare"):
            choice["logprobs"] = self._logprobs("" if echo else prompt, tokens, chat)
        answer = {"model": body["model"], "choices": [choice]}
        if behaviour.usage:
            answer["usage"] = {"prompt_tokens": len(read), "completion_tokens": len(written)}
        return answer

    def _logprobs(self, before: str, tokens: list[str], chat: bool) -> dict[str, Any]:
        kind = self.faulty.behaviour.echo
        values, tops, offsets = list[float | None](), list[dict[str, float] | None](), list[int]()
        for token in tokens:
            context = before.removeprefix(self.faulty.behaviour.bos)
            value = 0.0 if kind == "zeros" else logprob_of(context, token)
            best = value if is_likeliest(context, token) else value * 0.5
            offsets.append(len(before))
            values.append(None if not before else value)
            tops.append(None if not before else {token: value, "\0": best})
            before += token
        if chat:
            return {"content": [{"token": t, "logprob": -1.0} for t in tokens]}
        shown = tokens if kind != "other" else [token.upper() for token in tokens]
        return {"tokens": shown, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def _error(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, {"error": {"message": message, "code": status}}, headers)

    def _send(self, status: int, payload: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(payload).encode()
        self._raw(status, data, len(data), headers)

    def _raw(self, status: int, data: bytes, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
