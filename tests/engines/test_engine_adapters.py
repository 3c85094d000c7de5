"""Adapters: they answer as PEFT's own forward pass does, and one that does not fit is an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import make_model, make_tokenizer

from alignbench.engines import open_engine
from alignbench.engines.identity import locate
from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Generate, Reward, Sampling, Score
from alignbench.engines.weights import load_policy
from alignbench.errors import UsageError

peft = pytest.importorskip("peft")
TEXT = "the cat sat on the mat and the dog ran"


def train(base: Path, place: Path, config: Any, family: str = "llama", head: str = "CausalLM") -> Any:
    """Train an adapter for a few steps, save it to ``place``, and return PEFT's own model."""
    model, tokenizer = make_model(family, head), make_tokenizer()
    model.name_or_path = str(base)
    adapted = peft.get_peft_model(model, config)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    optimizer = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], lr=0.02)
    for _ in range(5):
        out = adapted(input_ids=ids, **({"labels": ids} if head == "CausalLM" else {}))
        loss = out.loss if head == "CausalLM" else -out.logits.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    adapted.save_pretrained(place)
    return adapted.eval()


def lora(**changes: Any) -> Any:
    return peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=4, **changes)


def loglikelihood(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    ids = tokenizer(context + continuation, return_tensors="pt")["input_ids"]
    start = len(tokenizer(context)["input_ids"])
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits.log_softmax(-1)[0, start - 1 : -1]
    return float(logprobs.gather(1, ids[0, start:, None]).sum())


def score(spec: Any) -> float:
    (((_, scored),),) = open_engine(parse_policy(str(spec))).score([Score("the cat", " sat on the mat")])
    return scored.logprob


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapters") / "base"
    make_model("llama").save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    train(base, base.parent / "lora", lora())
    return base.parent / "lora"


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", lora()),
        ("llama", lora(use_rslora=True)),
        ("llama", lora(use_dora=True)),
        ("llama", lora(modules_to_save=["embed_tokens", "lm_head"])),
        ("gpt2", lora(fan_in_fan_out=True)),
        ("qwen2", peft.IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[])),
    ],
    ids=["lora", "rslora", "dora", "modules_to_save", "gpt2", "ia3"],
)
def test_it_answers_as_pefts_own_forward(family: str, config: Any, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    make_model(family).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    own = train(tmp_path / "base", tmp_path / "adapter", config, family)
    spec = f"{tmp_path}/base?adapter={tmp_path}/adapter"
    expected = loglikelihood(own, tokenizer, "the cat", " sat on the mat")
    assert score(spec) == pytest.approx(expected, abs=1e-5)
    assert abs(score(tmp_path / "base") - expected) > 0.1
    (((_, said),),) = open_engine(parse_policy(spec)).generate([Generate("the cat", Sampling(6))])
    ids = tokenizer("the cat", return_tensors="pt")
    greedy = own.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert said.token_ids == tuple(greedy.tolist())


@pytest.mark.parametrize("headless", [True, False])
def test_a_reward_model_whose_head_came_with_the_adapter(headless: bool, base: Path, tmp_path: Path) -> None:
    """Also on a base that is a language model, which has no head of its own."""
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], modules_to_save=["score"])
    own = train(base, tmp_path / "rm", config, head="SequenceClassification")
    place = base
    if not headless:
        place = tmp_path / "classifier"
        make_model("llama", "SequenceClassification").save_pretrained(place)
        make_tokenizer().save_pretrained(place)
    engine = open_engine(parse_policy(f"{place}?adapter={tmp_path}/rm"))
    (((_, rewarded),),) = engine.reward([Reward("the cat", " sat")])
    ids = make_tokenizer()("the cat sat<eos>", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert rewarded.reward == pytest.approx(float(own(input_ids=ids).logits[0, 0]), abs=1e-5)


def test_an_adapter_alone_stands_on_the_base_that_it_names(base: Path, adapter: Path, tmp_path: Path) -> None:
    apart, alone = (parse_policy(s) for s in (f"{base}?adapter={adapter}", str(adapter)))
    assert score(adapter) == score(apart.spec)
    assert dict(open_engine(alone).identity) == dict(open_engine(apart).identity)
    assert locate(alone).model == base
    # the same adapter on a base that was moved is the same policy
    moved = tmp_path / "moved"
    shutil.copytree(base, moved / "base")
    shutil.copytree(adapter, moved / "lora")
    config = json.loads((moved / "lora" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(moved / "base")
    (moved / "lora" / "adapter_config.json").write_text(json.dumps(config))
    assert dict(open_engine(parse_policy(str(moved / "lora"))).identity) == dict(open_engine(alone).identity)


def test_identity_holds_base_and_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    plain = dict(open_engine(parse_policy(str(base))).identity)
    adapted = dict(open_engine(parse_policy(str(adapter))).identity)
    assert {key for key in plain if plain[key] != adapted[key]} == {"adapter"}
    assert plain["adapter"] is None
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 99}))
    assert dict(open_engine(parse_policy(str(other))).identity)["adapter"] != adapted["adapter"]


def test_a_tokenizer_beside_the_adapter_is_used(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "chat", lora())
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "chat")
    engine = load_policy(parse_policy(f"{base}?adapter={tmp_path}/chat"))
    assert engine.render("a") == "<a>"
    assert engine.identity["tokenizer"] != load_policy(parse_policy(str(base))).identity["tokenizer"]


@pytest.mark.parametrize(("added", "saved"), [(10, True), (60, True), (60, False)])
def test_tokens_that_the_adapter_added(added: int, saved: bool, base: Path, tmp_path: Path) -> None:
    """The base model has 330 rows for its tokenizer's 288 tokens: the embeddings shrink, or grow."""
    tokenizer, model = make_tokenizer(), make_model("llama")
    tokenizer.add_tokens(["<user>", *(f"<extra{i}>" for i in range(1, added))])
    model.resize_token_embeddings(len(tokenizer))
    adapted = peft.get_peft_model(model, lora()).eval()
    adapted.save_pretrained(tmp_path, save_embedding_layers=saved)
    tokenizer.save_pretrained(tmp_path)
    spec = f"{base}?adapter={tmp_path}"
    if not saved:
        with pytest.raises(UsageError, match="tokens that the model has not"):
            load_policy(parse_policy(spec))
        return
    engine = load_policy(parse_policy(spec))
    (((_, scored),),) = engine.score([Score("<user>the cat", " sat<user>")])
    expected = loglikelihood(adapted, tokenizer, "<user>the cat", " sat<user>")
    assert scored.logprob == pytest.approx(expected, abs=1e-4)


def test_merged_in_bfloat16_within_bfloat16s_noise(base: Path, adapter: Path) -> None:
    """Five tokens whose log-probabilities in bfloat16 are good to about 0.1 each here."""
    spec = f"{base}?adapter={adapter}"
    assert score(f"{spec}&dtype=bfloat16") == pytest.approx(score(spec), abs=0.5)
    assert open_engine(parse_policy(f"{spec}&dtype=bfloat16")).identity["dtype"] == "bfloat16"


def broken(adapter: Path, place: Path, **config: Any) -> Path:
    shutil.copytree(adapter, place)
    held = json.loads((place / "adapter_config.json").read_text())
    (place / "adapter_config.json").write_text(json.dumps(held | config))
    return place


@pytest.mark.parametrize(
    "changes", [{"hidden_size": 64}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}], ids=str
)
def test_an_adapter_of_another_model_is_an_error(changes: dict[str, int], base: Path, tmp_path: Path) -> None:
    named = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])
    train(base, tmp_path / "adapter", named)
    config = make_model("llama").config
    config.update({"layer_types": None, **changes})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "other")
    make_tokenizer().save_pretrained(tmp_path / "other")
    with pytest.raises(UsageError, match=r"does not fit this model: .+") as error:
        load_policy(parse_policy(f"{tmp_path}/other?adapter={tmp_path}/adapter"))
    assert "\n" not in str(error.value)


def test_what_is_wrong_with_an_adapter(
    base: Path, adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = {
        f"{base}?adapter={tmp_path}": "adapter_config.json is missing",
        f"{base}?adapter={tmp_path}/none": "no folder .*/none",
        f"{adapter}?adapter={adapter}": "is an adapter; name its base model here",
        str(broken(adapter, tmp_path / "lost", base_model_name_or_path="/no/base")): "adapter of /no/base",
        str(broken(adapter, tmp_path / "unnamed", base_model_name_or_path=None)): "names no base model",
        f"{base}?adapter={broken(adapter, tmp_path / 'layers', target_modules=['xyz'])}": "does not fit",
        f"{base}?adapter={broken(adapter, tmp_path / 'kind', peft_type='ABACUS')}": "does not fit",
    }
    train(base, tmp_path / "prompt", peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    cases[f"{base}?adapter={tmp_path}/prompt"] = "PROMPT_TUNING, which lies outside"
    empty = broken(adapter, tmp_path / "empty")
    (empty / "adapter_model.safetensors").unlink()
    cases[f"{base}?adapter={empty}"] = "cannot be read"
    for spec, message in cases.items():
        with pytest.raises(UsageError, match=message) as error:
            load_policy(parse_policy(spec))
        assert "\n" not in str(error.value)
    renamed = broken(adapter, tmp_path / "renamed", base_model_name_or_path="org/other")
    load_policy(parse_policy(f"{base}?adapter={renamed}"))
    assert "was trained on org/other" in caplog.text


def test_a_broken_adapter_is_not_merged(base: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    place = broken(adapter, tmp_path / "nan")
    tensors = load_file(place / "adapter_model.safetensors")
    save_file({k: v * float("nan") for k, v in tensors.items()}, place / "adapter_model.safetensors")
    with pytest.raises(UsageError, match=r"does not fit this model: NaNs detected"):
        load_policy(parse_policy(f"{base}?adapter={place}"))
    partial = dict(list(tensors.items())[:-1])
    save_file(partial, place / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="not both have"):
        load_policy(parse_policy(f"{base}?adapter={place}"))


def test_without_peft(base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UsageError, match=r"pip install 'alignbench\[peft\]'"):
        load_policy(parse_policy(f"{base}?adapter={adapter}"))
