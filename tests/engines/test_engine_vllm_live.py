"""The engine of a module that is trained: it samples from the weights that it was last given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from fake_vllm import FakeEngine, install
from tiny_models import make_model, make_tokenizer

from alignbench.engines.hf import HFEngine
from alignbench.engines.types import Completion, Generate, Sampling
from alignbench.engines.vllm_engine import versions
from alignbench.engines.vllm_engine.live import LiveEngine, checkpoint_weights
from alignbench.errors import UsageError, WorkError

PROMPTS = ["the cat sat on the mat and", "", "where is the dog?"]
Make = Callable[..., tuple[Any, LiveEngine]]


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine(None, make_tokenizer(), cache=lambda ids: 0)


@pytest.fixture
def events(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    return install(monkeypatch, fake)


@pytest.fixture
def make(events: list[Any]) -> Make:
    """``make(family)`` → a module and vLLM that samples from it."""

    def of(family: str = "llama", length: int = 40, **keys: Any) -> tuple[Any, LiveEngine]:
        module = make_model(family)
        return module, LiveEngine(module, HFEngine(module, make_tokenizer()).inputs, length=length, **keys)

    return of


def sample(engine: LiveEngine, temperature: float = 1.0, n: int = 12) -> list[Completion]:
    requests = [Generate(prompt, Sampling(n, temperature), 2**63 + i) for i, prompt in enumerate(PROMPTS)]
    answers = dict(pair for batch in engine.generate(requests) for pair in batch)
    return [answers[i] for i in range(len(requests))]


def gap(module: Any, answers: list[Completion], temperature: float = 1.0) -> float:
    """The largest distance of what was told to the module's own log-probabilities."""
    worst = 0.0
    for answer in answers:
        ids, n = [*answer.prompt_ids, *answer.token_ids], len(answer.prompt_ids)
        with torch.inference_mode():
            logprobs = (module(torch.tensor([ids])).logits[0] / temperature).log_softmax(-1)
        own = logprobs[range(n - 1, len(ids) - 1), ids[n:]]
        worst = max(worst, float((own - torch.tensor(answer.sampling_logprobs)).abs().max()))
    return worst


def update(module: Any) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_it_samples_from_the_weights_that_it_was_last_given(
    make: Make, family: str, temperature: float
) -> None:
    module, engine = make(family)
    before = sample(engine, temperature)
    assert gap(module, before, temperature) <= 1e-4
    update(module)
    assert sample(engine, temperature) == before, "nothing was pushed, and seeds are the requests'"
    assert gap(module, before, temperature) > 0.1
    engine.push()
    after = sample(engine, temperature)
    assert gap(module, after, temperature) <= 1e-4
    assert [a.token_ids for a in after] != [a.token_ids for a in before]


def test_raw_log_probabilities_are_told_where_they_are_those_of_the_sampling(make: Make) -> None:
    _, engine = make()
    assert all(answer.logprobs == answer.sampling_logprobs for answer in sample(engine))
    assert all(answer.logprobs == () for answer in sample(engine, 0.7))


def test_what_it_is_loaded_with(make: Make, events: list[Any]) -> None:
    make(length=33, dtype="bfloat16", memory=0.2)
    settings = events[0]
    assert (settings.live, settings.length, settings.dtype, settings.memory) == (True, 33, "bfloat16", 0.2)
    assert not settings.model.exists(), "what it is loaded from is not left behind"


@pytest.mark.parametrize(("family", "tied"), [("gpt2", True), ("llama", False)])
def test_weights_are_named_as_in_a_checkpoint(family: str, tied: bool) -> None:
    module = make_model(family)
    named = dict(checkpoint_weights(module))
    assert ("lm_head.weight" in named) == (not tied)
    assert set(module.state_dict()) - set(named) == ({"lm_head.weight"} if tied else set())
    assert all(torch.equal(weight, module.state_dict()[name]) for name, weight in named.items())
    assert not any(weight.requires_grad for weight in named.values())


def test_it_ends_with_the_run_and_is_the_only_one(make: Make, events: list[Any]) -> None:
    _, first = make()
    _, second = make()
    assert events[1:2] == ["closed"], "two would share the memory that each takes"
    with pytest.raises(WorkError, match="it is closed"):
        sample(first)
    second.close()
    second.close()
    assert events.count("closed") == 2


def test_too_long_a_text_is_an_error_and_not_a_model_loaded_anew(make: Make) -> None:
    _, engine = make(length=20)
    with pytest.raises(WorkError, match="made for texts of 20 tokens"):
        sample(engine, n=20)


def test_that_prompts_are_cut_is_said_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    _, engine = make(length=96)
    for _ in range(2):
        list(engine.generate([Generate("the cat sat on it" * 30, Sampling(8))]))
    assert sum("cut on the left" in line for line in caplog.messages) == 1


# ---- what is refused


def test_without_vllm_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed", lambda: False)
    module = make_model("llama")
    with pytest.raises(UsageError, match=r"pip install 'alignbench\[vllm\]', or take rollout_engine=hf"):
        LiveEngine(module, HFEngine(module, make_tokenizer()).inputs, length=40)


def test_a_vllm_for_another_device_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "on_cpu", lambda: False)
    with pytest.raises(UsageError, match=r"the policy is on cpu.*computes on cuda; write device=cuda"):
        make()


def test_vllms_reason_is_said_where_it_cannot_load(
    make: Make, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(settings: Any) -> Any:
        raise ValueError("1 error\n  Value error, No such head. [type=value_error, x]\n  see https://x")

    monkeypatch.setattr(versions, "load", load)
    with pytest.raises(
        UsageError, match=r"0\.0 cannot load the policy, a LlamaForCausalLM: No such head; take"
    ):
        make()


def test_other_numbers_than_the_modules_are_refused_before_anything_is_trained(
    make: Make, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        versions, "push", lambda llm, weights: None
    )  # as if it read the names and did nothing
    with pytest.raises(UsageError, match=r"computes other numbers than transformers .* nats\); take"):
        make()
    assert events[-1] == "closed"


def test_a_cache_that_is_not_dropped_is_an_error(make: Make, fake: FakeEngine) -> None:
    _, engine = make()
    fake.keeps = True
    with pytest.raises(
        WorkError, match=r"does not take the policy's weights \(the prefix cache was not drop"
    ):
        engine.push()


def test_weights_that_it_does_not_take_are_one_sentence(make: Make, fake: FakeEngine) -> None:
    fake.keeps = True
    with pytest.raises(UsageError) as error:
        make()
    assert str(error.value) == (
        "rollout_engine=vllm: vLLM 0.0 cannot load the policy, a LlamaForCausalLM: the prefix cache was not "
        "dropped; take rollout_engine=hf"
    )


def test_a_failure_names_what_to_lower(make: Make, fake: FakeEngine) -> None:
    _, engine = make()
    fake.fail_after = fake.steps
    with pytest.raises(WorkError, match=r"failed \(CUDA out of memory.*\); lower batch_size, max_new_tokens"):
        sample(engine)


@pytest.mark.parametrize(
    ("parameters", "processes", "said"),
    [
        (lambda self: None, "0", "takes weights from files only; install a newer vLLM"),
        (lambda self, weights_iterator=None: None, "1", "VLLM_ENABLE_V1_MULTIPROCESSING moves it"),
        (lambda self, weights_iterator=None: None, "0", None),
    ],
)
def test_versions_that_take_no_weights_from_memory(
    monkeypatch: pytest.MonkeyPatch, parameters: Any, processes: str, said: str | None
) -> None:
    path = ["vllm", "vllm.v1", "vllm.v1.worker", "vllm.v1.worker.gpu_model_runner"]
    for name in path:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    runner = SimpleNamespace(reload_weights=parameters)
    monkeypatch.setattr(sys.modules[path[-1]], "GPUModelRunner", runner, raising=False)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", processes)
    if said is None:
        versions._require_live()
    else:
        with pytest.raises(ValueError, match=said):
            versions._require_live()


def test_a_tied_head_is_packed_again_and_what_has_only_its_copy_is_not() -> None:
    packed = []

    class Layer(torch.nn.Module):
        def __init__(self, rows: int) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(rows, 2))
            self.cpu_linear = object()
            self.quant_method = SimpleNamespace(process_weights_after_loading=packed.append)

    head, projection = Layer(3), Layer(0)
    versions._pack_again(torch.nn.Sequential(head, projection, torch.nn.Linear(2, 2)))
    assert packed == [head]


def test_threads_of_training_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    setter, before = torch.set_num_threads, torch.get_num_threads()
    with versions._threads_as_they_are():
        torch.set_num_threads(before + 1)
        monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    assert torch.set_num_threads is setter
    assert torch.get_num_threads() == before
