"""From requests to token ids: prefix, chat template, special tokens, and what is cut to fit the context.

A tokenizer and a config are enough, so that what reaches a model can be shown and counted without weights.
Torch is not imported here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignbench.engines.encoding import encode_pairs, encode_texts, special_prefix
from alignbench.engines.identity import locate, read_prefix
from alignbench.engines.policy import Policy
from alignbench.engines.types import Generate, Request, Reward, Score
from alignbench.errors import UsageError


@dataclass(frozen=True)
class Tokens:
    """Token ids as the model gets them, one sequence (at least one id) a request.

    ``starts``: where a continuation's own tokens begin (at least 1); the sequence's length for a prompt and
    for a reward. ``cuts``: how many tokens each lost on its left.
    """

    sequences: list[list[int]]
    starts: list[int]
    cuts: list[int]


class Inputs:
    """How one policy's requests become token ids.

    Args:
        tokenizer: a Hugging Face tokenizer.
        prefix: text put before every prompt and context.
        chat_template: ``"on"``: a prompt is the user's turn in the tokenizer's chat template; ``"auto"``:
            where it has one; ``"off"`` or None: plain text.
        window: tokens that the model attends to at most; None: no limit.

    Raises:
        UsageError: ``chat_template="on"`` with a tokenizer that has none.
    """

    def __init__(
        self, tokenizer: Any, *, prefix: str = "", chat_template: str | None = None, window: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.prefix = prefix
        self.templated = uses_template(tokenizer, chat_template)
        self.window = window

    def render(self, prompt: str) -> str:
        """The text that a prompt becomes, exactly as it is encoded (before BOS)."""
        if not self.templated:
            return self.prefix + prompt
        turns = [{"role": "user", "content": self.prefix + prompt}]
        text: str = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text

    @property
    def in_front(self) -> list[int]:
        """Ids that the tokenizer puts in front of every text: BOS or nothing, for most. None where a template
        is used, which writes its own."""
        return [] if self.templated else special_prefix(self.tokenizer)

    def describe(self) -> dict[str, Any]:
        """Part of ``Engine.describe``."""
        return {
            "chat_template": self.templated,
            "in_front": "".join(self.tokenizer.convert_ids_to_tokens(self.in_front)),
            "context_length": self.window,
        }

    def text(self, request: Request) -> str:
        """The whole text of a request as it is encoded (before BOS, and before EOS behind a reward's)."""
        if isinstance(request, Reward):
            return self._dialogue(request)
        if isinstance(request, Generate):
            return self.render(request.prompt)
        return (
            request.continuation if request.rolling else self.render(request.context) + request.continuation
        )

    def encode(self, requests: Sequence[Request]) -> Tokens:
        """Token ids of requests of one kind: ``prompts``, ``pairs`` or ``rewards``."""
        generates = [request for request in requests if isinstance(request, Generate)]
        scores = [request for request in requests if isinstance(request, Score)]
        if generates or scores:
            return self.prompts(generates) if generates else self.pairs(scores)
        return self.rewards([request for request in requests if isinstance(request, Reward)])

    def prompts(self, requests: Sequence[Generate]) -> Tokens:
        """The prompts to continue. One that leaves no room for its ``max_tokens`` loses tokens on its left;
        an empty one is the start token.

        Raises:
            UsageError: sampling parameters out of range, no room for any prompt, or an empty prompt with a
                tokenizer that has neither BOS nor EOS.
        """
        for request in requests:
            check_sampling(request, self.window)
        texts = [self.render(request.prompt) for request in requests]
        ids = encode_texts(self.tokenizer, texts, special=not self.templated)
        return self._fit(ids, [request.sampling.max_tokens for request in requests])

    def pairs(self, requests: Sequence[Score]) -> Tokens:
        """Contexts and continuations as one text each; see ``encoding`` for where the continuation starts.
        An empty context is the start token. A rolling request's text comes whole.

        Raises:
            UsageError: an empty context with a tokenizer that has neither BOS nor EOS.
        """
        texts = [
            ("", "") if request.rolling else (self.render(request.context), request.continuation)
            for request in requests
        ]
        whole = [request.continuation for request in requests if request.rolling]
        documents = iter(encode_texts(self.tokenizer, whole, special=False))
        tokens = Tokens([], [], [])
        pairs = encode_pairs(self.tokenizer, texts, special=not self.templated)
        for request, (ids, start) in zip(requests, pairs):
            if request.rolling:
                ids, start = next(documents), 0
            # as in lm-eval: a continuation that begins with the start token needs no other one
            if start == 0 and (request.rolling or ids[:1] != [start_token(self.tokenizer)]):
                ids = [start_token(self.tokenizer), *ids]
            start = max(1, start)
            # the last token is only predicted, so one more than the context fits
            window = None if request.rolling else self.window
            cut = max(0, len(ids) - window - 1) if window else 0
            tokens.sequences.append(ids[cut:])
            tokens.starts.append(max(1, start - cut))
            tokens.cuts.append(cut)
        return tokens

    def rewards(self, requests: Sequence[Reward]) -> Tokens:
        """Prompts and responses as one text each: with EOS appended (where the tokenizer has one), or in the
        chat template."""
        if self.templated:
            texts = [self._dialogue(request) for request in requests]
            return self._fit(encode_texts(self.tokenizer, texts, special=False), [0] * len(texts))
        pairs = [(self.prefix + request.prompt, request.response) for request in requests]
        ends = self.tokenizer.eos_token_id is not None
        ids = [ids for ids, _ in encode_pairs(self.tokenizer, pairs, eos=ends)]
        return self._fit(ids, [0] * len(ids))

    def _dialogue(self, request: Reward) -> str:
        """Prompt and response; in a template its two turns, up to the EOS that it writes."""
        if not self.templated:
            return self.prefix + request.prompt + request.response
        turns = [
            {"role": "user", "content": self.prefix + request.prompt},
            {"role": "assistant", "content": request.response},
        ]
        text: str = self.tokenizer.apply_chat_template(turns, tokenize=False)
        # white space behind EOS (ChatML's line break) was not there in training
        ended = text.rstrip()
        return ended if self.tokenizer.eos_token and ended.endswith(self.tokenizer.eos_token) else text

    def _fit(self, sequences: list[list[int]], extra: Sequence[int]) -> Tokens:
        """No sequence empty, and none so long that it and its ``extra`` tokens exceed the window."""
        if not all(sequences):
            start = start_token(self.tokenizer)
            sequences = [ids or [start] for ids in sequences]
        if self.window is None:
            fitted = sequences
        else:
            fitted = [ids[-(self.window - more) :] for ids, more in zip(sequences, extra)]
        cuts = [len(whole) - len(rest) for whole, rest in zip(sequences, fitted)]
        return Tokens(fitted, [*map(len, fitted)], cuts)


class Encodes(ABC):
    """Of an engine that turns text into token ids itself: what of that is asked of the engine."""

    @property
    @abstractmethod
    def inputs(self) -> Any:
        """How requests become token ids (``Inputs``)."""

    @property
    def tokenizer(self) -> Any:
        """The policy's tokenizer."""
        return self.inputs.tokenizer

    @property
    def context_length(self) -> int | None:
        """Tokens that the model can attend to, where its config says so."""
        length: int | None = self.inputs.window
        return length

    def render(self, prompt: str) -> str:
        """The text that a prompt becomes, exactly as it is encoded (before BOS)."""
        text: str = self.inputs.render(prompt)
        return text


def open_inputs(policy: Policy) -> tuple[Inputs, Any]:
    """What a policy of kind ``hf`` makes of requests, and its transformers config. Its weights are not read.

    Raises:
        UsageError: no such model, a config or tokenizer that cannot be read, or an impossible option.
    """
    from transformers import AutoConfig, AutoTokenizer

    what = f"policy {policy.spec!r}"
    files = locate(policy)
    prefix = read_prefix(policy)
    try:
        config, tokenizer = (
            AutoConfig.from_pretrained(files.model),
            AutoTokenizer.from_pretrained(files.tokenizer),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(
            f"{what}: the config or tokenizer in {files.model} cannot be read: {reason}"
        ) from error
    choice = policy.options.get("chat_template", "auto")
    kind = Inputs
    if getattr(config, "is_encoder_decoder", False):
        from alignbench.engines.seq2seq_inputs import Seq2SeqInputs  # which is made of this module's

        kind = Seq2SeqInputs
    return kind(tokenizer, prefix=prefix, chat_template=choice, window=positions_of(config)), config


def uses_template(tokenizer: Any, choice: str | None) -> bool:
    """Whether prompts become turns of a chat: on, off (None), or auto (where there is a template).

    Raises:
        UsageError: no such choice, or ``on`` with a tokenizer that has no template.
    """
    has = bool(getattr(tokenizer, "chat_template", None))
    if choice not in ("auto", "on", "off", None):
        raise UsageError(f"chat_template={choice!r}: write auto, on or off")
    if choice == "on" and not has:
        raise UsageError("chat_template=on, but the tokenizer has no chat template; write chat_template=off")
    return choice == "on" or (choice == "auto" and has)


def positions_of(config: Any) -> int | None:
    """Tokens that a model can attend to, where its (transformers) config says so."""
    text = config.get_text_config()
    keys = ("max_position_embeddings", "n_positions", "max_seq_len")
    return next((n for key in keys if isinstance(n := getattr(text, key, None), int)), None)


def start_token(tokenizer: Any) -> int:
    """What an empty context counts as: BOS, else EOS (as lm-evaluation-harness does).

    Raises:
        UsageError: the tokenizer has neither.
    """
    for value in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if value is not None:
            return int(value)
    raise UsageError(
        "an empty prompt or context needs a tokenizer with a BOS or EOS token; this one has neither"
    )


def check_sampling(request: Generate, window: int | None) -> None:
    """Refuse a request that cannot be carried out.

    Raises:
        UsageError: sampling parameters out of range, or a ``window`` that leaves no room for any prompt.
    """
    s = request.sampling
    if s.max_tokens < 1 or s.temperature < 0 or s.top_k < 0 or not 0 < s.top_p <= 1 or "" in s.stop:
        raise UsageError(
            f"{s}: max_tokens must be at least 1, temperature and top_k at least 0, top_p in (0, 1], "
            "and a stop string must not be empty"
        )
    if window is not None and s.max_tokens >= window:
        raise UsageError(
            f"max_tokens {s.max_tokens} leaves no room for a prompt in the model's context of {window} tokens"
        )
