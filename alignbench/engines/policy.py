"""``[NAME=]SPEC[?key=value&…]``: how a policy is named on the command line."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from alignbench.engines.servers.target import parse_target, refuse_secrets
from alignbench.errors import UsageError, nearest
from alignbench.sources.files import stem

KINDS = ("hf", "vllm", "openai", "recorded")
_WEIGHTS = ("adapter", "dtype", "device", "prefix", "chat_template")
OPTIONS = {
    "hf": _WEIGHTS,
    "vllm": (*_WEIGHTS, "tensor_parallel", "data_parallel"),
    "openai": ("prefix", "chat_template", "concurrency", "timeout", "price_in", "price_out"),
    "recorded": ("generator", "task", "sample"),
}
"""Engine → the options that it has."""
KNOWN = (*dict.fromkeys(option for each in OPTIONS.values() for option in each), "best_of")


@dataclass(frozen=True)
class Policy:
    """A parsed policy: display ``name``, the ``spec`` as typed (without the name), engine ``kind``,
    ``target`` (path, hub id, file or MODEL@URL), hub ``revision`` and the options after ``?``."""

    name: str
    spec: str
    kind: str
    target: str
    revision: str | None = None
    options: dict[str, str] = field(default_factory=dict)


def parse_policy(text: str) -> Policy:
    """Parse one POLICY argument.

    Raises:
        UsageError: empty specification, unknown option, an option without a value, or a server's address
            that is none or holds a key.
    """
    if "openai:" in text:
        refuse_secrets(text)  # before anything repeats it
    name, spec = "", text
    named = re.match(r"^([\w.+ -]+)=(.+)$", text.split("?", 1)[0])
    if named:
        name, spec = named.group(1), text[len(named.group(1)) + 1 :]
    body, _, query = spec.partition("?")
    if not body:
        raise UsageError(f"policy {text!r} names no model: write [NAME=]PATH_OR_HUB_ID[?key=value]")
    kind, target = "hf", body
    head, colon, rest = body.partition(":")
    if colon and head in KINDS:
        kind, target = head, rest
    if kind == "openai":
        served = parse_target(target).model
        name = name or served.rstrip("/").rsplit("/", 1)[-1]
    revision = None
    if kind in ("hf", "vllm") and "@" in target and not os.path.isdir(target):
        target, _, revision = target.rpartition("@")
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, eq, value = part.partition("=")
        if key not in KNOWN:
            raise UsageError(f"policy {text!r}: unknown option {key!r}{nearest(key, KNOWN)}")
        if not eq or not value:
            raise UsageError(f"policy {text!r}: option {key!r} has no value; write {key}=VALUE")
        options[key] = unquote(value)
    if not name and kind == "recorded":
        name = options.get("generator") or stem(target)
    if not name:
        name = re.sub(r"[/\\]+$", "", target).replace("\\", "/").rsplit("/", 1)[-1] or target
    return Policy(name, spec, kind, target, revision, options)


def require_options(policy: Policy, engine: str) -> None:
    """Refuse what an engine does not have.

    Args:
        engine: a key of ``OPTIONS``.

    Raises:
        UsageError: the policy has an option that the engine has not.
    """
    for option in policy.options:
        if option not in OPTIONS[engine]:
            raise UsageError(
                f"policy {policy.spec!r}: the engine {engine} does not support {option!r}; leave it out "
                f"(it has {', '.join(OPTIONS[engine])})"
            )
