"""Rollouts: prompts answered by the policy, as padded token ids, and what other models say of those ids.

Shapes use the notation of ``objectives``: ``B`` responses, ``T`` positions of the longest response, ``L`` of
the longest prompt and response together, ``M`` response tokens in all, ``V`` the vocabulary. The sampled ids
are what is trained on: they are never decoded and tokenized again. Rows are padded on the right and attention
is causal, so a model needs no attention mask, and its head runs at the ``M`` response positions only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alignbench.engines.heads import last_hidden
from alignbench.engines.hf import HFEngine
from alignbench.engines.types import Completion, Generate, Reward, Sampling
from alignbench.train.models import reward_head
from alignbench.train.objectives import response_logprobs, token_entropy


class Sampler(Protocol):
    """An engine that continues prompts and tells what it sampled from."""

    def generate(self, requests: Sequence[Generate]) -> Iterator[list[tuple[int, Completion]]]: ...


@dataclass(frozen=True)
class Rollout:
    """Sampled responses, each row a prompt and its response.

    ``prompts``: the texts as given; ``completions``: the engine's answers (text, ids, how each ended);
    ``ids`` ``(B, L)`` long: prompt and response, padded on the right; ``starts`` ``(B,)`` long: where the
    response starts in its row (≥ 1); ``mask`` ``(B, T)`` float32: 1 at response tokens, EOS included;
    ``logprobs`` ``(B, T)`` float32: of each sampled token under the distribution it was sampled from, as the
    engine tells them.
    """

    prompts: tuple[str, ...]
    completions: tuple[Completion, ...]
    ids: Tensor
    starts: Tensor
    mask: Tensor
    logprobs: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> Tensor:
        """``(B,)`` float32: response tokens, EOS included."""
        return self.mask.sum(1)

    @property
    def ended(self) -> Tensor:
        """``(B,)`` float32: 1 where the policy ended its response by itself, 0 where it was cut off."""
        return torch.tensor([float(c.finish == "eos") for c in self.completions], device=self.ids.device)

    def predictors(self) -> tuple[Tensor, Tensor]:
        """Rows and columns, ``(M,)`` long each, of the positions in ``ids`` that predict the response tokens
        (each one place before its token), row by row."""
        rows, steps = self.mask.nonzero(as_tuple=True)
        return rows, self.starts[rows] + steps - 1

    def tokens(self) -> Tensor:
        """The response tokens, ``(M,)`` long, row by row."""
        rows, columns = self.predictors()
        return self.ids[rows, columns + 1]

    def spread(self, flat: Tensor) -> Tensor:
        """Lay ``(M,)`` per-token values out as ``(B, T)`` float32, 0 at padding. Differentiable."""
        return torch.zeros_like(self.mask).masked_scatter(self.mask.bool(), flat.float())

    def take(self, rows: Tensor) -> Rollout:
        """The responses at ``rows`` (long), padded no wider than these need."""
        chosen = rows.tolist()
        width = int(self.lengths[rows].max())
        total = int((self.starts[rows] + self.lengths[rows].long()).max())
        return Rollout(
            tuple(self.prompts[i] for i in chosen),
            tuple(self.completions[i] for i in chosen),
            self.ids[rows, :total],
            self.starts[rows],
            self.mask[rows, :width],
            self.logprobs[rows, :width],
        )


def request_seeds(seed: int, step: int, n: int) -> list[int]:
    """``n`` independent sampling seeds for the requests of one step of a run."""
    states: list[int] = np.random.SeedSequence((seed, step)).generate_state(n, np.uint64).tolist()
    return states


def sample_rollout(
    engine: Sampler,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    seeds: Sequence[int],
    device: torch.device,
) -> Rollout:
    """Answer each prompt once, sampling from the whole distribution at ``temperature``.

    A response ends with EOS, or is cut off after ``max_new_tokens``. Too long a prompt loses its beginning
    (see ``HFEngine.generate``). The rollout's tensors are on ``device``.
    """
    sampling = Sampling(max_tokens=max_new_tokens, temperature=temperature)
    requests = [Generate(prompt, sampling, seed) for prompt, seed in zip(prompts, seeds)]
    answered: dict[int, Completion] = {}
    for batch in engine.generate(requests):
        answered.update(batch)
    return as_rollout(prompts, [answered[i] for i in range(len(prompts))], device)


def as_rollout(prompts: Sequence[str], completions: Sequence[Completion], device: torch.device) -> Rollout:
    """Pad completions into tensors on ``device``."""
    # what fills the padding is never attended to and never counted; 0 is in every vocabulary
    ids = pad_sequence([torch.tensor(c.prompt_ids + c.token_ids) for c in completions], batch_first=True)
    logprobs = [torch.tensor(c.sampling_logprobs, dtype=torch.float32) for c in completions]
    return Rollout(
        tuple(prompts),
        tuple(completions),
        ids.to(device),
        torch.tensor([len(c.prompt_ids) for c in completions], device=device),
        pad_sequence([torch.ones_like(row) for row in logprobs], batch_first=True).to(device),
        pad_sequence(logprobs, batch_first=True).to(device),
    )


def policy_logprobs(
    model: Any, rollout: Rollout, *, temperature: float = 1.0, separable: bool = True
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the sampled tokens under ``model`` and the entropies of the distributions at their
    positions, both ``(B, T)`` float32 and 0 at padding; the entropies carry no gradient.

    Args:
        model: a causal language model.
        rollout: whose responses.
        temperature: divides the logits, as it did in sampling.
        separable: logits are the output embedding of the last hidden state (see
            ``scoring.has_separable_head``), so that the head runs at response positions only.
    """
    where = rollout.predictors()
    if separable:
        logits = model.get_output_embeddings()(last_hidden(model, rollout.ids)[where])
    else:
        logits = model(input_ids=rollout.ids, use_cache=False).logits[where]
    logits = logits.float() / temperature
    logprobs = response_logprobs(logits, rollout.tokens())
    with torch.no_grad():
        entropy = token_entropy(logits)
    return rollout.spread(logprobs), rollout.spread(entropy)


def token_values(model: Any, rollout: Rollout) -> Tensor:
    """The value model's estimate before each response token is chosen, ``(B, T)`` float32, 0 at padding.

    ``model`` is a causal sequence-classification model with one label; its scalar head is read at every
    response position, and ``config.reward_offset`` is subtracted as for a reward.
    """
    states = last_hidden(model, rollout.ids)[rollout.predictors()]
    offset = float(getattr(model.config, "reward_offset", 0.0) or 0.0)
    return rollout.spread(reward_head(model)(states)[:, 0].float() - offset)


def reward_scores(
    engine: HFEngine, rollout: Rollout, *, same_tokenizer: bool, prompts: Mapping[str, str] | None = None
) -> Tensor:
    """Reward of each response, ``(B,)`` float32, by the reward model behind ``engine``.

    It reads the prompt, the response and its own EOS, as in its training. So a response that was cut off is
    scored as it stands, as if it ended there; ``missing_eos_penalty`` is what tells them apart. With the same
    tokenizer it reads the sampled ids; with another one the texts, each prompt as ``prompts`` says that its
    own chat template renders it.
    """
    if not same_tokenizer:
        asked = [(prompts or {}).get(prompt, prompt) for prompt in rollout.prompts]
        requests = [Reward(prompt, c.text) for prompt, c in zip(asked, rollout.completions)]
        scores = {i: scored.reward for batch in engine.reward(requests) for i, scored in batch}
        return torch.tensor([scores[i] for i in range(len(requests))], device=rollout.ids.device)
    end = engine.tokenizer.eos_token_id
    window = engine.context_length or 0
    sequences = []
    for c in rollout.completions:
        body = c.token_ids[:-1] if c.finish == "eos" else c.token_ids
        sequences.append((*c.prompt_ids, *body, *(() if end is None else (end,)))[-window:])
    return torch.tensor(engine.reward_ids(sequences), device=rollout.ids.device)


def share_tokenizer(a: Any, b: Any) -> bool:
    """Whether two tokenizers give the same ids to a text: same vocabulary, same splitting of a probe."""
    probe = "The quick brown fox, 1984:\n\n  it's naïve — 東京 🙂"
    return bool(a.get_vocab() == b.get_vocab() and a(probe)["input_ids"] == b(probe)["input_ids"])
