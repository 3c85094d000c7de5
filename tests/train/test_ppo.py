"""PPO runs: folders, resuming bit for bit, what is written, and wrong input in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignbench.engines import open_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Completion, Reward
from alignbench.errors import UsageError, WorkError
from alignbench.train import ppo
from alignbench.train.config import PPOConfig
from alignbench.train.learner import Learner
from alignbench.train.rollouts import as_rollout

Saved = tuple[Path, Path]


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    prompts, texts = tmp_path / "prompts.jsonl", tmp_path / "texts.jsonl"
    asked = [{"prompt": text} for text in ("a?", "what is this, then?", "say it", "x", "and now", "who")]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in asked))
    read = [{"text": text} for text in ("the sky is blue", "a cat sat on a mat", "no", "one two three four")]
    texts.write_text("".join(json.dumps(row) + "\n" for row in read))
    return prompts, texts


@pytest.fixture
def configure(saved: Saved, data: tuple[Path, Path]) -> Callable[..., PPOConfig]:
    def make(**keys: Any) -> PPOConfig:
        defaults: dict[str, Any] = {
            "model": str(saved[0]),
            "reward_model": str(saved[1]),
            "data": str(data[0]),
            "pretrain_data": str(data[1]),
            "ptx_batch_size": 2,
            "steps": 4,
            "batch_size": 4,
            "minibatches": 2,
            "max_new_tokens": 6,
            "lr": 1e-3,
            "save_every": 2,
            "device": "cpu",
        }
        return PPOConfig(**{**defaults, **keys})

    return make


def lines(out: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


@pytest.mark.parametrize("dies_at", [2, 4])
def test_a_killed_run_goes_on_bit_for_bit(
    configure: Callable[..., PPOConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    config = configure()
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ppo.train_ppo(config, whole, quiet=True)
    real = Learner.step

    def dying(self: Learner, step: int) -> dict[str, float]:
        metrics = real(self, step)
        if step == dies_at:  # the work of this step is done and lost
            raise KeyboardInterrupt
        return metrics

    monkeypatch.setattr(Learner, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        ppo.train_ppo(config, broken, quiet=True)
    monkeypatch.setattr(Learner, "step", real)
    torch.rand(7)  # what else happened in the meantime does not matter
    ppo.train_ppo(config, broken, resume=True, quiet=True)
    for name in ("metrics.jsonl", "rollouts.jsonl", "model.safetensors", "raw/model.safetensors"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_what_is_written(configure: Callable[..., PPOConfig], tmp_path: Path, saved: Saved) -> None:
    out = tmp_path / "ppo"
    record = ppo.train_ppo(configure(), out, quiet=True)
    logged = lines(out)
    assert [line["step"] for line in logged] == [1, 2, 3, 4]
    assert {"reward", "kl", "kl_per_token", "entropy", "clip_fraction", "approx_kl", "value_loss"} <= set(
        logged[0]
    )
    assert {"explained_variance", "policy_loss", "ptx_loss", "response_length", "eos_rate"} <= set(logged[0])
    assert "gold" not in logged[0]
    assert record["parents"]["reward_model"] == str(saved[1])
    assert record["last"]["kl"] == logged[-1]["kl"]
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer("a?", return_tensors="pt")
    weights = []
    for folder in (saved[0], out, out / "raw"):
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.generate(**ids, max_new_tokens=3, do_sample=False).shape[0] == 1
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    sft, average, raw = weights
    # four steps at 0.992 leave the average close to where it began, on the way to the raw weights
    assert 0 < (average - sft).norm() < 0.1 * (raw - sft).norm()


def test_all_rollouts_of_a_step_average_to_its_metrics(
    configure: Callable[..., PPOConfig], tmp_path: Path
) -> None:
    out = tmp_path / "ppo"
    ppo.train_ppo(configure(steps=2, log_rollouts=4), out, quiet=True)
    rows = lines(out, "rollouts.jsonl")
    assert [row["step"] for row in rows] == [1] * 4 + [2] * 4
    for logged in lines(out):
        of_step = [row for row in rows if row["step"] == logged["step"]]
        for mean, key in (("reward", "reward"), ("kl", "kl"), ("response_length", "n_tokens")):
            assert sum(row[key] for row in of_step) / 4 == pytest.approx(logged[mean], abs=1e-5)
        assert sum(row["finish"] == "eos" for row in of_step) / 4 == logged["eos_rate"]
    assert len({row["prompt"] for row in rows[:4]}) == 4
    assert all(isinstance(row["response"], str) for row in rows)


def test_the_first_rollouts_of_a_step_are_logged_and_change_nothing(
    configure: Callable[..., PPOConfig], tmp_path: Path
) -> None:
    for n in (0, 2, 4):
        ppo.train_ppo(configure(steps=1, log_rollouts=n), tmp_path / str(n), quiet=True)
    assert not (tmp_path / "0" / "rollouts.jsonl").exists()
    assert lines(tmp_path / "2", "rollouts.jsonl") == lines(tmp_path / "4", "rollouts.jsonl")[:2]
    assert lines(tmp_path / "0") == lines(tmp_path / "4")


def test_without_an_average_the_last_weights_are_written(
    configure: Callable[..., PPOConfig], tmp_path: Path
) -> None:
    out = tmp_path / "ppo"
    ppo.train_ppo(configure(ema_decay=None, pretrain_data=None, steps=1), out, quiet=True)
    assert not (out / "raw").exists()
    assert (out / "model.safetensors").exists()
    assert "ptx_loss" not in lines(out)[0]


def test_a_finished_run_is_only_reported(
    configure: Callable[..., PPOConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(steps=1)
    first = ppo.train_ppo(config, tmp_path / "ppo", quiet=True)
    monkeypatch.setattr(Learner, "step", None)
    assert ppo.train_ppo(config, tmp_path / "ppo", resume=True, quiet=True) == first


def test_a_reward_model_with_another_tokenizer_reads_texts(
    configure: Callable[..., PPOConfig], tmp_path: Path, make_tokenizer: Callable[..., Any], saved: Saved
) -> None:
    make_tokenizer(offset=1).save_pretrained(saved[1])
    learner, _ = ppo.build_learner(configure())
    rollout = learner.sample(1)
    assert torch.isfinite(learner.score(rollout)).all()
    body = learner.policy.model.layers[0].mlp.up_proj.weight
    assert torch.equal(learner.value.model.layers[0].mlp.up_proj.weight, body)


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}"
)
TEMPLATE += "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.mark.parametrize(
    "judge_template", [TEMPLATE, TEMPLATE.replace("<", "[").replace("[eos>", "<eos>"), None]
)
def test_the_reward_model_reads_a_rollout_as_it_does_in_a_comparison(
    configure: Callable[..., PPOConfig],
    make_tokenizer: Callable[..., Any],
    saved: Saved,
    judge_template: str | None,
) -> None:
    for folder, template in zip(saved, (TEMPLATE, judge_template)):
        tokenizer = make_tokenizer()
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    learner, tokenizer = ppo.build_learner(configure())
    assert learner.prompts[:2] == ["<user>a?<assistant>", "<user>what is this, then?<assistant>"]
    completions = []
    for prompt, text in zip(learner.prompts, ("yes", "that is a byte")):
        asked, said = (tuple(tokenizer(each)["input_ids"]) for each in (prompt, text))
        nothing = (0.0,) * (len(said) + 1)
        ended = (*said, tokenizer.eos_token_id)
        completions.append(Completion(text, asked, ended, nothing, nothing, "eos"))
    rollout = as_rollout(learner.prompts[:2], completions, torch.device("cpu"))
    judge = open_engine(parse_policy(str(saved[1])))
    (part,) = judge.reward([Reward("a?", "yes"), Reward("what is this, then?", "that is a byte")])
    expected = [done.reward for _, done in sorted(part)]
    assert learner.score(rollout).tolist() == pytest.approx(expected, abs=1e-5)


def test_the_value_model_starts_as_the_reward_model(configure: Callable[..., PPOConfig]) -> None:
    learner, _ = ppo.build_learner(configure())
    rollout = learner.sample(1)
    experience = learner.assess(rollout)
    # the value after the last token would be the reward; the head and its offset are the same
    assert learner.value.config.reward_offset == 0.25
    assert experience.values.abs().sum() > 0
    assert learner.value.score.weight.requires_grad


def test_a_language_model_is_no_reward_model(
    configure: Callable[..., PPOConfig], tmp_path: Path, saved: Saved
) -> None:
    with pytest.raises(UsageError, match="no reward head"):
        ppo.train_ppo(configure(reward_model=str(saved[0])), tmp_path / "ppo", quiet=True)
    assert not (tmp_path / "ppo" / "run.json").exists()


def test_a_reward_model_without_its_head_is_refused(
    configure: Callable[..., PPOConfig], saved: Saved, tmp_path: Path
) -> None:
    file = saved[1] / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if k != "score.weight"}, file, {"format": "pt"})
    with pytest.raises(UsageError, match=r"lacks the weights score\.weight"):
        ppo.train_ppo(configure(), tmp_path / "out", quiet=True)


def test_no_room_for_responses_leaves_no_run_behind(
    configure: Callable[..., PPOConfig], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="leaves no room"):
        ppo.train_ppo(configure(max_new_tokens=128), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out" / "run.json").exists()


def test_in_bfloat16_the_averaged_weights_move(
    configure: Callable[..., PPOConfig], saved: Saved, tmp_path: Path
) -> None:
    config = configure(dtype="bfloat16", steps=1, warmup=0, lr=1e-4, ema_decay=0.99)
    record = ppo.train_ppo(config, tmp_path / "out", quiet=True)
    assert record["last"]["kl"] == pytest.approx(0, abs=0.1)  # the reference computes alike
    start, averaged, raw = (
        load_file(folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
        for folder in (saved[0], tmp_path / "out", tmp_path / "out" / "raw")
    )
    torch.testing.assert_close(averaged - start, 0.01 * (raw - start), atol=1e-7, rtol=0.05)
    assert ((averaged - start).abs() > 5e-7).float().mean() > 0.5


def test_a_reference_with_another_tokenizer_is_refused(
    configure: Callable[..., PPOConfig], tmp_path: Path, make_tokenizer: Callable[..., Any], saved: Saved
) -> None:
    other = tmp_path / "other"
    AutoModelForCausalLM.from_pretrained(saved[0]).save_pretrained(other)
    make_tokenizer(offset=1).save_pretrained(other)
    with pytest.raises(UsageError, match="another tokenizer"):
        ppo.build_learner(configure(reference=str(other)))


def test_divergence_is_one_sentence(
    configure: Callable[..., PPOConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "step", lambda self, step: {"policy_loss": float("nan")})
    with pytest.raises(WorkError, match="diverged at step 1"):
        ppo.train_ppo(configure(), tmp_path / "ppo", quiet=True)


def test_pretraining_texts_end_with_eos_and_are_cut_in_pieces(tokenizer: Any) -> None:
    a, b, c = tokenizer("abc")["input_ids"]
    eos = tokenizer.eos_token_id
    assert ppo.encode_pretraining(tokenizer, ["abc"], 8) == [[a, b, c, eos]]
    assert ppo.encode_pretraining(tokenizer, ["abc", "ab"], 2) == [[a, b], [c, eos], [a, b]]


def test_no_piece_is_longer_than_the_model_context(
    configure: Callable[..., PPOConfig], tmp_path: Path
) -> None:
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"text": "x" * 300}) + "\n")
    learner, _ = ppo.build_learner(configure(pretrain_data=str(long)))
    assert learner.text_lengths == [128, 128, 45]


def test_gold_is_known_on_the_pocket_world_only(configure: Callable[..., PPOConfig]) -> None:
    from alignbench.pocket.data import prompts

    assert ppo._gold(configure(), None) is None
    assert ppo._gold(configure(gold=False), "pocket") is None
    gold = ppo._gold(configure(), "pocket")
    assert gold is not None
    assert gold("nothing of that world", "yes") is None
    ask = prompts(0, 20)[0]
    assert gold(ask.prompt, "") == 0.0
