"""The engine ``vllm``: generate and score with vLLM, in this process.

Text becomes token ids as for the engine ``hf`` (``inputs``); vLLM gets the ids. Its log-probabilities are the
model's own (``logprobs_mode="raw_logprobs"``). Those of the distribution that was sampled from follow from
them for greedy decoding and at temperature 1 without top-k and top-p; else ``sampling_logprobs`` is empty.
Sampled texts are reproducible per request, but are not the engine ``hf``'s: the draws differ.

**Scoring.** vLLM computes a prompt whose log-probabilities are asked for whole, past its prefix cache. Here
it may use the cache: the tokens that it then knows nothing of are those before the continuation, whose
log-probabilities nobody wants. How much came from the cache is checked for every answer; one whose targets
did too is asked again, whole. The last token is not part of the prompt: it is only predicted, so the request
asks for its id behind the prompt, and options of one token are one request.

A change here that may change an answer raises ``opened.NUMERICS``.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from alignbench.engines.adapters import note_other_base
from alignbench.engines.answering import (
    add_up,
    complete,
    decode_rows,
    eos_ids_of,
    one_by_one,
    spans_of,
    warn_cut,
)
from alignbench.engines.inputs import Encodes
from alignbench.engines.plan import Work, join_parts
from alignbench.engines.policy import Policy
from alignbench.engines.types import Completion, Generate, Reward, Rewarded, Score, Scored
from alignbench.engines.vllm_engine import versions
from alignbench.engines.vllm_engine.answers import Decoded, read_row, read_scores, reason_of
from alignbench.engines.vllm_engine.opened import lora_rank, parallel_size, recognise
from alignbench.engines.vllm_engine.plan import generation_order, generation_params, plan_probes
from alignbench.errors import UsageError, WorkError

WAITING = 1024
"""Requests that vLLM has at a time, running or waiting."""
BATCH, SECONDS = 64, 2.0
"""Answers are handed on when there are so many, or after so long."""
SHORTEST = 2048
"""Tokens that a model is loaded for, at least (fewer where its context is shorter)."""

_holder: weakref.ref[VLLMEngine] | None = None
"""The engine that is loaded: one at a time in a process."""


def open_policy(policy: Policy, *, batch_tokens: int | None = None, fresh: bool = False) -> Any:
    """The engine of a policy that vLLM runs. The model is loaded when it is first asked.

    Args:
        batch_tokens: tokens of one step, at most.
        fresh: hash all files, also those whose digest is remembered.

    Raises:
        UsageError: vLLM is not installed; no such model; an option that does not fit; a model that is no
            decoder-only language model.
    """
    versions.require(f"policy {policy.spec!r}")
    copies = parallel_size(policy, "data_parallel")
    if copies > 1:
        from alignbench.engines.vllm_engine.parallel import open_parallel

        return open_parallel(policy, copies, batch_tokens=batch_tokens)
    return VLLMEngine(policy, batch_tokens=batch_tokens, fresh=fresh)


class VLLMEngine(Encodes):
    """Generate and score with vLLM; see the module.

    Raises:
        UsageError: see ``open_policy``.
    """

    def __init__(self, policy: Policy, *, batch_tokens: int | None = None, fresh: bool = False) -> None:
        self.policy, self.work = policy, Work()
        self._opened, self._batch_tokens = recognise(policy, fresh), batch_tokens
        self.identity = self._opened.identity
        self._tensor_parallel = parallel_size(policy, "tensor_parallel")
        self._llm: Any = None
        self._length = 0
        self._lora: Any = None
        self._release: Callable[[], object] | None = None
        self._asked = 0

    @property
    def inputs(self) -> Any:
        """How requests become token ids, as ``HFEngine.inputs``."""
        return self._opened.inputs

    def describe(self) -> Mapping[str, Any]:
        """See ``Engine.describe``; beside it the engine's name and vLLM's version."""
        named = {"engine": "vllm", "vllm": versions.version()}
        return {"dtype": self._opened.dtype, **self.inputs.describe(), **named}

    def generate(
        self, requests: Sequence[Generate], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Continue each prompt; see ``Engine.generate``.

        Raises:
            UsageError: sampling parameters out of range, no room for any prompt, or a model that this vLLM
                cannot load.
            WorkError: vLLM fails, or memory runs out.
        """
        eos = self._eos
        params = [generation_params(request, eos, versions.TEMPERATURES) for request in requests]
        tokens = self.inputs.prompts(requests)
        warn_cut(tokens.cuts, self.context_length)
        order = generation_order(tokens.sequences, held)
        needed = [len(tokens.sequences[i]) + requests[i].sampling.max_tokens for i in order]
        if not order:
            return
        self._load(max(needed))
        asked = ((i, tokens.sequences[i], versions.sampling_params(**params[i])) for i in order)
        decode = partial(decode_rows, self.tokenizer)
        for batch in self._run(asked):
            answers = []
            for i, output in batch:
                row, stopped = self._row(requests[i], output)
                answer = complete(requests[i], tokens.sequences[i], tokens.cuts[i], row, eos, decode)
                # a stop string that is seen only while text comes token by token
                answers.append((i, replace(answer, finish="stop") if stopped else answer))
            yield answers

    def score(
        self, requests: Sequence[Score], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Scored]]]:
        """Log-likelihood of each continuation; see ``Engine.score`` and ``HFEngine.score``. ``greedy`` is
        exact but where two tokens tie for the likeliest: for all tokens of a continuation but its last the
        first of them counts here as none.

        Raises:
            UsageError, WorkError: as ``generate``.
        """
        tokens = self.inputs.pairs(requests)
        warn_cut(tokens.cuts, self.context_length)
        spans = spans_of(requests, tokens, self.context_length)
        if self._opened.files.adapter is not None:  # vLLM knows no prompt's log-probabilities with an adapter
            spans = one_by_one(spans)
        done = frozenset(held)
        rows = [part for part, owner in enumerate(spans.owners) if owner not in done]
        for batch in join_parts(self._score(spans.sequences, spans.starts, rows), spans.owners):
            yield [(i, replace(add_up(parts), cut=tokens.cuts[i])) for i, parts in batch]

    def reward(
        self, requests: Sequence[Reward], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Rewarded]]]:
        """Not to be had.

        Raises:
            WorkError: always.
        """
        raise WorkError(f"policy {self.policy.spec!r}: the engine vllm gives no rewards; use --engine hf")

    def close(self) -> None:
        """Give the model's memory back; the next request loads it again."""
        if self._release is not None:
            release, self._release, self._llm = self._release, None, None
            release()

    # ---- inside

    @property
    def _eos(self) -> tuple[int, ...]:
        from transformers import GenerationConfig

        config, generation = self._opened.config, None
        with suppress(OSError, ValueError):  # most folders have one
            generation = GenerationConfig.from_pretrained(self._opened.files.model)
        known = eos_ids_of(generation, config, self.tokenizer)
        return tuple(i for i in known if 0 <= i < config.get_text_config().vocab_size)

    def _load(self, needed: int) -> None:
        """Load the model, for texts of ``needed`` tokens and the one behind: a power of two, as vLLM wants
        memory for a whole text of the most that it is told of, and a model's context may be huge."""
        global _holder
        if self._llm is not None and needed < self._length:
            return
        other = _holder() if _holder is not None else None
        if other is not None:
            other.close()
        length = max(SHORTEST, 1 << needed.bit_length())
        if self.context_length is not None:
            length = min(length, self.context_length + 1)
        files = self._opened.files
        rank = lora_rank(files, self.policy) if files.adapter is not None else 0
        settings = versions.Settings(
            files.model,
            files.tokenizer,
            self._opened.dtype,
            length,
            self._tensor_parallel,
            self._batch_tokens,
            rank,
        )
        self._check_device()
        try:
            llm = versions.load(settings)
        except Exception as error:  # whatever vLLM says is no model that it can run
            raise UsageError(
                f"policy {self.policy.spec!r}: vLLM {versions.version()} cannot load the model: "
                f"{reason_of(error)}; use --engine hf"
            ) from error
        self._llm, self._length, self._release = llm, length, weakref.finalize(self, versions.close, llm)
        _holder = weakref.ref(self)
        if files.adapter is not None:
            self._lora = versions.adapter_request(files.adapter)
            if "adapter" in self.policy.options:
                note_other_base(files.adapter, self.policy.target)

    def _check_device(self) -> None:
        device = self.policy.options.get("device")
        here = "cpu" if versions.on_cpu() else "cuda"
        if device is not None and device != here:
            raise UsageError(
                f"policy {self.policy.spec!r}: device={device}, but the vLLM that is installed computes on "
                f"{here}; write device={here}, or --engine hf"
            )

    def _run(self, asked: Iterator[tuple[int, Sequence[int], Any]]) -> Iterator[list[tuple[int, Any]]]:
        """vLLM's answers to ``(index, prompt, parameters)`` as they come, some at a time. What is under way
        when the caller stops is taken back."""
        engine = self._llm.llm_engine
        waiting: dict[str, int] = {}
        ended: deque[tuple[int, Any]] = deque()
        since = time.monotonic()
        try:
            while True:
                for i, ids, params in asked:
                    name = f"alignbench-{self._asked}"
                    self._asked += 1
                    self._ask(engine, name, ids, params)
                    waiting[name] = i
                    if len(waiting) >= WAITING:
                        break
                if not waiting:
                    break
                for output in self._step(engine):
                    if output.finished:
                        ended.append((waiting.pop(output.request_id), output))
                        self._count(output)
                if len(ended) >= BATCH or (ended and time.monotonic() - since > SECONDS):
                    yield list(ended)
                    ended.clear()
                    since = time.monotonic()
            if ended:
                yield list(ended)
        finally:
            if waiting and self._llm is not None:
                with suppress(Exception):  # an engine that failed has nothing to take back
                    engine.abort_request(list(waiting))

    def _ask(self, engine: Any, name: str, ids: Sequence[int], params: Any) -> None:
        try:
            engine.add_request(name, versions.token_prompt(ids), params, lora_request=self._lora)
        except ValueError as error:
            raise WorkError(
                f"policy {self.policy.spec!r}: vLLM refuses a request: {reason_of(error)}"
            ) from error

    def _step(self, engine: Any) -> list[Any]:
        try:
            outputs: list[Any] = engine.step()
        except Exception as error:
            self.close()
            reason = reason_of(error)
            mend = "a smaller --batch-tokens or dtype" if "memory" in reason.lower() else "--engine hf"
            raise WorkError(
                f"policy {self.policy.spec!r}: vLLM failed ({reason}); what was answered is kept; use {mend}"
            ) from error
        return outputs

    def _count(self, output: Any) -> None:
        """Tokens for ``work``, but for those that answers are counted by."""
        read = len(output.prompt_token_ids)
        self.work.computed_tokens += read - min(read, versions.cached_tokens(output))

    def _row(self, request: Generate, output: Any) -> tuple[Decoded, bool]:
        row, stopped = read_row(request, output)
        self.work.total_tokens += len(output.prompt_token_ids)
        self.work.decoded_tokens += len(row.token_ids)
        return row, stopped

    def _score(
        self, sequences: Sequence[list[int]], starts: Sequence[int], rows: Sequence[int]
    ) -> Iterator[list[tuple[int, Scored]]]:
        empty = [i for i in rows if starts[i] >= len(sequences[i])]
        if empty:
            yield [(i, Scored(0.0, 0, True)) for i in empty]
        rest = [i for i in rows if starts[i] < len(sequences[i])]
        if not rest:
            return
        self._load(max(len(sequences[i]) for i in rest) - 1)
        probes = plan_probes(sequences, starts, rest, versions.ids_at_once())
        again: list[int] = []
        for cached in (True, False):
            todo = range(len(probes)) if cached else again
            asked = (
                (
                    k,
                    probes[k].prompt,
                    versions.scoring_params(probes[k].lasts, whole=probes[k].whole, cached=cached),
                )
                for k in todo
            )
            for batch in self._run(asked):
                found: list[tuple[int, Scored]] = []
                for k, output in batch:
                    scored = read_scores(probes[k], output, starts)
                    if scored is None and cached:
                        again.append(k)
                    elif scored is None:
                        raise WorkError(f"policy {self.policy.spec!r}: vLLM left log-probabilities out")
                    else:
                        found += scored
                        self.work.total_tokens += len(probes[k].prompt) * len(scored)
                if found:
                    yield found
