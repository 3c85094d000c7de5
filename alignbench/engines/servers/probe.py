"""What a server can do, found out by a handful of requests of a few tokens, when a policy is opened."""

from __future__ import annotations

from dataclasses import replace

from alignbench.engines.servers.answers import Usage, echo_problem
from alignbench.engines.servers.client import Client, Failed
from alignbench.engines.servers.requests import Abilities, Answer, ask_completion, ask_echo
from alignbench.engines.servers.target import Target
from alignbench.engines.types import Generate, Sampling
from alignbench.errors import UsageError, WorkError, nearest

ATTEMPTS = 3
"""Tries of a probe: a server that is not there should be known soon."""
ECHOED = "The quick brown fox jumps over the lazy dog."
ASKED = "Write a short story about the sea."
ABSENT = (400, 404, 405, 410, 422, 501)
"""Statuses by which a server says that it has no such endpoint, or not for this model."""
REFUSED = (400, 422)
"""Statuses by which it says that it does not know a parameter."""


def probe(client: Client, target: Target, template: str) -> tuple[Abilities, list[Usage]]:
    """Ask the server; ``template``: auto, on (chat) or off (completions).

    Returns what it can do, and what asking used.

    Raises:
        UsageError: it does not serve the model, not at the endpoint asked for, or refuses the key.
        WorkError: it does not answer.
    """
    try:
        return _Probe(client, target).run(template)
    except Failed as error:
        if error.status in (401, 403):
            raise UsageError(
                f"{error}; set the environment variable OPENAI_API_KEY to a key that it knows"
            ) from None
        raise WorkError(f"{error}; is the server up, and its address right?") from None


class _Probe:
    def __init__(self, client: Client, target: Target) -> None:
        self.client, self.target = client, target
        self.used: list[Usage] = []
        self.offered: list[str] = []

    def run(self, template: str) -> tuple[Abilities, list[Usage]]:
        context_length = self._models()
        abilities = None
        refusals: list[Failed] = []
        for endpoint in {"auto": ("completions", "chat"), "on": ("chat",), "off": ("completions",)}[template]:
            try:
                abilities = self._generates(Abilities(endpoint))  # type: ignore[arg-type]
                break
            except Failed as error:
                if error.status not in ABSENT:
                    raise
                refusals.append(error)
        if abilities is None:
            raise UsageError(self._nothing(refusals, template))
        abilities = replace(abilities, context_length=context_length)
        if abilities.endpoint == "chat":
            reason = "its chat endpoint has no log-probabilities of a prompt"
            if refusals:
                reason = f"it has no completions endpoint for this model ({refusals[0].said})"
            elif template == "on":
                reason += " (chat_template=on)"
            abilities = replace(abilities, no_score=reason)
        else:
            abilities = self._scores(abilities)
        return self._seeds(abilities), self.used

    def _models(self) -> int | None:
        """Look for the model in the server's list, where it has one; its context length, where that says.

        Raises:
            UsageError: the list does not hold it.
        """
        try:
            listed = self.client.get("/models", attempts=ATTEMPTS).get("data")
        except Failed as error:
            if error.status in (*ABSENT, 500):  # it has no list
                return None
            raise
        rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
        self.offered = [name for row in rows if isinstance(name := row.get("id"), str)]
        if self.offered and self.target.model not in self.offered:
            raise UsageError(
                f"{self.target.url} does not serve the model {self.target.model!r}"
                f"{nearest(self.target.model, self.offered)}; it offers {_listed(self.offered)}"
            )
        length = next((row.get("max_model_len") for row in rows if row.get("id") == self.target.model), None)
        return length if isinstance(length, int) and length > 0 else None

    def _nothing(self, refusals: list[Failed], template: str) -> str:
        said = "; ".join(dict.fromkeys(error.said for error in refusals))
        where = {"on": "as chat", "off": "as completions", "auto": "as completions or chat"}[template]
        mend = {
            "on": "write chat_template=auto",
            "off": "write chat_template=auto",
            "auto": "check its name and the address (which mostly ends in /v1)",
        }[template]
        if self.offered:
            mend += f"; the server offers {_listed(self.offered)}"
        return f"{self.target.url} does not serve {self.target.model!r} {where} ({said}); {mend}"

    def _generates(self, abilities: Abilities) -> Abilities:
        """Ask for two tokens with all extras, and leave out what is refused."""
        extras = ["seed", "logprobs", "return_token_ids"]
        request = Generate(ASKED, Sampling(max_tokens=2))
        while True:
            tried = replace(abilities, extras=tuple(extras))
            try:
                answer = self._ask(tried, request)
            except Failed as error:
                longer = "max_completion_tokens" in error.said and abilities.length == "max_tokens"
                if error.status not in REFUSED or not (extras or longer):
                    raise
                if longer:
                    abilities = replace(abilities, length="max_completion_tokens")
                else:
                    extras.remove(next((name for name in extras if name in error.said), extras[-1]))
                continue
            called = "" if answer.model == self.target.model else answer.model
            return replace(tried, returns_ids=bool(answer.completion.token_ids), called=called)

    def _scores(self, abilities: Abilities) -> Abilities:
        """Have a text echoed with its log-probabilities, and check that they are its own."""
        problem = ""
        for generated in (0, 1):
            try:
                echo, usage = ask_echo(self.client, self.target.model, ECHOED, generated, attempts=1)
            except Failed as error:
                if error.status is not None and error.status not in ABSENT:
                    raise
                problem = error.said
                continue
            self.used.append(usage)
            found = echo_problem(echo, ECHOED)
            if found is None:
                front = self.client.redact("".join(echo.tokens).removesuffix(ECHOED))
                return replace(abilities, echoed=generated, in_front=front)
            problem = found
        return replace(abilities, no_score=problem)

    def _seeds(self, abilities: Abilities) -> Abilities:
        """Sample twice with one seed."""
        if "seed" not in abilities.extras:
            return abilities
        request = Generate(ASKED, Sampling(max_tokens=16, temperature=1.0), seed=1234)
        try:
            texts = [self._ask(abilities, request).completion.text for _ in range(2)]
        except Failed as error:
            if error.status not in REFUSED:  # one that does not sample at this temperature
                raise
            return abilities
        return replace(abilities, seeded=texts[0] == texts[1])

    def _ask(self, abilities: Abilities, request: Generate) -> Answer:
        answer = ask_completion(
            self.client, self.target.model, abilities, request, request.prompt, attempts=ATTEMPTS
        )
        self.used.append(answer.usage)
        return answer


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "")
