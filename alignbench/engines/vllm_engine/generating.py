"""A loaded vLLM that answers: what the engines of a checkpoint and of a live module have in common."""

from __future__ import annotations

import time
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from alignbench.engines.answering import complete, decode_rows, warn_cut
from alignbench.engines.inputs import Encodes
from alignbench.engines.plan import Work
from alignbench.engines.types import Completion, Generate
from alignbench.engines.vllm_engine import versions
from alignbench.engines.vllm_engine.answers import Decoded, reason_of, require_numbers
from alignbench.engines.vllm_engine.plan import generation_order, generation_params, sampling_logprobs
from alignbench.errors import WorkError

WAITING = 1024
"""Requests that vLLM has at a time, running or waiting."""
BATCH, SECONDS = 64, 2.0
"""Answers are handed on when there are so many, or after so long."""

_holder: weakref.ref[Generating] | None = None
"""The engine that is loaded: one at a time in a process."""


class Generating(Encodes):
    """Generate with vLLM. A subclass says what is loaded (``_load``) and which tokens end a text (``_eos``).

    Args:
        inputs: turns prompts into token ids (``inputs.Inputs``).
        what: the start of an error's sentence.
    """

    mend = "what was answered is kept; use --engine hf"
    """What an error says that can be done."""
    memory_mend = "what was answered is kept; use a smaller --batch-tokens or dtype"
    """The same where memory ran out."""

    def __init__(self, inputs: Any, what: str) -> None:
        self._inputs, self.what, self.work = inputs, what, Work()
        self._llm: Any = None
        self._lora: Any = None
        self._release: Callable[[], object] | None = None
        self._asked = 0

    @property
    def inputs(self) -> Any:
        """How requests become token ids, as ``HFEngine.inputs``."""
        return self._inputs

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
        self._warn_cut(tokens.cuts)
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
                row, stopped = self._decoded(requests[i], output)
                answer = complete(requests[i], tokens.sequences[i], tokens.cuts[i], row, eos, decode)
                # a stop string that is seen only while text comes token by token
                answers.append((i, replace(answer, finish="stop") if stopped else answer))
            yield answers

    def close(self) -> None:
        """Give the model's memory back."""
        if self._release is not None:
            release, self._release, self._llm = self._release, None, None
            release()

    # ---- inside

    @property
    @abstractmethod
    def _eos(self) -> tuple[int, ...]:
        """The tokens that end a text."""

    @abstractmethod
    def _load(self, needed: int) -> None:
        """See to it that a model is loaded for texts of ``needed`` tokens."""

    def _hold(self, llm: Any) -> None:
        """Keep what was loaded until ``close``, or until nobody has this engine any more."""
        global _holder
        self._llm, self._release = llm, weakref.finalize(self, versions.close, llm)
        _holder = weakref.ref(self)

    def _warn_cut(self, cuts: Sequence[int]) -> None:
        warn_cut(cuts, self.context_length)

    def _logprobs(
        self, request: Generate, told: tuple[float, ...]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What vLLM tells of a sample's tokens, as their log-probabilities in the model and in what was
        sampled from."""
        return told, sampling_logprobs(request, told)

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
            raise WorkError(f"{self.what}: vLLM refuses a request: {reason_of(error)}") from error

    def _step(self, engine: Any) -> list[Any]:
        try:
            outputs: list[Any] = engine.step()
        except Exception as error:
            self.close()
            reason = reason_of(error)
            mend = self.memory_mend if "memory" in reason.lower() else self.mend
            raise WorkError(f"{self.what}: vLLM failed ({reason}); {mend}") from error
        return outputs

    def _count(self, output: Any) -> None:
        """Tokens for ``work``, but for those that answers are counted by."""
        read = len(output.prompt_token_ids)
        self.work.computed_tokens += read - min(read, versions.cached_tokens(output))

    def _decoded(self, request: Generate, output: Any) -> tuple[Decoded, bool]:
        """A row as sampled, and whether vLLM ended it at a stop string."""
        row = output.outputs[0]
        ids = tuple(int(i) for i in row.token_ids)
        told = tuple(float(at[i].logprob) for i, at in zip(ids, row.logprobs))
        require_numbers(told)
        self.work.total_tokens += len(output.prompt_token_ids)
        self.work.decoded_tokens += len(ids)
        return Decoded(ids, *self._logprobs(request, told)), isinstance(row.stop_reason, str)


def close_other() -> None:
    """Close the engine that is loaded, if any: two would share the memory that each takes for itself."""
    other = _holder() if _holder is not None else None
    if other is not None:
        other.close()
