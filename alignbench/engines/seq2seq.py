"""The engine ``hf`` for encoder–decoder models (T5, mT5, BART, …): each distinct prompt is encoded once.

What a prompt's continuations and samples have in common is computed once for all of them: the encoder, the
decoder's first step behind its start token, and with it the keys and values of the cross-attention.
``seq2seq_inputs`` says which ids the encoder reads and which the decoder predicts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from alignbench.engines import heads
from alignbench.engines.answering import add_up
from alignbench.engines.decode import decode_batch
from alignbench.engines.encoding import rolling_windows
from alignbench.engines.hf import HFEngine
from alignbench.engines.plan import join_parts, plan_shared
from alignbench.engines.scoring import LOGITS
from alignbench.engines.seq2seq_inputs import Seq2SeqInputs
from alignbench.engines.types import Completion, Generate, Reward, Rewarded, Score, Scored
from alignbench.errors import UsageError, WorkError


@dataclass(frozen=True)
class _Part:
    """What the encoder reads and the decoder predicts: a request, or one window of a rolling one."""

    owner: int
    context: tuple[int, ...]
    targets: list[int]


class Seq2SeqEngine(HFEngine):
    """Generate and score with an ``AutoModelForSeq2SeqLM``; arguments, streams and memory as in ``HFEngine``.

    ``context_length`` is the encoder's window and, where the decoder's positions are limited, also the
    decoder's.
    """

    def __init__(self, module: nn.Module, tokenizer: Any, **options: Any) -> None:
        super().__init__(module, tokenizer, **options)
        self.inputs = Seq2SeqInputs(
            tokenizer,
            prefix=self.inputs.prefix,
            chat_template="on" if self.inputs.templated else "off",
            window=self.inputs.window,
        )

    def generate(
        self, requests: Sequence[Generate], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer each prompt; see ``Engine.generate``. ``prompt_ids`` are what the encoder reads. Of the
        generation config the start token, the EOS tokens and a forced first token (mBART's language) count;
        a forced last one does not: an output that ran out of ``max_tokens`` has its own last token.

        Raises:
            UsageError: sampling parameters out of range.
        """
        heads.require_language_model(self.module)
        tokens = self.inputs.prompts(requests)
        prompts, cuts = tokens.sequences, tokens.cuts
        self._warn_cut(cuts)
        start = start_id(self.module)
        eos, pad = heads.eos_ids(self.module, self.tokenizer), heads.pad_id(self.tokenizer)

        def compute(rows: Sequence[int]) -> list[Completion]:
            decoded = decode_batch(
                _Decoder(self, [tuple(prompts[i]) for i in rows]),
                [[start]] * len(rows),
                [requests[i] for i in rows],
                eos=eos,
                pad=pad,
                decoder=self._decode,
                device=self.device,
            )
            return [self._completion(requests[i], prompts[i], cuts[i], d, eos) for i, d in zip(rows, decoded)]

        growth = [request.sampling.max_tokens for request in requests]
        return self._run(plan_shared([*map(tuple, prompts)], growth, self.batch_tokens), held, compute)

    def score(
        self, requests: Sequence[Score], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Scored]]]:
        """Log-likelihood of each continuation; see ``Engine.score`` and ``seq2seq_inputs``. A rolling text's
        window is predicted by the decoder from nothing but what stands before it in the encoder: the start
        token for the first, a token of the text for the others (as in lm-evaluation-harness)."""
        heads.require_language_model(self.module)
        tokens = self.inputs.pairs(requests)
        self._warn_cut(tokens.cuts)
        parts: list[_Part] = []
        for owner, (request, ids, start) in enumerate(zip(requests, tokens.sequences, tokens.starts)):
            spans = rolling_windows(len(ids), self.context_length) if request.rolling else []
            for first, target, end in spans or [(0, start, len(ids))]:
                parts.append(_Part(owner, tuple(ids[first:target]), ids[target:end]))
        scorer = _Scorer(self, parts)
        growth = [max(1, len(part.targets)) for part in parts]
        batches = plan_shared([part.context for part in parts], growth, self.batch_tokens)
        owners = [part.owner for part in parts]
        answered = frozenset(held)
        skipped = [index for index, owner in enumerate(owners) if owner in answered]
        for batch in join_parts(self._run(batches, skipped, scorer), owners):
            yield [(i, replace(add_up(scored), cut=tokens.cuts[i])) for i, scored in batch]

    def reward(
        self, requests: Sequence[Reward], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Rewarded]]]:
        """Not supported.

        Raises:
            UsageError: always.
        """
        raise UsageError("rewards need a decoder-only reward model; this is an encoder-decoder model")


@dataclass
class _Memory:
    """What the decoder looks back on, a row each: the encoder's ``states`` [B, S, D] and their 0/1 ``mask``
    [B, S], the ``cache`` of both attentions. ``decode_batch`` drops rows that ended."""

    states: Tensor
    mask: Tensor
    cache: Any = None

    def batch_select_indices(self, rows: Tensor) -> None:
        """Keep the rows (long [b]), in their order; one may be taken more than once."""
        if not hasattr(self.cache, "batch_select_indices"):
            raise WorkError("the decoder returns no key-value cache that rows can be taken from")
        self.cache.batch_select_indices(rows)
        self.states, self.mask = self.states[rows], self.mask[rows]


class _Decoder:
    """The model as ``decode_batch`` calls it: the distinct prompts run through encoder and first step, and
    from then on each row has its own copy of what came of it."""

    def __init__(self, engine: Seq2SeqEngine, prompts: Sequence[tuple[int, ...]]) -> None:
        self.engine, self.prompts = engine, prompts
        config = getattr(engine.module, "generation_config", None)
        self.forced: int | None = getattr(config, "forced_bos_token_id", None)

    def __call__(self, ids: Tensor, mask: Tensor | None, positions: Any, memory: _Memory | None) -> Any:
        """Logits [B, 1, V] behind the last of ``ids`` [B, 1], and the memory."""
        if memory is not None:
            return SimpleNamespace(logits=step(self.engine, memory, ids).logits, past_key_values=memory)
        memory, index = encode(self.engine, self.prompts)
        logits = step(self.engine, memory, ids[: len(memory.states)]).logits[index]
        memory.batch_select_indices(index)
        if self.forced is not None:
            others = torch.arange(logits.shape[-1], device=logits.device) != self.forced
            logits = logits.masked_fill(others, -torch.inf)
        return SimpleNamespace(logits=logits, past_key_values=memory)


class _Scorer:
    """Scores parts, some at a time. The head runs at target positions only, where it can run apart."""

    def __init__(self, engine: Seq2SeqEngine, parts: Sequence[_Part]) -> None:
        self.engine, self.parts = engine, parts
        self.separable = bool(parts) and has_separable_head(engine)

    def __call__(self, rows: Sequence[int]) -> list[Scored]:
        """The sum of log P(target | context, targets before it) for the parts at ``rows``.

        Raises:
            WorkError: the model's logits are not numbers.
        """
        chosen = [self.parts[i] for i in rows]
        memory, index = encode(self.engine, [part.context for part in chosen])
        start = start_id(self.engine.module)
        first = self._states(memory, [[start]] * len(memory.states))[:, 0]
        self.engine.work.total_tokens += len(chosen) - len(memory.states)
        filled = [row for row, part in enumerate(chosen) if part.targets]
        longer = [row for row in filled if len(chosen[row].targets) > 1]
        places = torch.tensor(filled, dtype=torch.long)
        targets = [chosen[row].targets[0] for row in filled]
        logprobs, greedy = self._at(first, index[places.to(index.device)], targets)
        if longer:
            memory.batch_select_indices(index[longer])
            later = [chosen[row].targets[1:] for row in longer]
            # the last target is only predicted
            states = self._states(memory, [chosen[row].targets[:-1] for row in longer])
            own = torch.tensor([i for i, ids in enumerate(later) for _ in ids])
            column = torch.tensor([t for ids in later for t in range(len(ids))])
            states = states[own.to(states.device), column.to(states.device)]
            more = self._at(states, torch.arange(len(states)), [t for ids in later for t in ids])
            places = torch.cat([places, torch.tensor(longer)[own]])
            logprobs, greedy = torch.cat([logprobs, more[0]]), torch.cat([greedy, more[1]])
        heads.require_numbers(logprobs)
        zeros = torch.zeros(len(chosen), dtype=torch.float64)
        sums = zeros.index_add(0, places, logprobs).tolist()
        misses = zeros.index_add(0, places, (~greedy).double()).tolist()
        return [Scored(s, len(part.targets), m == 0) for s, part, m in zip(sums, chosen, misses)]

    def _states(self, memory: _Memory, ids: Sequence[Sequence[int]]) -> Tensor:
        """What the head gets [B, T, D], or where it cannot run apart the logits [B, T, V], behind each of
        ``ids``. Padding is on the right, where causal attention never looks."""
        self.engine.work.add_padded([*map(len, ids)])
        inputs = heads.pad_right(ids, heads.pad_id(self.engine.tokenizer)).to(self.engine.device)
        if not self.separable:
            logits: Tensor = step(self.engine, memory, inputs).logits
            return logits
        with _before_head(self.engine.module) as caught:
            step(self.engine, memory, inputs)
        return caught[0]

    def _at(self, states: Tensor, where: Tensor, targets: list[int]) -> tuple[Tensor, Tensor]:
        """Log-probability (float64 [N], of float32 logits) and whether it is the argmax (bool [N]) of each
        target behind the state [P, D] that ``where`` (long [N]) names, on the CPU."""
        head = self.engine.module.get_output_embeddings() if self.separable else nn.Identity()
        where, wanted = where.cpu(), torch.tensor(targets, dtype=torch.long)
        logprobs = torch.zeros(len(wanted), dtype=torch.float64)
        greedy = torch.zeros(len(wanted), dtype=torch.bool)
        size = max(1, LOGITS // self.engine.module.get_output_embeddings().weight.shape[0])
        for low in range(0, len(states), size):
            logits = head(states[low : low + size]).float()
            here = ((where >= low) & (where < low + size)).nonzero()[:, 0]
            row, target = (where[here] - low).to(logits.device), wanted[here].to(logits.device)
            logprobs[here] = (logits[row, target] - logits.logsumexp(-1)[row]).cpu().double()
            greedy[here] = (logits.argmax(-1)[row] == target).cpu()
        return logprobs, greedy


def encode(engine: Seq2SeqEngine, contexts: Sequence[tuple[int, ...]]) -> tuple[_Memory, Tensor]:
    """The memory of the distinct contexts, and which of them each context is (long [B])."""
    distinct = list(dict.fromkeys(contexts))
    places = {context: place for place, context in enumerate(distinct)}
    engine.work.add_padded([*map(len, distinct)])
    engine.work.total_tokens += sum(map(len, contexts)) - sum(map(len, distinct))
    ids = heads.pad_right(distinct, heads.pad_id(engine.tokenizer)).to(engine.device)
    lengths = torch.tensor([*map(len, distinct)], device=engine.device)
    mask = (torch.arange(ids.shape[1], device=engine.device)[None] < lengths[:, None]).long()
    states = engine.module.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    index = torch.tensor([places[context] for context in contexts], device=engine.device)
    return _Memory(states, mask), index


def step(engine: Seq2SeqEngine, memory: _Memory, ids: Tensor) -> Any:
    """Run the decoder on ``ids`` [B, T] behind what the memory's cache holds, and add them to it."""
    out = engine.module(
        encoder_outputs=(memory.states,),
        attention_mask=memory.mask,
        decoder_input_ids=ids,
        past_key_values=memory.cache,
        use_cache=True,
    )
    memory.cache = out.past_key_values
    return out


def start_id(module: Any) -> int:
    """The token that the decoder begins with.

    Raises:
        WorkError: the config names none.
    """
    for config in (module.config, getattr(module, "generation_config", None)):
        value = getattr(config, "decoder_start_token_id", None)
        if isinstance(value, int):
            return value
    raise WorkError("the model's config names no decoder_start_token_id; add it to config.json")


def has_separable_head(engine: Seq2SeqEngine) -> bool:
    """Whether logits = output embedding (what it is given in the forward pass), with nothing behind it, such
    as Marian's bias. Tried on a few tokens, not read from the config."""
    module = engine.module
    head = module.get_output_embeddings()
    if head is None:
        return False
    ids = torch.arange(1, 5, device=engine.device)[None] % head.weight.shape[0]
    with engine._evaluating():
        full = module(input_ids=ids, decoder_input_ids=ids).logits
        with _before_head(module) as caught:
            module(input_ids=ids, decoder_input_ids=ids)
        apart = head(caught[0]) if caught else None
    return (
        apart is not None and full.shape == apart.shape and torch.allclose(full, apart, rtol=1e-5, atol=1e-5)
    )


@contextmanager
def _before_head(module: Any) -> Iterator[list[Tensor]]:
    """Forward passes inside compute no logits; the list gets what the head would have computed them from,
    scaled as the model scales it (T5)."""
    caught: list[Tensor] = []

    def keep(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        caught.append(given[0])
        return (given[0][:, :0],)

    handle = module.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield caught
    finally:
        handle.remove()
