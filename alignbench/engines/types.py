"""What is asked of a policy, and what comes back. No heavy import here: every room may use these types."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from alignbench.engines.plan import Work


@dataclass(frozen=True)
class Sampling:
    """How a completion is decoded. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 are off."""

    max_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generate:
    """Continue ``prompt``. The seed belongs to the request, so the batch it shares does not change it."""

    prompt: str
    sampling: Sampling = Sampling()
    seed: int = 0


@dataclass(frozen=True)
class Score:
    """Log-likelihood of ``continuation`` after ``context``; the two are encoded as one text.

    ``rolling``: the continuation is a whole document behind an empty context, which loses nothing where it is
    longer than the model's context: it is scored in windows (``encoding.rolling_windows``). The policy's
    prefix and chat template stay away from it.
    """

    context: str
    continuation: str
    rolling: bool = False


@dataclass(frozen=True)
class Reward:
    """Scalar reward of ``response`` to ``prompt``; the two are encoded as one text, EOS appended."""

    prompt: str
    response: str


@dataclass(frozen=True)
class Completion:
    """Answer to a ``Generate``.

    ``token_ids`` holds the sampled tokens as sampled (never decoded and tokenized again), with the EOS token
    where the model ended by itself; ``text`` is cut before the first stop string and has no special tokens.
    ``logprobs`` are raw model log-probabilities (float32, natural log) of those tokens;
    ``sampling_logprobs`` those of the distribution that was sampled from (temperature, top-k, top-p); empty
    where the engine does not tell them.
    ``finish``: ``"eos"``, ``"stop"`` (a stop string) or ``"length"`` (``max_tokens`` ran out: truncated).
    ``cut``: tokens that the prompt lost on its left, because it did not fit into the model's context.
    ``n_tokens``: how many were sampled, where a server counts them and returns no ``token_ids``.
    """

    text: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampling_logprobs: tuple[float, ...]
    finish: Literal["eos", "stop", "length"]
    cut: int = 0
    n_tokens: int | None = None


@dataclass(frozen=True)
class Scored:
    """Answer to a ``Score``: summed log-probability (nats) of the target tokens, their number, whether greedy
    decoding would have produced exactly them, and how many tokens the text lost on its left to fit."""

    logprob: float
    n_tokens: int
    greedy: bool
    cut: int = 0


@dataclass(frozen=True)
class Rewarded:
    """Answer to a ``Reward``: the scalar head's value at the last token, offset applied, and how many tokens
    the text lost on its left to fit."""

    reward: float
    n_tokens: int
    cut: int = 0


@dataclass(frozen=True)
class Unanswered:
    """In place of an answer: this policy has none to this one request, and another try would give none (a
    server refuses a text that does not fit). The measurement is missing; nothing of it is kept."""

    reason: str


Request = Generate | Score | Reward
Result = Completion | Scored | Rewarded


class Engine(Protocol):
    """Three verbs for one policy. Each yields lists of ``(index into requests, result)`` as batches finish.

    The batch plan is fixed from the whole of ``requests``; indices in ``held`` (answers that the ledger has)
    are planned for and then not computed, so that a resumed run computes the same batches as a whole one.
    """

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON-able parts of the ledger key: engine, weights hash, dtype, tokenizer, template, prefix."""
        ...

    @property
    def work(self) -> Work:
        """What has been computed so far, in tokens."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What a report says of how text reaches the model, JSON-able: ``dtype``; ``chat_template``, whether
        prompts are turns of a chat; ``in_front``, the special tokens put before every text (empty: none);
        ``context_length`` in tokens, None where it is not known."""
        ...

    def generate(
        self, requests: Sequence[Generate], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]: ...

    def score(
        self, requests: Sequence[Score], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Scored]]]: ...

    def reward(
        self, requests: Sequence[Reward], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Rewarded]]]: ...
