"""Rollouts: what was sampled, what is padding, and that batches, padding and heads change no number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from alignbench.engines.hf import HFEngine
from alignbench.engines.types import Completion, Reward
from alignbench.train.rollouts import (
    Rollout,
    as_rollout,
    policy_logprobs,
    request_seeds,
    reward_scores,
    sample_rollout,
    share_tokenizer,
    token_values,
)

PROMPTS = ["a?", "what is this, then?", "say it", "x"]
CPU = torch.device("cpu")


def sample(
    model: Any, tokenizer: Any, prompts: list[str] = PROMPTS, temperature: float = 1.0, step: int = 1
) -> Rollout:
    seeds = request_seeds(0, step, len(prompts))
    return sample_rollout(
        HFEngine(model, tokenizer),
        prompts,
        max_new_tokens=9,
        temperature=temperature,
        seeds=seeds,
        device=CPU,
    )


def written(tokenizer: Any, pairs: list[tuple[str, str, bool]]) -> Rollout:
    """A rollout of given responses; the flag says whether each ended by itself."""
    completions = []
    for prompt, response, ended in pairs:
        ids = tuple(tokenizer(response)["input_ids"]) + (tokenizer.eos_token_id,) * ended
        logprobs = tuple(-float(i) for i in range(len(ids)))
        prompt_ids = tuple(tokenizer(prompt)["input_ids"])
        completions.append(
            Completion(response, prompt_ids, ids, logprobs, logprobs, "eos" if ended else "length")
        )
    return as_rollout([prompt for prompt, _, _ in pairs], completions, CPU)


def naive_logprobs(model: Any, completion: Completion, temperature: float) -> Tensor:
    """One row, no padding, every logit."""
    ids = torch.tensor([completion.prompt_ids + completion.token_ids])
    logprobs = (model(input_ids=ids).logits[0] / temperature).log_softmax(-1)
    start = len(completion.prompt_ids)
    return logprobs[torch.arange(start - 1, ids.shape[1] - 1), ids[0, start:]]


def test_layout_by_hand(tokenizer: Any) -> None:
    rollout = written(tokenizer, [("ab", "cde", True), ("f", "g", False)])
    a, g, eos = tokenizer("a")["input_ids"][0], tokenizer("g")["input_ids"][0], tokenizer.eos_token_id
    assert rollout.ids.shape == (2, 6)
    assert rollout.ids[0, 0] == a
    assert rollout.ids[0, 5] == eos
    assert rollout.mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert rollout.logprobs.tolist() == [[0, -1, -2, -3], [0, 0, 0, 0]]
    assert rollout.starts.tolist() == [2, 1]
    assert rollout.ended.tolist() == [1, 0]
    assert rollout.lengths.tolist() == [4, 1]
    rows, columns = rollout.predictors()
    assert rows.tolist() == [0, 0, 0, 0, 1]
    assert columns.tolist() == [1, 2, 3, 4, 0]  # b predicts c, …, and f predicts g
    assert rollout.tokens().tolist() == [*tokenizer("cde")["input_ids"], eos, g]
    assert rollout.spread(torch.arange(5.0)).tolist() == [[0, 1, 2, 3], [4, 0, 0, 0]]


def test_take_trims_to_the_rows_that_are_left(tokenizer: Any) -> None:
    rollout = written(tokenizer, [("ab", "cdefgh", True), ("f", "gh", False), ("k", "l", True)])
    part = rollout.take(torch.tensor([2, 1]))
    assert part.prompts == ("k", "f")
    assert part.ids.shape == (2, 3)
    assert part.mask.tolist() == [[1, 1], [1, 1]]
    assert part.tokens().tolist() == [*rollout.completions[2].token_ids, *rollout.completions[1].token_ids]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_logprobs_agree_with_a_fresh_forward(
    tokenizer: Any, make_policy: Callable[..., Any], family: str, temperature: float
) -> None:
    model = make_policy(family=family)
    rollout = sample(model, tokenizer, temperature=temperature)
    with torch.no_grad():
        fresh, _ = policy_logprobs(model, rollout, temperature=temperature)
        whole, _ = policy_logprobs(model, rollout, temperature=temperature, separable=False)
        for row, completion in enumerate(rollout.completions):
            naive = naive_logprobs(model, completion, temperature)
            torch.testing.assert_close(fresh[row, : len(naive)], naive, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fresh, rollout.logprobs, atol=1e-4, rtol=0)
    torch.testing.assert_close(fresh, whole, atol=1e-5, rtol=1e-5)
    assert rollout.logprobs.min() < -0.1


def test_entropy_is_that_of_the_sampling_distribution(
    tokenizer: Any, make_policy: Callable[..., Any]
) -> None:
    model = make_policy()
    rollout = written(tokenizer, [("ab", "c", False)])
    logits = model(input_ids=rollout.ids[:, :2]).logits[0, -1] / 0.5
    _, entropy = policy_logprobs(model, rollout, temperature=0.5)
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy[0, 0], expected.detach(), atol=1e-5, rtol=1e-5)
    assert not entropy.requires_grad


def test_gradient_reaches_the_policy_through_response_tokens_only(
    tokenizer: Any, make_policy: Callable[..., Any]
) -> None:
    model = make_policy()
    pairs = [("ab", "cde", True), ("f", "g", False)]
    logprobs, _ = policy_logprobs(model, written(tokenizer, pairs))
    logprobs.sum().backward()
    batched = model.lm_head.weight.grad.clone()
    model.zero_grad()
    for pair in pairs:  # one by one, without padding
        policy_logprobs(model, written(tokenizer, [pair]))[0].sum().backward()
    torch.testing.assert_close(batched, model.lm_head.weight.grad, atol=1e-5, rtol=1e-4)


def test_rollouts_repeat_and_do_not_depend_on_their_batch(
    tokenizer: Any, make_policy: Callable[..., Any]
) -> None:
    model = make_policy()
    first, again, later = (sample(model, tokenizer, step=step) for step in (1, 1, 2))
    assert first.completions == again.completions
    assert [c.token_ids for c in first.completions] != [c.token_ids for c in later.completions]
    alone = sample(model, tokenizer, PROMPTS[:1])
    assert alone.completions[0].token_ids == first.completions[0].token_ids


def test_request_seeds_differ_by_run_step_and_place() -> None:
    seeds = [s for seed in range(3) for step in range(3) for s in request_seeds(seed, step, 5)]
    assert len(set(seeds)) == len(seeds)
    assert request_seeds(0, 1, 3) == request_seeds(0, 1, 5)[:3]


def test_values_are_read_before_each_token(tokenizer: Any, make_reward_model: Callable[..., Any]) -> None:
    model = make_reward_model()
    rollout = written(tokenizer, [("ab", "cd", True), ("f", "g", False)])
    values = token_values(model, rollout)
    for row, completion in enumerate(rollout.completions):
        for t in range(len(completion.token_ids)):
            seen = torch.tensor([completion.prompt_ids + completion.token_ids[:t]])
            hidden = model.model(input_ids=seen).last_hidden_state[0, -1]
            expected = model.score(hidden)[0] - 0.25
            torch.testing.assert_close(values[row, t], expected, atol=1e-5, rtol=1e-5)
    assert values[1, 1:].tolist() == [0, 0]


def test_reward_model_reads_ids_and_one_eos(tokenizer: Any, make_reward_model: Callable[..., Any]) -> None:
    engine = HFEngine(make_reward_model(), tokenizer)
    rollout = written(tokenizer, [("ab", "cd", True), ("ab", "cd", False), ("f", "g", False)])
    by_ids = reward_scores(engine, rollout, same_tokenizer=True)
    by_text = reward_scores(engine, rollout, same_tokenizer=False)
    torch.testing.assert_close(by_ids, by_text, atol=1e-5, rtol=1e-5)
    assert by_ids[0] == pytest.approx(by_ids[1].item(), abs=1e-5)  # cut off: scored as it stands
    asked = [Reward("f", "g")]
    (((_, judged),),) = list(engine.reward(asked))
    assert by_ids[2].item() == pytest.approx(judged.reward, abs=1e-5)


def test_reward_model_with_a_short_context_loses_the_beginning(
    tokenizer: Any, make_reward_model: Callable[..., Any]
) -> None:
    model = make_reward_model()
    model.config.max_position_embeddings = 4
    engine = HFEngine(model, tokenizer)
    long = reward_scores(engine, written(tokenizer, [("zzzab", "cd", True)]), same_tokenizer=True)
    short = reward_scores(engine, written(tokenizer, [("b", "cd", True)]), same_tokenizer=True)
    torch.testing.assert_close(long, short, atol=1e-5, rtol=1e-5)


def test_share_tokenizer(tokenizer: Any, make_tokenizer: Callable[..., Any]) -> None:
    assert share_tokenizer(tokenizer, make_tokenizer())
    assert not share_tokenizer(tokenizer, make_tokenizer(offset=1))
