"""The engine ``hf``: a transformers module in this process.

Where the module allows it (``packed.supports``), tokens are packed, shared and decoded in flight; else rows
are padded and the module's own key-value cache is used (``decode``, ``PaddedScorer``).

A change here that may change an answer raises ``identity.NUMERICS``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from alignbench.engines import heads, memory, packed
from alignbench.engines.answering import add_up, complete, decode_rows, spans_of, warn_cut
from alignbench.engines.decode import Decoded, decode_batch
from alignbench.engines.fused import Fused
from alignbench.engines.inflight import Wave, plan_waves
from alignbench.engines.inputs import Inputs, Tokens, positions_of
from alignbench.engines.lanes import Lanes
from alignbench.engines.native import NativeSteps, agrees, native_for
from alignbench.engines.plan import Work, join_parts, plan_batches
from alignbench.engines.rewarding import make_rewarder
from alignbench.engines.scoring import head_scale, make_scorer
from alignbench.engines.slots import Slots
from alignbench.engines.steps import Steps, TorchSteps
from alignbench.engines.stops import Pauses, StopStrings
from alignbench.engines.types import Completion, Generate, Reward, Rewarded, Score, Scored
from alignbench.errors import WorkError

R = TypeVar("R")
MOST_ROWS = {"cpu": 256, "cuda": 512}
"""Rows that are decoded together at most; more of them make it no faster."""


class HFEngine:
    """Generate, score and reward with a torch module that is already loaded.

    The module may be live: training passes the policy that it is updating. Nothing is kept between calls,
    and its train/eval mode is restored.

    Args:
        module: an ``AutoModelForCausalLM``, or for ``reward`` an ``AutoModelForSequenceClassification`` with
            one label. ``config.reward_offset`` (default 0) is subtracted from the head's output.
        tokenizer: its tokenizer.
        identity: parts of the ledger key; None for a live module, whose answers belong in no ledger.
        prefix: text put before every prompt and context.
        chat_template: ``"on"``: a prompt is the user's turn in the tokenizer's chat template; ``"auto"``:
            where it has one; ``"off"`` or None: plain text.
        batch_tokens: tokens that a batch may hold, and that generation may keep; by default as many as the
            device's memory holds with ease.
        window: tokens of prompt and completion together, at most; None: as many as the model attends to.

    Raises:
        UsageError: ``chat_template="on"`` with a tokenizer that has none.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        *,
        identity: Mapping[str, Any] | None = None,
        prefix: str = "",
        chat_template: Literal["auto", "on", "off"] | None = None,
        batch_tokens: int | None = None,
        window: int | None = None,
    ) -> None:
        # an adapter's layers sit inside the base model, whose forward has named arguments
        self.module: Any = cast(Any, module).get_base_model() if hasattr(module, "get_base_model") else module
        self.tokenizer = tokenizer
        positions = positions_of(self.module.config)
        known = [n for n in (positions, window) if n is not None]
        self.inputs = Inputs(
            tokenizer, prefix=prefix, chat_template=chat_template, window=min(known) if known else None
        )
        self.batch_tokens = batch_tokens or memory.batch_tokens(self.module, self.device)
        self.work = Work()
        self._asked_tokens = batch_tokens
        self._identity = dict(identity or {"engine": "hf", "live": True})
        self._accepts = frozenset(inspect.signature(self.module.forward).parameters)
        self._parts = 1  # into how many pieces a planned batch is cut, once the accelerator's memory ran out
        self._warned = False

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON-able parts of the ledger key."""
        return self._identity

    @property
    def device(self) -> torch.device:
        """Where the module's inputs go."""
        device: torch.device = next(self.module.parameters()).device
        return device

    @property
    def head(self) -> Any:
        """The output embedding, from last hidden states to logits; None where there is none."""
        module = self.module
        return module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None

    @cached_property
    def weights(self) -> tuple[int, int]:
        """How many weights of the head, and of the layers before it, multiply each token, about."""
        head = sum(p.numel() for p in self.head.parameters()) if self.head is not None else 0
        tables = {id(p) for p in self.module.get_input_embeddings().parameters()}
        matrices = sum(p.numel() for p in self.module.parameters() if p.ndim > 1 and id(p) not in tables)
        shared = self.head is not None and any(id(p) in tables for p in self.head.parameters())
        return head, matrices - (0 if shared else head)

    @cached_property
    def lanes(self) -> Lanes:
        """The threads that decode."""
        return Lanes(self.device)

    @cached_property
    def packs(self) -> bool:
        """Whether the module can be run on packed tokens."""
        with self._evaluating():
            return packed.supports(self.module, self._own, self.device)

    @property
    def forward(self) -> packed.Forward:
        """What runs packed tokens: the module, or its layers in fewer calls where that is known to be faster
        (in float32 on a CPU)."""
        return self._fused if self._fused is not None and self._fused.usable else self._own

    @cached_property
    def _own(self) -> packed.ModuleForward:
        return packed.ModuleForward(self.module)

    @cached_property
    def _fused(self) -> Fused | None:
        dtypes = {weight.dtype for weight in self.module.parameters()}
        if self.device.type != "cpu" or dtypes != {torch.float32}:
            return None
        try:
            fused = Fused(self.module)
        except TypeError:
            return None
        with self._evaluating():
            return fused if packed.supports(self.module, fused, self.device) else None

    @cached_property
    def vocabulary(self) -> int:
        """How many logits the head gives for a token."""
        with self._evaluating():
            ids = torch.zeros(1, 1, dtype=torch.long, device=self.device)
            return int(self.head(heads.last_hidden(self.module, ids)).shape[-1])

    @cached_property
    def scale(self) -> float | None:
        """See ``scoring.head_scale``."""
        return head_scale(self)

    @property
    def context_length(self) -> int | None:
        """Tokens that the model can attend to, where its config says so, and no more than ``window``."""
        return self.inputs.window

    def describe(self) -> dict[str, Any]:
        """What a report says; see ``Engine.describe``."""
        return {"dtype": str(self.module.dtype).removeprefix("torch."), **self.inputs.describe()}

    def render(self, prompt: str) -> str:
        """The text that a prompt becomes, exactly as it is encoded (before BOS)."""
        return self.inputs.render(prompt)

    def generate(
        self, requests: Sequence[Generate], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Continue each prompt; see ``Engine.generate``. A prompt that leaves no room for ``max_tokens`` in
        the model's context loses tokens on its left (with a warning).

        Raises:
            UsageError: sampling parameters out of range, or no room for any prompt.
        """
        heads.require_language_model(self.module)
        tokens = self.inputs.prompts(requests)
        self._warn_cut(tokens.cuts)
        if self.packs and self.scale is not None:
            return self._generate_in_flight(requests, tokens, held)
        return self._generate_padded(requests, tokens, held)

    def score(
        self, requests: Sequence[Score], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Scored]]]:
        """Log-likelihood of each continuation; see ``Engine.score`` and ``encoding`` for where it starts. An
        empty context counts as BOS (or EOS, where there is no BOS). What does not fit into the model's
        context is dropped on the left (with a warning)."""
        heads.require_language_model(self.module)
        tokens = self.inputs.pairs(requests)
        self._warn_cut(tokens.cuts)
        spans = spans_of(requests, tokens, self.context_length)
        scorer = make_scorer(self, spans.sequences, spans.starts)
        done = frozenset(held)
        skipped = [part for part, owner in enumerate(spans.owners) if owner in done]
        for batch in join_parts(self._run(scorer.batches, skipped, scorer), spans.owners):
            yield [(i, replace(add_up(parts), cut=tokens.cuts[i])) for i, parts in batch]

    def reward(
        self, requests: Sequence[Reward], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Rewarded]]]:
        """Reward of each response; see ``Engine.reward``. Without a chat template the text is prompt,
        response and EOS; with one it is the template's two turns, up to the EOS that the template writes."""
        tokens = self.inputs.rewards(requests)
        self._warn_cut(tokens.cuts)
        rewarder = make_rewarder(self, tokens.sequences)
        for batch in self._run(rewarder.batches, held, rewarder):
            yield [(i, replace(rewarded, cut=tokens.cuts[i])) for i, rewarded in batch]

    def reward_ids(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Rewards of token sequences as they are (rollouts: nothing is decoded and tokenized again)."""
        results = [0.0] * len(sequences)
        rewarder = make_rewarder(self, sequences)
        for batch in self._run(rewarder.batches, (), rewarder):
            for i, rewarded in batch:
                results[i] = rewarded.reward
        return results

    # ---- inside

    def _generate_in_flight(
        self, requests: Sequence[Generate], tokens: Tokens, held: Collection[int]
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Wave by wave; when memory runs out, with half the slots, from where rows had not ended yet."""
        prompts = tokens.sequences
        eos, stops, done = heads.eos_ids(self.module, self.tokenizer), StopStrings(self._decode), set(held)
        budget = self._asked_tokens or memory.kv_tokens(self.module, self.device, self._cache_dtype)
        needs = [len(ids) + r.sampling.max_tokens for ids, r in zip(prompts, requests)]
        make_steps = self._make_steps(max(needs, default=0))
        for rows, slots in plan_waves(needs, budget, MOST_ROWS.get(self.device.type, MOST_ROWS["cpu"])):
            while left := [i for i in rows if i not in done]:
                size = max(1, min(slots // self._parts, len(left)))
                make = partial(Wave, self, prompts, requests, left, size, eos, stops, make_steps)
                wave = self._attempt(make, size)
                if wave is None:
                    self._parts *= 2
                    continue
                while not wave.done:
                    advanced = self._attempt(wave.advance, size)
                    if ended := [(left[place], decoded) for place, decoded in wave.take()]:
                        done.update(i for i, _ in ended)
                        yield [
                            (i, self._completion(requests[i], prompts[i], tokens.cuts[i], decoded, eos))
                            for i, decoded in ended
                        ]
                    if advanced is None:  # memory ran out
                        self._parts *= 2
                        break

    def _make_steps(self, longest: int) -> Callable[[Slots, Pauses], Steps]:
        """What decodes the rows of a wave, ``longest`` tokens at most: compiled steps, where those are known
        to give this module's numbers."""
        try:
            native = native_for(self, longest)
            if native is not None and self.compiles:
                return partial(NativeSteps, native, self.lanes)
        except (RuntimeError, MemoryError) as error:  # no room for the copy?
            if not memory.is_out_of_memory(error):
                raise
        return lambda slots, pauses: TorchSteps(self, slots)

    @cached_property
    def compiles(self) -> bool:
        """Whether the module's numbers come out of compiled steps, where there are any. A hook or autocast
        forbids them only as long as it is there: so this is asked where nothing of the kind is."""
        with self._evaluating():
            return agrees(self)

    def _generate_padded(
        self, requests: Sequence[Generate], tokens: Tokens, held: Collection[int]
    ) -> Iterator[list[tuple[int, Completion]]]:
        prompts = tokens.sequences
        eos, pad = heads.eos_ids(self.module, self.tokenizer), heads.pad_id(self.tokenizer)

        def compute(rows: Sequence[int]) -> list[Completion]:
            decoded = decode_batch(
                self._forward,
                [prompts[i] for i in rows],
                [requests[i] for i in rows],
                eos=eos,
                pad=pad,
                decoder=self._decode,
                device=self.device,
            )
            return [
                self._completion(requests[i], prompts[i], tokens.cuts[i], each, eos)
                for i, each in zip(rows, decoded)
            ]

        extra = [r.sampling.max_tokens for r in requests]
        return self._run(plan_batches([*map(len, prompts)], self.batch_tokens, extra=extra), held, compute)

    @property
    def _cache_dtype(self) -> torch.dtype:
        """Of the keys and values that generation keeps (see ``slots.Slots``)."""
        return torch.float32 if self.device.type == "cpu" else self.module.dtype

    def _run(
        self, batches: list[list[int]], held: Collection[int], compute: Callable[[Sequence[int]], Sequence[R]]
    ) -> Iterator[list[tuple[int, R]]]:
        """Compute the planned batches but for what is held; halve them when memory runs out."""
        done = frozenset(held)
        for batch in batches:
            queue = _cut([i for i in batch if i not in done], self._parts)
            while queue:
                rows = queue.pop(0)
                results = self._attempt(partial(compute, rows), len(rows))
                if results is None:
                    halves = _cut(rows, 2)
                    self._parts = max(self._parts, -(-len(batch) // len(halves[0])))
                    queue = halves + queue
                else:
                    yield list(zip(rows, results))

    def _attempt(self, compute: Callable[[], R], n: int) -> R | None:
        """What ``compute`` gives for ``n`` rows, or None where memory does not hold them all at once.

        Raises:
            WorkError: it does not hold a single one.
        """
        try:
            with self._evaluating():
                return compute()
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            if n == 1:
                raise WorkError(
                    f"out of memory on {self.device} with one request; use a smaller dtype or model"
                ) from error
        # only here: the error's traceback held on to the batch's tensors
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Eval mode and no gradients, only while a batch is computed; a live module gets its modes back."""
        training = [m for m in self.module.modules() if m.training]
        try:
            for m in training:
                m.training = False
            with torch.inference_mode():
                yield
        finally:
            for m in training:
                m.training = True

    def _forward(self, ids: Tensor, mask: Tensor | None, positions: Tensor | None, cache: Any) -> Any:
        arguments = {
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        return self.module(input_ids=ids, **{k: v for k, v in arguments.items() if k in self._accepts})

    def _warn_cut(self, cuts: Sequence[int]) -> None:
        """Say that texts were cut; a live module's engine, which is asked again and again, says it once."""
        if not (self._warned and self._identity.get("live")):
            self._warned = warn_cut(cuts, self.context_length) or self._warned

    def _decode(self, rows: list[list[int]]) -> list[str]:
        return decode_rows(self.tokenizer, rows)

    def _completion(
        self, request: Generate, prompt: Sequence[int], cut: int, row: Decoded, eos: Collection[int]
    ) -> Completion:
        return complete(request, prompt, cut, row, eos, self._decode)


def _cut(rows: list[int], parts: int) -> list[list[int]]:
    size = -(-len(rows) // parts) or 1
    return [rows[i : i + size] for i in range(0, len(rows), size)]
