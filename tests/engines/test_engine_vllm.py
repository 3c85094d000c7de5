"""The engine ``vllm``: what it asks of vLLM and makes of the answers, over a stand-in; and vLLM itself,
beside the engine ``hf``, where ``ALIGNBENCH_VLLM_PYTHON`` names a Python that has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import FakeEngine, install
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_model, make_seq2seq, make_tokenizer

from alignbench.engines import open_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Generate, Reward, Sampling, Score
from alignbench.engines.vllm_engine import engine as vllm_engine
from alignbench.engines.vllm_engine import generating, versions
from alignbench.engines.vllm_engine.opened import NUMERICS, identity_of
from alignbench.engines.vllm_engine.plan import (
    generation_order,
    generation_params,
    plan_probes,
    sampling_logprobs,
)
from alignbench.errors import UsageError, WorkError

SIDE = Path(__file__).resolve().parents[1] / "peers" / "vllm_parity.py"
CONTEXTS = ["the cat sat on the mat and", "the cat sat on the mat and the dog", "", "where is"]
SCORES = [
    *(Score(context, end) for context in CONTEXTS for end in (" the dog ran", " a", " b", " the mat")),
    Score("the cat", " sat"),
    Score("the cat", " sat"),
    Score("the cat", ""),
    Score("", "the dog ran to the cat; " * 30, rolling=True),
    Score("the dog ran to the cat; " * 30, " and the mat"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llama")
    make_model("llama").save_pretrained(made)
    make_tokenizer(bos=True).save_pretrained(made)
    return made


@pytest.fixture
def hf(folder: Path) -> Any:
    return open_engine(parse_policy(str(folder)))


@pytest.fixture
def fake(hf: Any) -> FakeEngine:
    return FakeEngine(hf.module, hf.tokenizer, cache=lambda ids: 0)


def in_order(batches: Any) -> list[Any]:
    return [answer for _, answer in sorted((pair for batch in batches for pair in batch), key=lambda p: p[0])]


# ---- what is asked


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=5), min_size=1, max_size=12),
    st.integers(1, 4),
    st.data(),
)
def test_probes_cover_every_sequence_once(
    sequences: list[list[int]], at_once: int, data: st.DataObject
) -> None:
    starts = [data.draw(st.integers(1, len(ids) - 1)) for ids in sequences]
    probes = plan_probes(sequences, starts, range(len(sequences)), at_once)
    members = [(i, probe) for probe in probes for i, _ in probe.members]
    assert sorted(i for i, _ in members) == list(range(len(sequences)))
    for i, probe in members:
        assert sequences[i] == [*probe.prompt, dict(probe.members)[i]]
        assert probe.start <= starts[i]
    assert all(set(probe.lasts) == {last for _, last in probe.members} for probe in probes)
    assert all(len(probe.lasts) == len(set(probe.lasts)) <= at_once for probe in probes)
    assert [probe.prompt for probe in probes] == sorted(probe.prompt for probe in probes)
    if at_once == 4:  # more than there are tokens
        assert len(probes) == len({tuple(ids[:-1]) for ids in sequences})


def test_options_of_one_token_are_one_request_that_may_use_the_prefix_cache() -> None:
    probes = plan_probes([[5, 6, 7], [5, 6, 8], [5, 6, 7]], [2, 2, 2], [0, 1, 2], 128)
    assert [(probe.prompt, probe.lasts, probe.whole) for probe in probes] == [((5, 6), [7, 8], False)]


def test_samples_of_a_prompt_follow_one_another_and_what_is_held_is_not_asked() -> None:
    assert generation_order([[1, 2], [1], [1, 2], [0]], held=[1]) == [3, 0, 2]


def test_parameters_of_a_generation() -> None:
    request = Generate("p", Sampling(7, 0.8, 5, 0.9, ("\n", "Q:")), seed=2**62 + 1)
    assert generation_params(request, (1, 2), (0.01, 2.0)) == {
        "max_tokens": 7,
        "temperature": 0.8,
        "top_k": 5,
        "top_p": 0.9,
        "stop": ["\n", "Q:"],
        "seed": 2**62 + 1,
        "logprobs": 0,
        "ignore_eos": True,
        "stop_token_ids": [1, 2],
    }
    for temperature in (0.001, 2.5):
        with pytest.raises(UsageError, match=r"vLLM samples at 0 or 0\.01 to 2"):
            generation_params(Generate("p", Sampling(7, temperature)), (), (0.01, 2.0))


def test_log_probabilities_of_the_sampling_distribution_are_told_where_they_are_known() -> None:
    raw = (-1.0, -2.0)
    assert sampling_logprobs(Generate("p", Sampling(temperature=0, top_k=3)), raw) == (0.0, 0.0)
    assert sampling_logprobs(Generate("p", Sampling(temperature=1)), raw) == raw
    for sampling in (
        Sampling(temperature=0.9),
        Sampling(temperature=1, top_k=3),
        Sampling(temperature=1, top_p=0.9),
    ):
        assert sampling_logprobs(Generate("p", sampling), raw) == ()


# ---- what is made of the answers


@pytest.mark.parametrize("ids_at_once", [1, 128])
@pytest.mark.parametrize("cached", [0, 8, 10_000])
def test_scores_are_those_of_hf_whatever_the_cache_keeps_back(
    hf: Any, fake: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch, ids_at_once: int, cached: int
) -> None:
    fake.cache = lambda ids: cached
    install(monkeypatch, fake, ids_at_once)
    engine = open_engine(parse_policy(f"vllm:{folder}"))
    ours, theirs = in_order(hf.score(SCORES)), in_order(engine.score(SCORES))
    for a, b in zip(ours, theirs, strict=True):
        assert (a.n_tokens, a.greedy, a.cut) == (b.n_tokens, b.greedy, b.cut)
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
    assert any(answer.cut for answer in theirs)
    again = [params for _, params in fake.asked if not params.cached]
    assert bool(again) == (cached > 0)
    assert all(params.whole for params in again)
    assert max(len(ids) for ids, _ in fake.asked) == 96, "the model's context, and never more"


def test_an_answer_that_lacks_targets_is_an_error_and_never_a_number(
    fake: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, fake)
    fake._answer_ = fake._answer  # type: ignore[attr-defined]

    def answer(*arguments: Any) -> Any:
        output = fake._answer_(*arguments)  # type: ignore[attr-defined]
        output.prompt_logprobs = output.prompt_logprobs[:1]
        return output

    monkeypatch.setattr(fake, "_answer", answer)
    engine = open_engine(parse_policy(f"vllm:{folder}"))
    with pytest.raises(WorkError, match="left log-probabilities out"):
        in_order(engine.score([Score("the cat", " sat on the mat")]))


def test_greedy_texts_ends_and_cuts_are_those_of_hf(
    hf: Any, fake: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, fake)
    engine = open_engine(parse_policy(f"vllm:{folder}"))
    requests = [Generate(context, Sampling(16)) for context in [*CONTEXTS, "the dog " * 60]]
    said = in_order(hf.generate(requests))
    middle = said[0].text[3:6]
    requests += [Generate(CONTEXTS[0], Sampling(16, stop=(middle, "never said")))]
    ours, theirs = in_order(hf.generate(requests)), in_order(engine.generate(requests))
    for a, b in zip(ours, theirs, strict=True):
        assert (a.text, a.finish, a.token_ids, a.prompt_ids, a.cut) == (
            b.text,
            b.finish,
            b.token_ids,
            b.prompt_ids,
            b.cut,
        )
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert b.sampling_logprobs == (0.0,) * len(b.token_ids)
    assert theirs[-1].finish == "stop"
    assert theirs[-2].cut > 0


def test_what_is_held_is_not_asked(fake: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = install(monkeypatch, fake)
    engine = open_engine(parse_policy(f"vllm:{folder}"))
    requests = [Generate(context, Sampling(4)) for context in CONTEXTS]
    assert list(engine.generate(requests, held=range(4))) == []
    assert events == [], "nothing to compute: not even loaded"
    answered = [i for batch in engine.generate(requests, held=[0, 2]) for i, _ in batch]
    assert sorted(answered) == [1, 3]
    scored = [i for batch in engine.score(SCORES, held=range(1, len(SCORES))) for i, _ in batch]
    assert scored == [0]


def test_answers_come_as_they_are_ready_and_the_rest_is_taken_back(
    fake: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, fake)
    monkeypatch.setattr(generating, "BATCH", 3)
    engine = open_engine(parse_policy(f"vllm:{folder}"))
    batches = engine.generate([Generate(f"the cat {i}", Sampling(2)) for i in range(9)])
    assert len(next(batches)) == 3
    assert len(fake.waiting) == 6
    batches.close()  # type: ignore[attr-defined]  # what Ctrl-C does
    assert len(fake.aborted) == 6
    assert not fake.waiting
    assert len(in_order(engine.generate([Generate("the mat", Sampling(2))]))) == 1


def test_a_failure_is_one_sentence_and_keeps_what_was_answered(
    fake: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = install(monkeypatch, fake)
    monkeypatch.setattr(generating, "BATCH", 3)
    fake.fail_after = 2
    engine = open_engine(parse_policy(f"vllm:{folder}"))
    batches = engine.generate([Generate(f"the cat {i}", Sampling(2)) for i in range(9)])
    assert [len(next(batches)) for _ in range(2)] == [3, 3]
    with pytest.raises(WorkError, match=r"vLLM failed \(CUDA out of memory\. Tried to allocate much\)"):
        next(batches)
    assert events[-1] == "closed"


def test_one_model_is_loaded_at_a_time_and_for_no_longer_texts_than_are_asked(
    fake: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = install(monkeypatch, fake)
    monkeypatch.setattr(vllm_engine, "SHORTEST", 16)
    first, second = (open_engine(parse_policy(f"{name}=vllm:{folder}")) for name in "ab")
    ask = [Generate("the cat", Sampling(4))]
    in_order(first.generate(ask))
    in_order(first.generate(ask))
    assert [event.length for event in events] == [16]
    in_order(first.generate([Generate("the cat", Sampling(40))]))
    in_order(second.generate(ask))
    in_order(first.generate([Generate("the cat", Sampling(90))]))
    lengths = [event if event == "closed" else event.length for event in events]
    assert lengths == [16, "closed", 64, "closed", 16, "closed", 97], "the context and a place behind it"
    del first
    assert events[-1] == "closed", "its memory comes back with the last reference"


# ---- what a policy is, and what is refused


def test_the_ledgers_key_is_hfs_but_for_the_engine(
    hf: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "installed", lambda: True)
    ours, theirs = dict(hf.identity), identity_of(parse_policy(f"vllm:{folder}"))
    assert (theirs.pop("engine"), ours.pop("engine")) == ("vllm", "hf")
    assert theirs.pop("numerics") == NUMERICS
    ours.pop("numerics")
    assert ours == theirs
    split = identity_of(parse_policy(f"vllm:{folder}?tensor_parallel=2&device=cpu"))
    assert split == identity_of(parse_policy(f"vllm:{folder}"))
    described = open_engine(parse_policy(str(folder)), engine="vllm").describe()
    assert described["engine"] == "vllm"
    assert {key: described[key] for key in hf.describe()} == hf.describe()


def test_without_vllm_the_command_to_install_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "installed", lambda: False)
    for policy, engine in ((f"vllm:{folder}", None), (str(folder), "vllm")):
        with pytest.raises(UsageError, match=r"not installed; pip install 'alignbench\[vllm\]'"):
            open_engine(parse_policy(policy), engine=engine)


@pytest.mark.parametrize("options", ["", "?data_parallel=2"])
def test_a_vllm_that_cannot_be_imported_is_one_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise ImportError('libcudart.so: no\\nsuch file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        UsageError, match=r"cannot be imported \(libcudart\.so: no such file\); install"
    ) as said:
        list(open_engine(parse_policy(f"vllm:{folder}{options}")).generate([Generate("the cat")]))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("tensor_parallel=0", "tensor_parallel=0: write a number"),
        ("data_parallel=two", "data_parallel=two: write a number"),
        ("tensor_parallel=2&data_parallel=2", "cannot be had together"),
        ("device=cuda:1", "CUDA_VISIBLE_DEVICES"),
        ("best_of=4", "does not support 'best_of'"),
        ("dtype=int4", "unknown dtype"),
    ],
)
def test_options_that_do_not_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: str, said: str
) -> None:
    monkeypatch.setattr(versions, "installed", lambda: True)
    monkeypatch.setattr(versions, "on_cpu", lambda: True)
    with pytest.raises(UsageError, match=said):
        open_engine(parse_policy(f"vllm:{folder}?{options}"))


def test_hf_has_no_use_for_vllms_options(folder: Path) -> None:
    with pytest.raises(UsageError, match="engine hf does not support 'tensor_parallel'"):
        open_engine(parse_policy(f"{folder}?tensor_parallel=2"))


def test_models_that_are_none_of_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed", lambda: True)
    kinds = {
        "reward model": make_model("llama", "SequenceClassification"),
        "encoder-decoder": make_seq2seq("t5"),
    }
    for kind, model in kinds.items():
        model.save_pretrained(tmp_path / kind)
        make_tokenizer().save_pretrained(tmp_path / kind)
        with pytest.raises(UsageError, match=f"is an? {kind}.*--engine hf"):
            open_engine(parse_policy(f"vllm:{tmp_path / kind}"))


def test_it_gives_no_rewards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed", lambda: True)
    with pytest.raises(WorkError, match="gives no rewards; use --engine hf"):
        open_engine(parse_policy(f"vllm:{folder}")).reward([Reward("a", "b")])


def test_vllms_own_reason_is_said_when_it_cannot_load_a_model(
    fake: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, fake)

    def load(settings: Any) -> Any:
        said = ["1 validation error for ModelConfig", "  Value error, No such head. [type=value_error, x]"]
        raise ValueError("\n".join([*said, "    For further information visit https://errors.example"]))

    monkeypatch.setattr(versions, "load", load)
    engine = open_engine(parse_policy(f"vllm:{folder}"))
    with pytest.raises(UsageError, match=r"cannot load the model: No such head; use --engine hf"):
        in_order(engine.generate([Generate("a", Sampling(2))]))


# ---- vLLM itself


@pytest.mark.slow
def test_vllm_gives_the_same_numbers_and_texts(shared_data: Path, tmp_path: Path) -> None:
    """One test, as all of it comes from one process of vLLM's Python."""
    python = os.environ.get("ALIGNBENCH_VLLM_PYTHON")
    if not python:
        pytest.skip("vLLM is absent: set ALIGNBENCH_VLLM_PYTHON to a Python that has it, and what we need")
    environment = {
        "ALIGNBENCH_HOME": str(tmp_path / "home"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    command = [python, str(SIDE), str(shared_data), str(tmp_path / "scratch"), str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["models"]) == ["llama", "qwen2", "gpt2"]
    for model in found["models"].values():
        check_scores(model["scores"])
        check_texts(model["texts"])
        check_samples(model["samples"])
        check_tasks(model["tasks"])
    check_lora(found["lora"])
    assert found["parallel"]["n"] == 24
    assert found["parallel"]["worst"] <= 1e-4
    check_refusals(found["refusals"])


def check_scores(scores: dict[str, Any]) -> None:
    assert scores["hellaswag"]["n"] == 80
    assert scores["hellaswag"]["spread"] > 10, "log-probabilities that hardly vary would prove little"
    for name, found in scores.items():
        assert found["worst_a_token"] <= 1e-4, name
        assert found["beyond"] <= 1e-4, f"{name}: sums are within 1e-4 + 1e-6·|sum|"
        assert found["same_counts"], name
        assert found["flags_differ"] == 0, name
    assert scores["mmlu_5shot"]["worst"] <= 1e-4, "one token each"
    assert 0 < scores["its own words"]["greedy"] < scores["its own words"]["n"]
    assert scores["mmlu_5shot"]["computed"] < 0.5, "four options of a question are one request"
    assert scores["edge cases"]["computed"] < 0.9, "the prefix cache has what long texts share"


def check_texts(texts: dict[str, Any]) -> None:
    for name, found in texts.items():
        assert found["unexplained"] == 0, name
        assert all(gap < 1e-3 for gap in found["near_ties"]), (name, found["near_ties"])
        assert len(found["near_ties"]) <= found["n"] / 10, name
        assert found["worst"] <= 1e-4, name
        assert found["greedy_sampling_logprobs"], name
    for finish in ("stop", "length"):
        assert any(found["finish"][finish] for found in texts.values())


def check_samples(samples: dict[str, Any]) -> None:
    assert samples["same_again"]
    assert samples["same_in_part"]
    assert samples["distinct"] > 12
    assert samples["worst"] <= 1e-4
    assert samples["plain_is_raw"]
    assert samples["filtered_is_unknown"]


def check_tasks(tasks: dict[str, Any]) -> None:
    assert set(tasks) == {"hellaswag", "sst2", "lambada", "sums"}
    for name, task in tasks.items():
        assert task["held"], name
        assert task["outputs_differ"] == 0, name
        for a, b in zip(*task["values"], strict=True):
            assert a == pytest.approx(b, abs=1e-4), name


def check_lora(found: dict[str, Any]) -> None:
    assert found["moved"] > 0.1, "an adapter that changes nothing would prove nothing"
    assert found["identities"]
    assert found["scores"]["worst_a_token"] <= 1e-4
    assert found["texts"]["unexplained"] == 0
    assert all(gap < 1e-3 for gap in found["texts"]["near_ties"])


def check_refusals(said: dict[str, str]) -> None:
    assert said["head size"].startswith("UsageError: policy 'vllm:")
    assert "cannot load the model: " in said["head size"]
    assert "--engine hf" in said["head size"]
    assert said["reward"].startswith("WorkError")
    assert "vLLM samples at" in said["temperature"]
    assert "write device=cpu" in said["device"]
    assert not any("\n" in sentence for sentence in said.values())
