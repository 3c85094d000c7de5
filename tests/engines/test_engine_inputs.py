"""What reaches the model, without a model: the same ids that the engine computes with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_model, make_tokenizer

from alignbench.engines import open_engine
from alignbench.engines.inputs import Inputs, open_inputs, positions_of
from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Generate, Reward, Sampling, Score
from alignbench.errors import UsageError

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
LONG = "the cat sat on the mat and the dog ran to the cat; where is the mat? " * 6


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights with a plain tokenizer, one that puts BOS in front, and one with a template."""
    made = {}
    for name in ("plain", "bos", "chat"):
        path = tmp_path_factory.mktemp("models") / name
        make_model("llama").save_pretrained(path)
        tokenizer = make_tokenizer(bos=name != "plain")
        if name == "chat":
            tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(path)
        made[name] = path
    return made


@pytest.mark.parametrize("name", ["plain", "bos", "chat"])
def test_prompts_are_those_of_the_completions(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "prefix.txt").write_text("Be kind. ")
    policy = parse_policy(f"{folders[name]}?prefix={tmp_path / 'prefix.txt'}")
    requests = [Generate(text, Sampling(3)) for text in ("the cat", "", "the dog sat ", LONG)]
    tokens = open_inputs(policy)[0].encode(requests)
    answers = dict(pair for batch in open_engine(policy).generate(requests) for pair in batch)
    assert tokens.sequences == [list(answers[i].prompt_ids) for i in range(4)]
    assert tokens.cuts == [answers[i].cut for i in range(4)]
    assert tokens.cuts[3] > 0
    assert tokens.starts == [*map(len, tokens.sequences)]


@pytest.mark.parametrize("name", ["plain", "bos", "chat"])
def test_pairs_are_what_is_scored(name: str, folders: dict[str, Path]) -> None:
    policy = parse_policy(str(folders[name]))
    requests = [Score("the cat", " sat on"), Score("the mat ", "is"), Score("", "the dog"), Score(LONG, "it")]
    tokens = open_inputs(policy)[0].encode(requests)
    engine: Any = open_engine(policy)
    answers = dict(pair for batch in engine.score(requests) for pair in batch)
    for i, (ids, start) in enumerate(zip(tokens.sequences, tokens.starts)):
        with torch.inference_mode():
            logprobs = engine.module(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
        by_hand = sum(float(logprobs[t - 1, ids[t]]) for t in range(start, len(ids)))
        assert answers[i].logprob == pytest.approx(by_hand, abs=1e-4)
        assert (answers[i].n_tokens, answers[i].cut) == (len(ids) - start, tokens.cuts[i])
    assert tokens.cuts[3] > 0


def test_what_is_put_in_front(folders: dict[str, Path]) -> None:
    front = {name: open_inputs(parse_policy(str(path)))[0].in_front for name, path in folders.items()}
    assert front == {"plain": [], "bos": [2], "chat": []}, "a template writes its own"
    assert open_inputs(parse_policy(f"{folders['chat']}?chat_template=off"))[0].in_front == [2]


def test_a_reward_is_two_turns_or_ends_in_eos() -> None:
    tokenizer = make_tokenizer(bos=True)
    request = Reward("the cat", " sat")
    assert tokenizer.decode(Inputs(tokenizer).encode([request]).sequences[0]) == "<bos>the cat sat<eos>"
    tokenizer.chat_template = TEMPLATE
    templated = Inputs(tokenizer, chat_template="on")
    assert templated.text(request) == "<bos>[user] the cat\n[assistant]  sat<eos>"
    assert tokenizer.decode(templated.encode([request]).sequences[0]) == templated.text(request)


@given(window=st.integers(4, 40), words=st.lists(st.sampled_from(["the", " cat", " sat", "?"]), max_size=40))
def test_no_input_exceeds_the_window(window: int, words: list[str]) -> None:
    tokenizer = make_tokenizer()
    text = "".join(words)
    inputs, free = Inputs(tokenizer, window=window), Inputs(tokenizer)
    (prompt,) = inputs.encode([Generate(text, Sampling(3))]).sequences
    pair, whole = inputs.encode([Score(text, " mat")]), free.encode([Score(text, " mat")])
    assert 1 <= len(prompt) <= window - 3
    assert len(pair.sequences[0]) <= window + 1, "the last token is only predicted"
    assert pair.cuts[0] + len(pair.sequences[0]) == len(whole.sequences[0])
    assert whole.sequences[0][pair.cuts[0] :] == pair.sequences[0]
    assert inputs.encode([]).sequences == []


def test_the_window_is_the_configs() -> None:
    assert positions_of(make_model("gpt2").config) == positions_of(make_model("llama").config) == 96


def test_errors_are_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        open_inputs(parse_policy(str(tmp_path / "none")))
    with pytest.raises(UsageError, match="no chat template"):
        open_inputs(parse_policy(f"{folders['plain']}?chat_template=on"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="cannot be read"):
        open_inputs(parse_policy(str(tmp_path)))


def test_a_continuation_that_begins_with_the_start_token_needs_no_other_one() -> None:
    inputs = Inputs(make_tokenizer())  # no BOS: EOS (1) stands for an empty context
    written, plain = inputs.pairs([Score("", "<eos>the cat"), Score("", "the cat")]).sequences
    assert written == plain
    assert plain[0] == 1
    assert inputs.pairs([Score("", "<eos>the cat")]).starts == [1]
    # a rolling text's own EOS is a token of the text
    assert inputs.pairs([Score("", "<eos>the cat", rolling=True)]).sequences == [[1, *written]]
