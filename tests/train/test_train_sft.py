"""SFT: the loss is the response's alone, the best checkpoint stays, a kill changes nothing."""

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
from alignbench.engines.heads import eos_ids
from alignbench.engines.hf import HFEngine
from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Generate, Sampling
from alignbench.errors import UsageError
from alignbench.train import loop
from alignbench.train.config import SFTConfig
from alignbench.train.data import Demonstration
from alignbench.train.loop import adamw, lr_factor
from alignbench.train.models import add_residual_dropout, arithmetic, default_lr, load_policy
from alignbench.train.run import Run
from alignbench.train.sft import Examples, read_split, train_sft

DEMONSTRATIONS = [(f"q{i % 6}:", f" {'abcdef'[i % 6]}{i % 2}") for i in range(24)]


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "demonstrations.jsonl"
    rows = [{"prompt": prompt, "response": response} for prompt, response in DEMONSTRATIONS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def config(saved: tuple[Path, Path], data: str) -> Callable[..., SFTConfig]:
    def make(**more: Any) -> SFTConfig:
        settings = {"batch_size": 4, "lr": 3e-3, "epochs": 2, "eval_fraction": 0.3, "device": "cpu", **more}
        return SFTConfig(model=str(saved[0]), data=data, **settings)

    return make


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(out).state_dict()
    return state


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- the loss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_loss_is_that_of_response_and_eos_alone(make_policy: Any, tokenizer: Any, family: str) -> None:
    model = make_policy(family=family)
    pairs = [("a long prompt:", " yes"), ("p:", " a longer response"), ("", "x")]
    examples = Examples([Demonstration(*pair) for pair in pairs], tokenizer, 128, 10_000)
    total, tokens = 0.0, 0
    for prompt, response in pairs:
        prompt_ids = tokenizer(prompt)["input_ids"]
        ids = tokenizer(prompt + response)["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for t in range(max(1, len(prompt_ids)), len(ids)):
            total -= float(logprobs[t - 1, ids[t]])
            tokens += 1
    measured = examples.loss(model)
    assert measured["loss"] == pytest.approx(total / tokens, abs=1e-5)
    assert (measured["n"], measured["tokens"]) == (3, tokens)
    assert measured["ci"][0] < measured["loss"] < measured["ci"][1]
    assert examples.backward(model, [0, 1, 2]) == pytest.approx(total / tokens, abs=1e-5)


def test_micro_batches_change_no_gradient(make_policy: Any, tokenizer: Any) -> None:
    pairs = [Demonstration("q" * n, " " + "a" * m) for n, m in ((1, 9), (20, 1), (5, 5), (11, 3), (2, 2))]
    gradients = []
    for budget in (1, 40, 10_000):
        model = make_policy()
        Examples(pairs, tokenizer, 128, budget).backward(model, [4, 0, 2, 1])
        gradients.append([p.grad for p in model.parameters()])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-6)


def test_a_long_example_loses_its_beginning(tokenizer: Any) -> None:
    examples = Examples([Demonstration("p" * 50, " end")], tokenizer, 10, 100)
    ids, start = examples.encoded[0]
    assert tokenizer.decode(ids) == "ppppp end<eos>"
    assert start == 5


# --- the run --------------------------------------------------------------------------------------------


def test_learns_what_is_demonstrated_and_loads_with_plain_transformers(
    config: Callable[..., SFTConfig], tmp_path: Path
) -> None:
    record = train_sft(
        config(steps=60, batch_size=24, eval_fraction=0, lr=2e-2), tmp_path / "out", quiet=True
    )
    assert record["selected_by"] == "last step"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for prompt, response in DEMONSTRATIONS[:6]:
        ids = tokenizer(prompt, return_tensors="pt")
        made = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert made[-1] == tokenizer.eos_token_id  # it has learned to stop
        assert tokenizer.decode(made[:2]) == response[:2]
        (((_, ours),),) = HFEngine(model, tokenizer).generate([Generate(prompt, Sampling(max_tokens=8))])
        assert list(ours.token_ids) == made.tolist()


def test_the_checkpoint_of_least_held_out_loss_is_kept(
    config: Callable[..., SFTConfig], tmp_path: Path, tokenizer: Any
) -> None:
    out = tmp_path / "out"
    # a rate so high that it overfits, or diverges, on the held-out prompts after a while
    record = train_sft(config(epochs=12, lr=2e-2, eval_every=3, schedule="constant"), out, quiet=True)
    evaluated = {line["step"]: line["eval"]["loss"] for line in metrics(out) if "eval" in line}
    assert record["selected_step"] == min(evaluated, key=lambda step: evaluated[step])
    assert record["selected_step"] < max(evaluated)
    assert record["eval"]["loss"] == min(evaluated.values())
    _, held = read_split(config(), tokenizer, None)
    model = AutoModelForCausalLM.from_pretrained(out).eval()
    again = Examples(held, tokenizer, 128, 8192).loss(model)["loss"]
    assert again == pytest.approx(min(evaluated.values()), abs=1e-6)
    assert [path.name for path in (out / "checkpoints").glob("best-*")] == [
        f"best-{record['selected_step']}.pt"
    ]


def test_a_reward_model_selects_by_its_own_score(
    config: Callable[..., SFTConfig], saved: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = config(epochs=4, lr=2e-2, reward_model=str(saved[1]), eval_every=4, max_new_tokens=6)
    record = train_sft(settings, tmp_path / "out", quiet=True)
    evaluated = {line["step"]: line["eval"] for line in metrics(tmp_path / "out") if "eval" in line}
    rewards = {step: one["reward"]["mean"] for step, one in evaluated.items()}
    assert record["selected_by"] == "reward"
    assert record["selected_step"] == max(rewards, key=lambda step: rewards[step])
    assert len(set(rewards.values())) > 1
    assert all(one["reward"]["n"] == 2 for one in evaluated.values())  # 30 % of six prompts
    assert record["parents"]["reward_model"] == str(saved[1])


def test_splits_share_no_prompt(config: Callable[..., SFTConfig], tokenizer: Any) -> None:
    train, held = read_split(config(), tokenizer, None)
    assert {one.prompt for one in train}.isdisjoint(one.prompt for one in held)
    assert len(train) + len(held) == len(DEMONSTRATIONS)


def test_the_world_is_carried_over(
    config: Callable[..., SFTConfig], saved: tuple[Path, Path], tmp_path: Path
) -> None:
    path = saved[0] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "alignbench_world": "pocket"}))
    record = train_sft(config(steps=1), tmp_path / "out", quiet=True)
    assert record["world"] == "pocket"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["alignbench_world"] == "pocket"


class Killed(BaseException):
    """Stands in for kill -9: nothing in the package may catch it."""


@pytest.mark.parametrize("at", [1, 6, 9])
def test_killed_and_resumed_is_bit_for_bit_the_same(
    config: Callable[..., SFTConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    settings = config(epochs=3, eval_every=5, save_every=4, residual_dropout=0.2, warmup=2)
    whole = train_sft(settings, tmp_path / "whole", quiet=True)

    def log(run: Run, step: int, **values: Any) -> None:
        if step == at:
            raise Killed
        original(run, step, **values)

    original = Run.log
    monkeypatch.setattr(Run, "log", log)
    with pytest.raises(Killed):
        train_sft(settings, tmp_path / "killed", quiet=True)
    monkeypatch.undo()
    torch.manual_seed(999)  # another process starts with other generators
    resumed = train_sft(settings, tmp_path / "killed", resume=True, quiet=True)
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_bytes()
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert (resumed["eval"], resumed["selected_step"]) == (whole["eval"], whole["selected_step"])


def test_resuming_a_finished_run_does_nothing(config: Callable[..., SFTConfig], tmp_path: Path) -> None:
    record = train_sft(config(steps=2), tmp_path / "out", quiet=True)
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    again = train_sft(config(steps=2), tmp_path / "out", resume=True, quiet=True)
    assert again == json.loads(json.dumps(record))
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before


def test_data_that_changed_stop_a_resumption(
    config: Callable[..., SFTConfig], data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "finish", lambda *_, **__: None)
    train_sft(config(steps=2), tmp_path / "out", quiet=True)
    rows = Path(data).read_text()
    Path(data).write_text(rows.replace(" a0", " a9"))
    with pytest.raises(UsageError, match=r"the training( and held out)? data are not those"):
        train_sft(config(steps=2), tmp_path / "out", resume=True, quiet=True)
    Path(data).write_text(rows)
    train_sft(config(steps=2), tmp_path / "out", resume=True, quiet=True)


def test_another_seed_gives_another_run(config: Callable[..., SFTConfig], tmp_path: Path) -> None:
    for seed in (0, 1):
        train_sft(config(steps=2, seed=seed), tmp_path / str(seed), quiet=True)
    assert metrics(tmp_path / "0") != metrics(tmp_path / "1")


def test_wrong_models_and_data_leave_no_run_behind(
    config: Callable[..., SFTConfig], saved: tuple[Path, Path], data: str, tmp_path: Path
) -> None:
    wrong = {
        "is a LlamaForSequenceClassification": {"model": str(saved[1]), "data": data},
        "nosuchmodel": {"model": str(tmp_path / "nosuchmodel"), "data": data},
        "nosuchdata": {"model": str(saved[0]), "data": str(tmp_path / "nosuchdata.jsonl")},
        "held-out prompts": {
            "model": str(saved[0]),
            "data": data,
            "reward_model": str(saved[1]),
            "eval_fraction": 0,
        },
        "device=abacus": {"model": str(saved[0]), "data": data, "device": "abacus"},
    }
    for said, settings in wrong.items():
        with pytest.raises(UsageError, match=said):
            train_sft(SFTConfig(**settings), tmp_path / "out", quiet=True)  # type: ignore[arg-type]
    train_sft(config(steps=1), tmp_path / "out", quiet=True)


def test_a_checkpoint_that_is_broken_or_lacks_weights_is_refused(
    config: Callable[..., SFTConfig], saved: tuple[Path, Path], tmp_path: Path
) -> None:
    file = saved[0] / "model.safetensors"
    whole = file.read_bytes()
    state = load_file(file)
    for said, content in (
        ("lacks the weights model.norm.weight", {k: v for k, v in state.items() if k != "model.norm.weight"}),
        ("cannot be loaded", {k: v[:3] if k == "model.norm.weight" else v for k, v in state.items()}),
        ("cannot be loaded", whole[: len(whole) // 2]),
    ):
        file.write_bytes(content) if isinstance(content, bytes) else save_file(
            content, file, {"format": "pt"}
        )
        with pytest.raises(UsageError, match=said):
            train_sft(config(steps=1), tmp_path / "out", quiet=True)


def test_no_room_for_sampled_answers_is_said_before_training(
    config: Callable[..., SFTConfig], saved: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="max_new_tokens=128 leaves no room"):
        train_sft(config(reward_model=str(saved[1]), max_new_tokens=128), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out" / "run.json").exists()


def test_bfloat16_is_the_arithmetic_and_loses_no_small_update(
    config: Callable[..., SFTConfig], saved: tuple[Path, Path], tmp_path: Path
) -> None:
    # AdamW's first step is ± lr, far below the last bit of a bfloat16 weight of usual size
    small = config(steps=1, lr=1e-6, dtype="bfloat16", weight_decay=0)
    train_sft(small, tmp_path / "out", quiet=True)
    before, after = weights(saved[0]), weights(tmp_path / "out")
    matrix = "model.layers.0.mlp.up_proj.weight"
    assert (before[matrix] != after[matrix]).float().mean() > 0.9
    model = load_policy(str(saved[0]), small)
    with arithmetic(small):
        assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.dtype == torch.bfloat16
    with arithmetic(config()):
        assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.dtype == torch.float32


def test_generation_stops_at_the_eos_that_training_teaches(
    config: Callable[..., SFTConfig], saved: tuple[Path, Path], tokenizer: Any, tmp_path: Path
) -> None:
    for name in ("config.json", "generation_config.json"):  # as from another family's defaults
        settings = json.loads((saved[0] / name).read_text())
        (saved[0] / name).write_text(json.dumps({**settings, "eos_token_id": 5}))
    train_sft(config(steps=1), tmp_path / "out", quiet=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert eos_ids(model, tokenizer) == (5, tokenizer.eos_token_id)


# --- the parts ------------------------------------------------------------------------------------------


TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}"
)
TEMPLATE += "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def test_a_model_is_evaluated_in_the_form_that_it_was_trained_in(
    config: Callable[..., SFTConfig], saved: tuple[Path, Path], tmp_path: Path, make_tokenizer: Any
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(saved[0])
    for choice, shown in (("auto", "[user]q0:[assistant]"), ("off", "q0:")):
        settings = config(chat_template=choice, steps=60, batch_size=24, eval_fraction=0, lr=2e-2)
        out = tmp_path / choice
        record = train_sft(settings, out, quiet=True)
        assert record["templated"] is (choice == "auto")
        engine = open_engine(parse_policy(str(out)))  # chat_template=auto
        assert engine.render("q0:") == shown  # type: ignore[attr-defined]
        (((_, answer),),) = engine.generate([Generate("q0:", Sampling(max_tokens=8))])
        assert (answer.text[:2], answer.finish) == (" a", "eos")


def test_a_template_that_is_not_there_cannot_be_on(config: Callable[..., SFTConfig], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no chat template"):
        train_sft(config(chat_template="on"), tmp_path / "out", quiet=True)


def test_residual_dropout_acts_on_the_branches_while_training_only(make_policy: Any) -> None:
    model, plain = make_policy(), make_policy()
    add_residual_dropout(model, 1 - 1e-9)  # drops every branch: what is left is the embedding
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, plain(ids).logits)
        model.train()
        left = model.lm_head(model.model.norm(model.model.embed_tokens(ids)))
        torch.testing.assert_close(model(ids).logits, left)


def test_residual_dropout_uses_the_layers_that_gpt2_has(make_policy: Any) -> None:
    model = make_policy(family="gpt2")
    add_residual_dropout(model, 0.3)
    rates = [m.p for name, m in model.named_modules() if name.endswith(("resid_dropout", "mlp.dropout"))]
    assert rates == [0.3] * 4
    with pytest.raises(UsageError, match="residual_dropout"):
        add_residual_dropout(torch.nn.Linear(2, 2), 0.1)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # two steps of warm-up, then five of the schedule down to a tenth
        ("cosine", [0.5, 1.0, 1.0, 0.1 + 0.9 * 0.853553, 0.55, 0.1 + 0.9 * 0.146447, 0.1]),
        ("linear", [0.5, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules(schedule: Any, expected: list[float]) -> None:
    config = SFTConfig(model="m", data="d", schedule=schedule, warmup=2)
    assert [lr_factor(step, 7, config) for step in range(1, 8)] == pytest.approx(expected, abs=1e-6)
    assert lr_factor(1, 1, SFTConfig(model="m", data="d", schedule=schedule)) == 1.0


def test_decay_spares_norms_and_biases(make_policy: Any) -> None:
    model = make_policy(family="gpt2")
    decayed, spared = adamw(model, 1.0, 0.1).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert decayed["betas"] == (0.9, 0.95)
    assert all(p.ndim == 1 for p in spared["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("parameters", "lr"), [(10**6, 1e-3), (8 * 10**6, 2.5e-4), (1.3e9, 8.4e-6), (1e12, 5e-6)]
)
def test_default_learning_rate(monkeypatch: pytest.MonkeyPatch, parameters: float, lr: float) -> None:
    class Sized:
        def numel(self) -> int:
            return int(parameters)

    model = torch.nn.Module()
    monkeypatch.setattr(model, "parameters", lambda: [Sized()])
    assert default_lr(model) == pytest.approx(lr, rel=0.01)


def test_gradients_are_clipped(make_policy: Any) -> None:
    model = make_policy()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]

    def backward(batch: list[int]) -> dict[str, float]:
        loss = model(torch.tensor([batch])).logits.pow(2).sum()
        loss.backward()
        return {"loss": float(loss.detach())}

    done = loop.update(model, optimizer, 1.0, 0.01, backward, [1, 2, 3])
    moved = sum(float((p.detach() - q).pow(2).sum()) for p, q in zip(model.parameters(), before)) ** 0.5
    assert done["grad_norm"] > 1.0
    assert moved == pytest.approx(0.01, rel=1e-3)
