"""``openai:MODEL@BASE_URL``: which model of which server. No key is ever part of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

from alignbench.errors import UsageError

FORM = "openai:MODEL@BASE_URL, for example openai:gpt2@http://127.0.0.1:8000/v1"
KEY = "OPENAI_API_KEY"
"""The environment variable that holds the key; without it no key is sent."""
SHORTEST_KEY = 8
"""A shorter key (``EMPTY``, for a server that wants none) may be a word of any text, and is looked for in a
server's error messages only."""
NO_KEY = (
    "policy openai:…: the address holds a user name, a password or a key, which would be written into every "
    "record of the run; leave it out and set the environment variable OPENAI_API_KEY"
)
SECRETS = re.compile(
    r"(^|[-_.])(api)?(key|token|secret|password|passwd|auth|authorization|signature|sig|credentials?)$", re.I
)
"""What an option in an address is called where it is a key."""


@dataclass(frozen=True)
class Target:
    """A ``model`` as its server calls it, and the server's ``url``: scheme and host in lower case, no slash
    at the end, no default port."""

    model: str
    url: str


def parse_target(text: str) -> Target:
    """Read MODEL@BASE_URL. A model's name may hold ``/``, ``:`` and ``@``.

    Raises:
        UsageError: no model or no http(s) address, or an address that holds a user's name or key; that one
            does not repeat the address.
    """
    found = re.fullmatch(r"(.*?)@(\w+://.*)", text, re.DOTALL)
    if found is None or not found[1] or not found[2]:
        refuse_secrets(text)
        raise UsageError(f"policy 'openai:{text}': write {FORM}")
    refuse_secrets(text)
    model, address = found.groups()
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme.lower() not in ("http", "https") or not host or re.search(r"\s", address):
        raise UsageError(f"policy 'openai:{text}': {address} is no http or https address; write {FORM}")
    scheme = parts.scheme.lower()
    place = f"[{host}]" if ":" in host else host
    if port is not None and port != {"http": 80, "https": 443}[scheme]:
        place += f":{port}"
    return Target(model, urlunsplit((scheme, place, parts.path.rstrip("/"), "", "")))


def refuse_secrets(text: str) -> None:
    """Raise where an address, options included, holds what looks like a key; the text is not repeated.

    Raises:
        UsageError: a user's name before the host, an option or fragment called like a key, or anywhere the
            key of the environment.
    """
    key = os.environ.get(KEY, "").strip()
    if len(key) >= SHORTEST_KEY and (key in text or key in unquote(text)):
        raise UsageError(NO_KEY)
    authority = re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]
    options = re.findall(r"[?&;#]([^=&;#?]*)=", text)
    if "@" in authority or any(SECRETS.search(option) for option in options):
        raise UsageError(NO_KEY)
