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

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from alignbench.engines.adapters import note_other_base
from alignbench.engines.answering import add_up, eos_ids_of, one_by_one, spans_of, warn_cut
from alignbench.engines.plan import join_parts
from alignbench.engines.policy import Policy
from alignbench.engines.types import Reward, Rewarded, Score, Scored
from alignbench.engines.vllm_engine import versions
from alignbench.engines.vllm_engine.answers import read_scores, reason_of
from alignbench.engines.vllm_engine.generating import Generating, close_other
from alignbench.engines.vllm_engine.opened import lora_rank, parallel_size, recognise
from alignbench.engines.vllm_engine.plan import plan_probes
from alignbench.errors import UsageError, WorkError

SHORTEST = 2048
"""Tokens that a model is loaded for, at least (fewer where its context is shorter)."""


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


class VLLMEngine(Generating):
    """Generate and score with vLLM; see the module.

    Raises:
        UsageError: see ``open_policy``.
    """

    def __init__(self, policy: Policy, *, batch_tokens: int | None = None, fresh: bool = False) -> None:
        opened = recognise(policy, fresh)
        super().__init__(opened.inputs, f"policy {policy.spec!r}")
        self.policy, self.identity = policy, opened.identity
        self._opened, self._batch_tokens = opened, batch_tokens
        self._tensor_parallel = parallel_size(policy, "tensor_parallel")
        self._length = 0

    def describe(self) -> Mapping[str, Any]:
        """See ``Engine.describe``; beside it the engine's name and vLLM's version."""
        named = {"engine": "vllm", "vllm": versions.version()}
        return {"dtype": self._opened.dtype, **self.inputs.describe(), **named}

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
        if self._llm is not None and needed < self._length:
            return
        close_other()
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
        self._hold(llm)
        self._length = length
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
