"""The engine ``hf``: a transformers module in this process, batched and padded.

A change here that may change an answer raises ``identity.NUMERICS``.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from alignbench.engines import heads
from alignbench.engines.decode import Decoded, decode_batch
from alignbench.engines.inputs import Inputs, positions_of
from alignbench.engines.plan import plan_batches
from alignbench.engines.scoring import Scorer
from alignbench.engines.types import Completion, Generate, Reward, Rewarded, Score, Scored
from alignbench.errors import WorkError

log = logging.getLogger(__name__)
R = TypeVar("R")


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
        batch_tokens: tokens that a padded batch may hold.
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
        self.batch_tokens = batch_tokens or (32_768 if self.device.type == "cuda" else 8_192)
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
        prompts, cuts = tokens.sequences, tokens.cuts
        self._warn_cut(cuts)
        eos, pad = heads.eos_ids(self.module, self.tokenizer), heads.pad_id(self.tokenizer)

        def compute(rows: list[int]) -> list[Completion]:
            decoded = decode_batch(
                self._forward,
                [prompts[i] for i in rows],
                [requests[i] for i in rows],
                eos=eos,
                pad=pad,
                decoder=self._decode,
                device=self.device,
            )
            return [self._completion(requests[i], prompts[i], cuts[i], d, eos) for i, d in zip(rows, decoded)]

        extra = [r.sampling.max_tokens for r in requests]
        return self._run(plan_batches([*map(len, prompts)], self.batch_tokens, extra=extra), held, compute)

    def score(
        self, requests: Sequence[Score], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Scored]]]:
        """Log-likelihood of each continuation; see ``Engine.score`` and ``encoding`` for where it starts. An
        empty context counts as BOS (or EOS, where there is no BOS). What does not fit into the model's
        context is dropped on the left (with a warning)."""
        heads.require_language_model(self.module)
        tokens = self.inputs.pairs(requests)
        sequences, cuts = tokens.sequences, tokens.cuts
        self._warn_cut(cuts)
        lengths = [max(1, len(ids) - 1) for ids in sequences]
        scorer = Scorer(self, sequences, tokens.starts)

        def compute(rows: list[int]) -> list[Scored]:
            return [replace(scored, cut=cuts[i]) for i, scored in zip(rows, scorer(rows))]

        return self._run(plan_batches(lengths, self.batch_tokens), held, compute)

    def reward(
        self, requests: Sequence[Reward], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Rewarded]]]:
        """Reward of each response; see ``Engine.reward``. Without a chat template the text is prompt,
        response and EOS; with one it is the template's two turns, up to the EOS that the template writes."""
        tokens = self.inputs.rewards(requests)
        sequences, cuts = tokens.sequences, tokens.cuts
        self._warn_cut(cuts)

        def compute(rows: list[int]) -> list[Rewarded]:
            rewarded = heads.reward_batch(self, [sequences[i] for i in rows])
            return [replace(each, cut=cuts[i]) for i, each in zip(rows, rewarded)]

        lengths = [*map(len, sequences)]
        return self._run(plan_batches(lengths, self.batch_tokens), held, compute)

    def reward_ids(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Rewards of token sequences as they are (rollouts: nothing is decoded and tokenized again)."""
        results = [0.0] * len(sequences)
        batches = plan_batches([*map(len, sequences)], self.batch_tokens)
        for batch in self._run(
            batches, (), lambda rows: heads.reward_batch(self, [sequences[i] for i in rows])
        ):
            for i, rewarded in batch:
                results[i] = rewarded.reward
        return results

    # ---- inside

    def _run(
        self, batches: list[list[int]], held: Collection[int], compute: Callable[[list[int]], list[R]]
    ) -> Iterator[list[tuple[int, R]]]:
        """Compute the planned batches but for what is held; halve them when memory runs out."""
        done = frozenset(held)
        for batch in batches:
            queue = _cut([i for i in batch if i not in done], self._parts)
            while queue:
                rows = queue.pop(0)
                results = self._attempt(compute, rows)
                if results is None:
                    halves = _cut(rows, 2)
                    self._parts = max(self._parts, -(-len(batch) // len(halves[0])))
                    queue = halves + queue
                else:
                    yield list(zip(rows, results))

    def _attempt(self, compute: Callable[[list[int]], list[R]], rows: list[int]) -> list[R] | None:
        """The rows' results, or None when the accelerator's memory does not hold them all at once.

        Raises:
            WorkError: it does not hold a single one.
        """
        try:
            with self._evaluating():
                return compute(rows)
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise WorkError(
                    f"out of memory on {self.device} with one request; use a smaller dtype or model"
                ) from error
        # only here: the error's traceback held on to the batch's tensors
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
        n = sum(map(bool, cuts))
        if n and not (self._warned and self._identity.get("live")):
            self._warned = True
            log.warning(
                "alignbench: %d of %d texts exceed the model's context of %s tokens and are cut on the left",
                n,
                len(cuts),
                self.context_length,
            )

    def _decode(self, rows: list[list[int]]) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(
            rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts

    def _completion(
        self, request: Generate, prompt: Sequence[int], cut: int, row: Decoded, eos: Collection[int]
    ) -> Completion:
        finish: Literal["eos", "stop", "length"] = "eos" if row.token_ids[-1] in eos else "length"
        text = self._decode([list(row.token_ids[:-1] if finish == "eos" else row.token_ids)])[0]
        found = [at for at in map(text.find, request.sampling.stop) if at >= 0]
        if found:
            text, finish = text[: min(found)], "stop"
        return Completion(
            text, tuple(prompt), row.token_ids, row.logprobs, row.sampling_logprobs, finish, cut
        )


def _cut(rows: list[int], parts: int) -> list[list[int]]:
    size = -(-len(rows) // parts) or 1
    return [rows[i : i + size] for i in range(0, len(rows), size)]
