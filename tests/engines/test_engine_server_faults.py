"""A server that fails: every run ends as promised, nothing is lost, and nothing is paid for twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FaultyServer

from alignbench.engines import open_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.servers import client as server_client
from alignbench.engines.servers.client import Failed
from alignbench.engines.servers.pool import ask_all
from alignbench.errors import WorkError
from alignbench.evaluation import Sample, evaluate_policy
from alignbench.ledger import Ledger
from alignbench.tasks.types import Document, Metric, Task

N = 24
Run = Callable[..., list[Sample]]


def make_task(kind: Any = "generate") -> Task:
    """``N`` documents; of a choice, two continuations each."""
    choices = () if kind == "generate" else ("one", "two")
    documents = [
        Document(f"d{i}", {}, f"document {i}:", " x", choices, f"d{i}", (0,), " ", ()) for i in range(N)
    ]

    def score(document: Document, answer: Any) -> dict[str, float]:
        return {"m": float(len(answer.text)) if kind == "generate" else answer[0].logprob}

    return Task(
        name="toy",
        family="toys",
        area="nlp",
        kind=kind,
        description="",
        path=Path("toy.yaml"),
        metrics=(Metric("m"),),
        headline="m",
        score=score,
        load=lambda: documents,
        sampling={"max_tokens": 4},
    )


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as found:
        yield found


@pytest.fixture
def run(server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Evaluates the server's model on a toy task through one ledger."""
    monkeypatch.setattr(server_client, "pause", lambda seconds, closing: None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def evaluate(kind: str = "generate", options: str = "?concurrency=4", **more: Any) -> list[Sample]:
        policy, task = parse_policy(server.policy(options)), make_task(kind)
        with Ledger.open(tmp_path / "ledger") as ledger:
            return evaluate_policy(policy, open_engine(policy), task, task.load(), ledger, **more)

    return evaluate


def paid_once(server: FaultyServer, n: int = N) -> bool:
    return len(server.paid) == n and set(server.paid.values()) == {1}


@pytest.mark.parametrize("fault", ["429", "429 0", "500", "502", "408", "reset", "half", "short", "nonsense"])
@pytest.mark.parametrize("kind", ["generate", "multiple_choice"])
def test_what_passes_costs_nothing_but_another_try(
    fault: str, kind: str, server: FaultyServer, run: Run
) -> None:
    clean = run(kind)
    n = N if kind == "generate" else 2 * N
    assert paid_once(server, n)
    server.asked.clear()
    server.paid.clear()
    server.behaviour.faults.extend(["ok", fault, "ok", fault, fault])
    assert run(kind, fresh=True) == clean
    assert paid_once(server, n)
    assert sum(server.asked.values()) == n + 3
    assert run(kind) == clean
    assert sum(server.asked.values()) == n + 3  # the ledger holds every answer


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("429", r"HTTP 429: told to say 429 \(tried 6 times\)"),
        ("429 7200", "asks to wait 7,200 s"),
        ("500", r"HTTP 500: told to say 500 \(tried 6 times\)"),
        ("reset", r"cannot be reached: .*\(tried 6 times\)"),
        ("half", r"no valid JSON \(tried 6 times\)"),
        ("nonsense", r"holds no choice \(tried 6 times\)"),
        ("401", "refuses a request without a key"),
    ],
)
def test_what_was_answered_is_kept_and_not_asked_again(
    fault: str, reason: str, server: FaultyServer, run: Run
) -> None:
    server.behaviour.always["document 9:"] = fault
    with pytest.raises(WorkError, match=reason) as error:
        run()
    kept = len(server.paid)
    assert f"the {kept} that were answered are kept" in str(error.value)
    assert f"1 of {N} requests failed" in str(error.value)
    assert "\n" not in str(error.value)
    assert 0 < kept < N  # the rest was not sent
    assert sum(server.asked.values()) <= kept + 6
    server.behaviour.always.clear()
    assert [sample.output for sample in run()] == [sample.output for sample in run(fresh=True)]
    assert set(server.paid.values()) == {2}  # once, and once more because that was asked for


def test_a_text_that_is_refused_is_missing_and_costs_no_other(
    server: FaultyServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not kept: when the server has more room, the same command asks it again, and nothing else."""
    server.behaviour.always["document 9:"] = "400"
    samples = run()
    lost = [sample for sample in samples if sample.output is None]
    assert [(s.doc_id, s.flags, set(s.values.values())) for s in lost] == [("d9", ("missing",), {None})]
    said = capsys.readouterr().err
    assert f"1 of {N} documents got no answer and count as missing; the first: " in said
    assert "HTTP 400: told to say 400" in said
    assert paid_once(server, N - 1)
    server.behaviour.always.clear()
    assert all(sample.output is not None for sample in run())
    assert paid_once(server)


@pytest.mark.parametrize("status", ["400", "422"])
def test_what_refuses_every_text_is_an_error(status: str, server: FaultyServer, run: Run) -> None:
    """It is the way of asking that is refused, and not all of it is tried."""
    server.behaviour.always["document"] = status
    with pytest.raises(WorkError, match="told to say 4"):
        run()
    assert not server.paid
    assert sum(server.asked.values()) < N


def test_silence(server: FaultyServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_client, "RETRIES", server_client.Retries(attempts=2))
    server.behaviour.always["document 9:"] = "silence"
    with pytest.raises(WorkError, match=r"gives no answer within 1 s \(tried 2 times\)"):
        run(options="?concurrency=4&timeout=1")
    server.behaviour.always.clear()
    run(options="?concurrency=4&timeout=5")
    assert paid_once(server)


def test_the_server_goes_away(server: FaultyServer, run: Run) -> None:
    """From some request on nobody is there: what came before is kept."""
    server.behaviour.faults.extend(["ok"] * 10 + ["reset"] * 1000)
    with pytest.raises(WorkError, match=r"[1-4] of 24 requests failed, 1\d were not sent; the 10 that were"):
        run()
    server.behaviour.faults.clear()
    run()
    assert paid_once(server)


@pytest.mark.parametrize("kind", ["multiple_choice", "loglikelihood"])
def test_no_log_probabilities_ends_at_once(kind: str, server: FaultyServer, run: Run) -> None:
    server.behaviour.echo = "ignored"
    with pytest.raises(WorkError, match="gives no log-probabilities of a prompt"):
        run(kind)
    assert not server.asked


def test_tokens_without_ids_are_the_server_s_count(server: FaultyServer, run: Run) -> None:
    assert {sample.n_tokens for sample in run()} == {4}
    assert {sample.n_tokens for sample in run()} == {4}  # and from the ledger
    server.behaviour.usage = False
    assert {sample.n_tokens for sample in run(fresh=True)} == {None}


def test_another_address_is_another_policy(server: FaultyServer, run: Run, tmp_path: Path) -> None:
    run()
    with FaultyServer() as other:
        policy, task = parse_policy(other.policy()), make_task()
        with Ledger.open(tmp_path / "ledger") as ledger:
            evaluate_policy(policy, open_engine(policy), task, task.load(), ledger)
        assert paid_once(other)
    run(options="?concurrency=9&timeout=7&price_in=1&price_out=1")  # none of which changes an answer
    assert paid_once(server)
    run(options="?chat_template=on")
    assert set(server.paid.values()) == {2}


# --- the pool ----------------------------------------------------------------------------------------------


def test_an_interrupt_keeps_what_has_arrived() -> None:
    """The third answer never comes; the interrupt does."""
    closing, never = threading.Event(), threading.Event()
    kept: list[int] = []

    def ask(index: int) -> int:
        if index == 2:
            never.wait(30)
        return index

    running = ask_all(range(9), ask, width=1, closing=closing)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            kept.extend(index for batch in running for index, _ in batch)
    finally:
        signal.signal(signal.SIGINT, before)
    assert kept == [0, 1]
    assert closing.is_set()
    never.set()


def test_who_stops_listening_stops_the_sending() -> None:
    closing, asked = threading.Event(), list[int]()

    def ask(index: int) -> int:
        asked.append(index)
        time.sleep(0.01)
        return index

    running = ask_all(range(1000), ask, width=2, closing=closing)
    next(running)
    running.close()
    closing.clear()  # as another call does
    time.sleep(0.1)
    assert len(asked) < 20


def test_an_error_of_another_kind_is_raised_as_it_is() -> None:
    def ask(index: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(ask_all(range(3), ask, width=2, closing=threading.Event()))


def test_those_under_way_are_waited_for() -> None:
    """One fails while another is under way, whose answer still comes."""
    meet = threading.Barrier(2, timeout=10)

    def ask(index: int) -> int:
        meet.wait()
        if index == 0:
            raise Failed("no", "no", 400)
        time.sleep(0.1)
        return index

    running = ask_all(range(9), ask, width=2, closing=threading.Event())
    assert next(running) == [(1, 1)]
    with pytest.raises(WorkError, match=r"1 of 9 requests failed, 7 were not sent; the 1 that were answered"):
        next(running)


def test_nothing_to_ask() -> None:
    assert list(ask_all([], lambda index: index, width=4, closing=threading.Event())) == []
