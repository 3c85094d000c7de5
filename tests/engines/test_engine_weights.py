"""From a specification to an engine: identity, options, and errors of one sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import SEQ2SEQ, make_model, make_seq2seq, make_tokenizer

from alignbench.engines import identity, lazy, open_engine, weights
from alignbench.engines.lazy import LazyEngine
from alignbench.engines.policy import parse_policy
from alignbench.engines.seq2seq import Seq2SeqEngine
from alignbench.engines.types import Generate, Reward, Sampling, Score
from alignbench.errors import UsageError, WorkError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    make_model("llama").save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def identity_of(spec: Any) -> dict[str, Any]:
    return dict(open_engine(parse_policy(str(spec))).identity)


def test_identity_is_of_the_content_not_of_the_place(folder: Path, copy: Path) -> None:
    assert identity_of(copy) == identity_of(folder)
    assert str(folder) not in json.dumps(identity_of(folder))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(
        json.dumps(config | {"_name_or_path": "x", "transformers_version": "0"})
    )
    assert identity_of(copy) == identity_of(folder)


def changed(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


def test_identity_changes_with_what_changes_answers(folder: Path, copy: Path, tmp_path: Path) -> None:
    first = identity_of(folder)
    prefix = tmp_path / "prefix.txt"
    prefix.write_text("Be kind.")
    assert changed(first, identity_of(f"{folder}?prefix={prefix}")) == {"prefix"}
    assert changed(first, identity_of(f"{folder}?dtype=bfloat16")) == {"dtype"}
    model = make_model("llama")
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-3
    model.save_pretrained(copy)
    assert changed(first, identity_of(copy)) == {"weights"}
    generation = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(generation | {"eos_token_id": 9}))
    assert changed(first, identity_of(copy)) == {"weights", "config"}


def test_identity_of_a_chat_template(copy: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}!{% endfor %}"
    tokenizer.save_pretrained(copy)
    assert identity_of(copy)["template"]
    assert identity_of(f"{copy}?chat_template=off")["template"] is None
    assert open_engine(parse_policy(str(copy))).render("a") == "a!"  # type: ignore[attr-defined]


def test_a_large_files_digest_is_remembered(
    folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "REMEMBERED", 1)
    first = identity.digest_folder(copy)
    calls: list[Any] = []
    real = identity.hashlib.file_digest
    monkeypatch.setattr(identity.hashlib, "file_digest", lambda *a: calls.append(a) or real(*a))
    assert identity.digest_folder(copy) == first
    assert not calls
    (weight,) = copy.glob("*.safetensors")
    weight.write_bytes(weight.read_bytes() + b"\0")
    assert identity.digest_folder(copy)["weights"] != first["weights"]
    assert len(calls) == 1
    monkeypatch.setenv("ALIGNBENCH_HOME", "/proc/nowhere")  # a memory that cannot be kept is no error
    assert identity.digest_folder(folder) == first


@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_replaced_under_its_old_time_is_hashed_anew(
    in_place: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "REMEMBERED", 1)
    (tmp_path / "config.json").write_text("{}")
    weight = tmp_path / "model.safetensors"
    weight.write_bytes(b"old")
    before, first = weight.stat(), identity.digest_folder(tmp_path)
    new = weight if in_place else tmp_path / "new"
    time.sleep(0.02)  # a file system's clock may tick no finer than 10 ms
    new.write_bytes(b"new")
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(weight)
    after = weight.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert identity.digest_folder(tmp_path)["weights"] != first["weights"]


def test_fresh_uses_no_remembered_digest_and_no_remembered_identity(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "REMEMBERED", 1)
    policy = parse_policy(str(copy))
    first = dict(open_engine(policy).identity)
    held = identity.recall("digests")
    for key in held:
        identity.remember("digests", key, "0" * 64)
    assert open_engine(policy).identity["weights"] != first["weights"]
    engine = open_engine(policy, fresh=True)
    assert dict(engine.identity) == first
    assert not isinstance(engine, LazyEngine)
    assert identity.recall("digests") == held


def test_what_loading_resolved_is_remembered_for_the_accelerators_here(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = parse_policy(str(copy))
    open_engine(policy)
    assert isinstance(open_engine(policy), LazyEngine)
    elsewhere = {"drivers": ["/dev/nvidiactl"]}
    monkeypatch.setattr(lazy, "accelerators", lambda: elsewhere)
    assert not isinstance(open_engine(policy), LazyEngine)


def test_a_remembered_policy_says_the_same_of_itself_without_its_weights(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tokenizer(bos=True).save_pretrained(copy)
    policy = parse_policy(f"{copy}?dtype=bfloat16")
    said = open_engine(policy).describe()
    assert said == {
        "dtype": "bfloat16",
        "chat_template": False,
        "in_front": "<bos>",
        "context_length": 96,
    }
    monkeypatch.setattr(weights, "load_policy", lambda *_, **__: pytest.fail("loaded"))
    assert open_engine(policy).describe() == said


def test_accelerators_are_told_by_their_drivers_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with monkeypatch.context() as only:
        only.setattr(identity.os.path, "exists", lambda path: path == "/dev/nvidiactl")
        found = identity.accelerators()
    assert found["drivers"] == ["/dev/nvidiactl"]
    assert found["CUDA_VISIBLE_DEVICES"] == "1"


def test_it_answers_like_the_checkpoint(folder: Path) -> None:
    import transformers

    engine = open_engine(parse_policy(str(folder)), batch_tokens=64)
    (((_, answer),),) = engine.generate([Generate("the cat", Sampling(8))])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("the cat", return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=8, do_sample=False)
    assert answer.token_ids == tuple(out[0, ids["input_ids"].shape[1] :].tolist())


def test_a_reward_model_is_known_by_its_architecture(tmp_path: Path) -> None:
    make_model("llama", "SequenceClassification", reward_offset=1.5).save_pretrained(tmp_path / "rm")
    make_tokenizer().save_pretrained(tmp_path / "rm")
    engine = open_engine(parse_policy(str(tmp_path / "rm")))
    (((_, with_offset),),) = engine.reward([Reward("a", "b")])
    engine.module.config.reward_offset = 0.0  # type: ignore[attr-defined]
    (((_, without),),) = engine.reward([Reward("a", "b")])
    assert with_offset.reward == pytest.approx(without.reward - 1.5, abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{dir}/none", "no folder .*/none; check the path"),
        ("/" + "y" * 5000, "no folder"),
        ("~nosuchuser/model", "no folder"),
        ("no-such-model", "no folder no-such-model here, and the hub gave no such model"),
        ("org/no-such-model@main", "check the path or the hub id"),
        ("{dir}", "holds no config.json"),
        ("{dir}/tiny/config.json", "is a file"),
        ("{dir}/tiny?dtype=floot32", "did you mean 'float32'"),
        ("{dir}/tiny?device=nonsense", "'nonsense' is not usable here"),
        ("{dir}/tiny?chat_template=on", "no chat template"),
        ("{dir}/tiny?chat_template=maybe", "auto, on or off"),
        ("{dir}/tiny?prefix={dir}/none.txt", "cannot be read"),
        ("{dir}/tiny?best_of=4", "does not support 'best_of'"),
    ],
)
def test_bad_specifications(spec: str, message: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=message) as error:
        open_engine(parse_policy(spec.format(dir=folder.parent)))
    assert "\n" not in str(error.value)


def test_a_folder_without_weights_and_an_unknown_architecture(copy: Path) -> None:
    for weight in copy.glob("*.safetensors"):
        weight.unlink()
    with pytest.raises(UsageError, match="cannot be loaded"):
        open_engine(parse_policy(str(copy)))
    (copy / "config.json").write_text('{"model_type": "abacus"}')
    with pytest.raises(UsageError, match="cannot be loaded"):
        open_engine(parse_policy(str(copy)))
    (copy / "config.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be loaded"):
        open_engine(parse_policy(str(copy)))


def test_a_checkpoint_that_lacks_weights_is_refused(copy: Path) -> None:
    """transformers would fill them in at random."""
    config = json.loads((copy / "config.json").read_text())
    config |= {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"lacks the weights score\.weight"):
        open_engine(parse_policy(str(copy)))
    (weight,) = copy.glob("*.safetensors")
    weight.write_bytes(weight.read_bytes()[:-100])
    with pytest.raises(UsageError, match="cannot be loaded"):
        open_engine(parse_policy(str(copy)))


def test_a_masked_language_model_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    with pytest.raises(UsageError, match="BertForMaskedLM sees both sides"):
        open_engine(parse_policy(str(copy)))


def test_a_folder_may_have_an_at_sign(copy: Path) -> None:
    place = copy.with_name("run@2")
    copy.rename(place)
    policy = parse_policy(str(place))
    assert (policy.target, policy.revision, policy.name) == (str(place), None, "run@2")
    assert parse_policy(f"{copy}@main").revision == "main"


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_an_encoder_decoder_is_loaded(family: str, tmp_path: Path) -> None:
    model, tokenizer = make_seq2seq(family), make_tokenizer(behind=True)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    requests = [Score("the cat", " sat"), Score("the dog", " ran")]
    want = dict(item for batch in Seq2SeqEngine(model, tokenizer).score(requests) for item in batch)
    for _ in range(2):  # loaded at once, then when it is asked
        engine = open_engine(parse_policy(str(tmp_path / "model")))
        assert dict(item for batch in engine.score(requests) for item in batch) == want
        assert engine.identity["dtype"] == "float32"


def test_an_encoder_decoder_reward_model_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text(
        '{"model_type": "t5", "architectures": ["T5ForSequenceClassification"], "num_labels": 1}'
    )
    with pytest.raises(UsageError, match="encoder-decoder reward model"):
        open_engine(parse_policy(str(copy)))


def test_a_policy_that_was_opened_before_is_loaded_when_it_is_asked(
    folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Generate("ab", Sampling(max_tokens=3))
    first = open_engine(parse_policy(str(folder)))
    ((_, said),) = next(iter(first.generate([request])))
    loaded = []
    real = weights.load_policy
    monkeypatch.setattr(weights, "load_policy", lambda *a, **k: loaded.append(a) or real(*a, **k))
    again = open_engine(parse_policy(str(copy)))  # the same content, elsewhere
    assert dict(again.identity) == dict(first.identity)
    assert loaded == []
    assert list(again.generate([request])) == [[(0, said)]]
    list(again.generate([request]))
    assert len(loaded) == 1
    for option in ("dtype=bfloat16", "chat_template=off"):  # another answer may come of it
        open_engine(parse_policy(f"{copy}?{option}"))
    assert len(loaded) == 3
    prefixed = folder / "config.json"  # any text will do
    assert open_engine(parse_policy(f"{copy}?prefix={prefixed}")).identity["prefix"] is not None
    assert len(loaded) == 3


def test_a_policy_that_changes_under_a_run_is_refused(folder: Path, copy: Path) -> None:
    open_engine(parse_policy(str(copy)))
    engine = open_engine(parse_policy(str(copy)))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "initializer_range": 0.5}))
    with pytest.raises(WorkError, match="is not what it was"):
        list(engine.generate([Generate("ab", Sampling(max_tokens=1))]))
    engine = open_engine(parse_policy(str(copy)))
    assert len(list(engine.generate([Generate("ab", Sampling(max_tokens=1))]))) == 1


def test_a_known_policy_needs_no_torch(folder: Path) -> None:
    known = dict(open_engine(parse_policy(str(folder))).identity)
    code = (
        "import sys, json; from alignbench.engines import open_engine; "
        "from alignbench.engines.policy import parse_policy; "
        f"print(json.dumps(dict(open_engine(parse_policy({str(folder)!r})).identity))); "
        "print({'torch', 'transformers', 'numpy'} & {*sys.modules})"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    identity, heavy = said.splitlines()
    assert json.loads(identity) == known
    assert heavy == "set()"


def test_importing_the_room_imports_no_torch() -> None:
    code = (
        "import sys, alignbench.engines, alignbench.ledger; print({'torch', 'transformers'} & {*sys.modules})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
