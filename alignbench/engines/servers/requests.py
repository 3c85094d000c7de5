"""What is sent to a server, given what it can do, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from alignbench.engines.servers.answers import Echo, Usage, completion_of, echo_of, model_of, usage_of
from alignbench.engines.servers.client import Client
from alignbench.engines.types import Completion, Generate

PATHS = {"completions": "/completions", "chat": "/chat/completions"}


@dataclass(frozen=True)
class Abilities:
    """What a server can do for one model.

    ``endpoint``: which one is asked to generate. ``extras``: what a request may hold beside what all servers
    know (``seed``, ``logprobs``, ``return_token_ids``); ``length``: its name for the most tokens to write.
    ``returns_ids``: it returns token ids, as vLLM does. ``seeded``: the same seed gave the same text twice.
    ``no_score``: why it cannot score, empty where it can; then ``echoed`` tokens have to be generated for it
    (0 or 1), and ``in_front`` is what it puts before a text. ``context_length``: in tokens, where it tells.
    ``called``: what its answers call the model, where that is another name than was asked for.
    """

    endpoint: Literal["completions", "chat"]
    extras: tuple[str, ...] = ()
    length: str = "max_tokens"
    returns_ids: bool = False
    seeded: bool = False
    no_score: str = ""
    echoed: int = 0
    in_front: str | None = None
    context_length: int | None = None
    called: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Abilities:
        """Raises TypeError or KeyError where another version of this class wrote it."""
        return cls(**{**found, "extras": tuple(found["extras"])})


@dataclass(frozen=True)
class Answer:
    """A completion, what it used, and the model's name in it (empty: none)."""

    completion: Completion
    usage: Usage
    model: str = ""


def ask_completion(
    client: Client,
    model: str,
    abilities: Abilities,
    request: Generate,
    prompt: str,
    *,
    attempts: int | None = None,
) -> Answer:
    """One completion. ``prompt``: the request's, behind the policy's prefix; the other arguments are those
    of ``Client.post``, which also says what is raised."""
    chat = abilities.endpoint == "chat"
    return client.post(
        PATHS[abilities.endpoint],
        generate_body(model, abilities, request, prompt),
        lambda payload: Answer(
            completion_of(payload, request, chat=chat), usage_of(payload), model_of(payload)
        ),
        attempts=attempts,
    )


def generate_body(model: str, abilities: Abilities, request: Generate, prompt: str) -> dict[str, Any]:
    """What is sent to have ``prompt`` continued. A server that returns token ids is vLLM, or speaks as it
    does: it takes what a request does not say from the model's own generation_config.json, so all is said."""
    sampling, chat = request.sampling, abilities.endpoint == "chat"
    body: dict[str, Any] = {"model": model}
    body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    body |= {
        abilities.length: sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.top_k > 0:
        body["top_k"] = sampling.top_k
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if "seed" in abilities.extras:
        body["seed"] = request.seed % 2**63
    if "logprobs" in abilities.extras:
        body["logprobs"] = True if chat else 0
    if "return_token_ids" in abilities.extras:
        body["return_token_ids"] = True
    if abilities.returns_ids:
        penalties = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0}
        body = {"top_k": 0, "min_p": 0.0} | penalties | body
    return body


def ask_echo(
    client: Client, model: str, text: str, generated: int, *, attempts: int | None = None
) -> tuple[Echo, Usage]:
    """``text`` with the log-probabilities of its tokens. ``generated``: tokens that the server has to write
    behind it for that, 0 or 1; they are left out. Raises as ``Client.post`` does."""
    body = {
        "model": model,
        "prompt": text,
        "max_tokens": generated,
        "temperature": 0,
        "logprobs": 1,
        "echo": True,
    }
    return client.post(
        PATHS["completions"],
        body,
        lambda payload: (echo_of(payload, generated), usage_of(payload)),
        attempts=attempts,
    )
