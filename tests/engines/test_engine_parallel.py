"""Data parallelism: the answers of one device, from several processes that end when they should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_model, make_tokenizer

from alignbench.engines import open_engine, parallel
from alignbench.engines.lazy import LazyEngine
from alignbench.engines.parallel import ParallelEngine, assign, devices_of
from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Generate, Reward, Sampling, Score
from alignbench.engines.weights import load_policy
from alignbench.errors import UsageError, WorkError

CONTEXTS = ["the cat", "the dog ran to", "where is", "it sat on the mat;", "a cat and a dog"]
SCORES = [Score(c, f" {w}") for c in CONTEXTS for w in ("the mat", "a cat sat", "ran")]
GENERATES = [
    Generate(c, Sampling(max_tokens=6, temperature=t), seed=s)
    for c in CONTEXTS
    for s, t in ((0, 0.0), (1, 1.0))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parallel") / "tiny"
    make_model("llama").save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def single(folder: Path) -> Any:
    return load_policy(parse_policy(str(folder)))


@pytest.fixture(scope="module")
def two(folder: Path) -> ParallelEngine:
    """Two processes on the CPU, shared by the tests that do not end them."""
    return ParallelEngine(parse_policy(str(folder)), ["cpu", "cpu"])


def answers(batches: Any) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for batch in batches:
        for i, result in batch:
            assert i not in found
            found[i] = result
    return found


@pytest.mark.slow
def test_it_is_the_same_policy_as_on_one_device(two: ParallelEngine, single: Any) -> None:
    assert dict(two.identity) == dict(single.identity)
    assert dict(two.describe()) == dict(single.describe())
    assert two.context_length == single.context_length
    assert two.render("a") == single.render("a")
    assert two.tokenizer("the cat")["input_ids"] == single.tokenizer("the cat")["input_ids"]


@pytest.mark.slow
def test_scores_and_text_are_those_of_one_device(two: ParallelEngine, single: Any) -> None:
    ours, expected = answers(two.score(SCORES)), answers(single.score(SCORES))
    assert ours.keys() == expected.keys()
    for i, scored in expected.items():
        assert ours[i].logprob == pytest.approx(scored.logprob, abs=1e-4)
        assert (ours[i].n_tokens, ours[i].greedy) == (scored.n_tokens, scored.greedy)
    ours, expected = answers(two.generate(GENERATES)), answers(single.generate(GENERATES))
    assert {i: c.text for i, c in ours.items()} == {i: c.text for i, c in expected.items()}


@pytest.mark.slow
def test_the_same_requests_give_the_same_bytes(two: ParallelEngine) -> None:
    assert answers(two.score(SCORES)) == answers(two.score(SCORES))


@pytest.mark.slow
def test_what_is_held_is_not_computed_and_changes_nothing(two: ParallelEngine) -> None:
    batches = list(two.score(SCORES))
    whole = answers(batches)
    held = [i for i, _ in batches[0]]  # what a run that was killed leaves: whole batches
    assert 0 < len(held) < len(SCORES)
    assert answers(two.score(SCORES, held=held)) == {i: whole[i] for i in whole if i not in held}
    rest = answers(two.score(SCORES, held=[0, 3, 4, 5, 14]))
    assert rest.keys() == whole.keys() - {0, 3, 4, 5, 14}
    assert all(rest[i].logprob == pytest.approx(whole[i].logprob, abs=1e-4) for i in rest)
    assert answers(two.score(SCORES, held=range(len(SCORES)))) == {}
    assert answers(two.score([])) == {}


@pytest.mark.slow
def test_more_processes_than_requests(two: ParallelEngine) -> None:
    assert answers(two.score(SCORES[:1])).keys() == {0}


@pytest.mark.slow
def test_an_error_is_the_parents_and_the_engine_goes_on(two: ParallelEngine) -> None:
    with pytest.raises(UsageError, match="leaves no room"):
        list(two.generate([Generate("a", Sampling(max_tokens=500))] * 4))
    assert len(answers(two.score(SCORES))) == len(SCORES)


@pytest.mark.slow
def test_a_process_that_dies_and_a_caller_that_stops_asking(two: ParallelEngine) -> None:
    processes = [worker.process for worker in two._workers]
    processes[0].kill()
    with pytest.raises(WorkError, match=r"the device cpu ended unexpectedly \(exit status -9\)"):
        answers(two.score(SCORES))
    assert not any(process.is_alive() for process in processes)
    batches = two.score(SCORES)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert two._workers == []  # so that no late answer is taken for one of the next call


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads processes from /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_is_left_of_a_killed_parent(how: signal.Signals, folder: Path) -> None:
    """Also in the middle of work, here a call that takes long; Ctrl-C reaches the whole group."""
    code = f"""
if __name__ == "__main__":
    from alignbench.engines.parallel import ParallelEngine
    from alignbench.engines.policy import parse_policy
    from alignbench.engines.types import Generate, Sampling
    engine = ParallelEngine(parse_policy({str(folder)!r}), ["cpu", "cpu"])
    print(*(worker.process.pid for worker in engine._workers), flush=True)
    list(engine.generate([Generate("a", Sampling(90, temperature=1.0), seed=i) for i in range(20000)]))
"""
    script = folder.parent / "script.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    time.sleep(0.3)
    os.killpg(parent.pid, how) if how == signal.SIGINT else parent.kill()
    parent.wait(timeout=30)
    for _ in range(100):
        if not any(map(alive, children)):
            break
        time.sleep(0.1)
    assert not any(map(alive, children))
    assert parent.stderr.read().count("Traceback") <= 1  # the parent's own


def test_the_devices_of_a_policy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def devices(option: str) -> list[str]:
        return devices_of(parse_policy(f"{folder}{option}"))

    assert devices("") == []
    assert devices("?device=cuda:1") == ["cuda:1"]
    assert devices("?device=cuda:0,cuda:1") == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices("?device=cuda:all") == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="no CUDA GPU is here"):
        devices("?device=cuda:all")
    with pytest.raises(UsageError, match="next to a comma"):
        devices("?device=cpu,")


@pytest.mark.slow
def test_it_is_opened_by_a_list_of_devices_and_ends_with_the_engine(folder: Path, single: Any) -> None:
    spec = f"{folder}?device=cpu,cpu"
    engine = open_engine(parse_policy(spec), fresh=True)
    assert isinstance(engine, ParallelEngine)
    known = open_engine(parse_policy(spec))  # no process is started for it until it is asked
    assert isinstance(known, LazyEngine)
    assert dict(known.identity) == dict(engine.identity) == dict(single.identity)
    with pytest.raises(UsageError, match="no such head"):
        list(engine.reward([Reward("a", "b")]))
    answers(engine.score(SCORES[:2]))
    processes = [worker.process for worker in engine._workers]
    assert all(process.is_alive() for process in processes)
    del engine
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(UsageError, match="'cpuu' is not usable here"):
        open_engine(parse_policy(f"{folder}?device=cpuu,cpuu"))


def test_threads_are_divided(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        parallel._load(parse_policy(f"{folder}?device=cpu"), None, 2)
        assert torch.get_num_threads() == 2
        parallel._load(parse_policy(f"{folder}?device=cpu"), None, 5)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


# ---- who gets what

texts = st.text(alphabet="ab", max_size=6)


@given(st.lists(st.tuples(texts, texts)), st.integers(1, 5))
def test_every_request_goes_to_one_process(pairs: list[tuple[str, str]], n: int) -> None:
    shards = assign([Score(*pair) for pair in pairs], n)
    assert len(shards) == n
    assert sorted(i for shard in shards for i in shard) == list(range(len(pairs)))


def test_options_of_one_context_stay_together_and_costs_are_even() -> None:
    requests = [Score(f"question {i % 100:03} " + "x" * (i % 100), f" option {i}") for i in range(400)]
    shards = assign(requests, 2)
    owners: dict[str, set[int]] = {}
    for process, shard in enumerate(shards):
        for i in shard:
            owners.setdefault(requests[i].context, set()).add(process)
    assert all(len(found) == 1 for found in owners.values())
    costs = [sum(len(requests[i].context + requests[i].continuation) for i in shard) for shard in shards]
    assert max(costs) < 1.1 * min(costs)
    assert all(shards)


def test_samples_of_one_prompt_are_parted_when_they_are_many() -> None:
    shards = assign([Generate("the same", Sampling(8), seed=i) for i in range(64)], 2)
    assert [*map(len, shards)] == [32, 32]
