"""The commands on a server's policy, from end to end; and that its key is written nowhere."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FaultyServer

from alignbench.cli.main import main
from alignbench.engines.servers import client as server_client

KEY = "sk-planted-0123456789abcdef"
SAY = """\
task: say
area: nlp
kind: generate
description: Says.
data: {hub: rows.jsonl}
prompt: "{{ question }}"
target: "{{ right }}"
generation: {max_tokens: 4}
metrics: [{name: exact_match}]
headline: exact_match
"""
PICK = """\
task: pick
area: nlp
kind: multiple_choice
description: Picks.
data: {hub: rows.jsonl}
prompt: "{{ question }}"
choices: '[right, wrong]'
correct: '[0]'
metrics: [{name: accuracy}]
headline: accuracy
"""
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as found:
        yield found


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": f"number {i} is", "right": "two", "wrong": "three of"} for i in range(12)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "say.yaml").write_text(SAY)
    (folder / "pick.yaml").write_text(PICK)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tasks: Path) -> Command:
    monkeypatch.setattr(server_client, "pause", lambda seconds, closing: None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def command(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--tasks-dir", str(tasks)])
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return command


def test_eval_writes_what_it_writes_for_a_model(server: FaultyServer, run: Command, tmp_path: Path) -> None:
    words = (
        "eval",
        server.policy("?price_in=1&price_out=2"),
        "--tasks",
        "say,pick",
        "--out",
        f"{tmp_path}/out",
    )
    status, out, err = run(*words)
    assert status == 0, err
    assert "toy" in out
    assert re.search(r"toy: \d+ requests; .* tokens in, .* out, as the server counts; .* a million", err)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (policy,) = results["policies"]
    assert (policy["name"], policy["kind"]) == ("toy", "openai")
    assert "no weight hash" in policy["inputs"]["server"]
    assert "no weight hash" in (tmp_path / "out" / "report.html").read_text()
    assert all(score["scores"]["toy"]["n"] == 12 for score in results["tasks"])
    paid = dict(server.paid)
    assert run(*words)[0] == 0
    assert dict(server.paid) == paid  # the ledger holds it all
    assert run(*words, "--fresh")[0] == 0
    assert dict(server.paid) == {prompt: 2 * n for prompt, n in paid.items()}


def test_compare_of_one_server_twice(server: FaultyServer, run: Command, tmp_path: Path) -> None:
    status, _, err = run(
        "compare",
        f"a={server.policy()}",
        f"b={server.policy()}",
        "--tasks",
        "pick",
        "--out",
        f"{tmp_path}/out",
    )
    assert status == 0, err
    (delta,) = json.loads((tmp_path / "out" / "results.json").read_text())["deltas"]
    assert delta["diff"] == 0
    assert set(server.paid.values()) == {1}


def test_a_task_that_the_server_cannot_do_fails_alone(
    server: FaultyServer, run: Command, tmp_path: Path
) -> None:
    server.behaviour.echo = "ignored"
    status, _, err = run("eval", server.policy(), "--tasks", "pick,say", "--out", f"{tmp_path}/out")
    assert status == 1
    assert "gives no log-probabilities of a prompt" in err
    assert "Traceback" not in err
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["tasks"]
    assert [row["task"] for row in rows if row["scores"]] == ["say"]
    assert sum(server.asked.values()) == 12


@pytest.mark.parametrize("options", ["", "?chat_template=on"])
def test_the_dry_run_asks_nothing(options: str, server: FaultyServer, run: Command, tmp_path: Path) -> None:
    words = (
        "eval",
        server.policy(f"{options or '?chat_template=auto'}&price_in=1&price_out=2"),
        "--tasks",
        "say",
    )
    status, out, err = run(*words, "--dry-run", "--json")
    assert status == 0, err
    (cost,) = json.loads(out)["costs"]
    assert not server.bodies
    characters = sum(len(f"number {i} is") for i in range(12))
    assert (cost["requests"], cost["held"], cost["characters"]) == (12, 0, characters)
    assert (cost["input_tokens"], cost["output_tokens"]) == (-(-characters // 4), 48)
    assert cost["cost"] == pytest.approx((cost["input_tokens"] + 2 * 48) / 1e6)
    assert "time and memory cannot be told" in run(*words, "--dry-run")[1]
    assert run(*words, "--limit", "5", "--out", f"{tmp_path}/out")[0] == 0
    (cost,) = json.loads(run(*words, "--dry-run", "--json")[1])["costs"]
    assert (cost["held"], cost["output_tokens"]) == (5, 28)


def test_tasks_show_prints_the_text_that_is_sent(server: FaultyServer, run: Command, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Be kind. ")
    policy = server.policy(f"?prefix={tmp_path}/p.txt")
    shown = json.loads(run("tasks", "show", "pick", "--policy", policy, "--json")[1])["prompt"]
    assert shown["endpoint"] is None
    assert [row["text"] for row in shown["requests"]] == [
        "Be kind. number 0 is two",
        "Be kind. number 0 is three of",
    ]
    assert {row["text"][row["start"] :] for row in shown["requests"]} == {" two", " three of"}
    status, out, _ = run("tasks", "show", "pick", "--policy", policy)
    assert status == 0
    assert "completions where the server has them, else chat" in out
    assert "|Be kind. number 0 is|" in out
    assert "the same context" in out
    assert (
        "chat (chat_template=on)" in run("tasks", "show", "say", "--policy", f"{policy}&chat_template=on")[1]
    )
    assert not server.bodies


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_an_interrupt_loses_nothing_that_arrived(
    server: FaultyServer, run: Command, tasks: Path, tmp_path: Path
) -> None:
    server.behaviour.always["number"] = "slow"
    words = ["eval", server.policy("?concurrency=2"), "--tasks", "say", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "alignbench.cli.main", *words, "--tasks-dir", str(tasks)]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 60
        while sum(server.paid.values()) < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "stopped; what was finished is kept" in err
    assert "Traceback" not in err
    assert len(server.paid) < 12
    server.behaviour.always.clear()
    assert run(*words)[0] == 0
    assert len(server.paid) == 12
    assert sum(server.paid.values()) <= 12 + 2  # those that were under way


# --- the key -----------------------------------------------------------------------------------------------


def leaks(folder: Path, *texts: str) -> list[str]:
    """Where the key can be read: files below a folder, and texts."""
    found = [str(path) for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    return found + [text for text in texts if KEY in text]


def test_the_key_is_written_nowhere(
    server: FaultyServer, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.behaviour.key = KEY
    words = ("eval", server.policy(), "--tasks", "say,pick", "--out", f"{tmp_path}/out")
    status, out, err = run(*words)
    assert status == 0, err
    assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"
    server.behaviour.always["number 3"] = "leak"
    server.behaviour.token_ids = True
    status, *said = run(*words, "--fresh", "--json")
    assert status == 0  # that document is missing
    assert "cannot take Bearer [key] from you" in said[1]
    assert len(list((tmp_path / "home").iterdir())) > 0
    assert leaks(tmp_path, out, err, *said) == []


@pytest.mark.parametrize("fault", ["leak", "500", "reset", "401", "half"])
def test_nor_is_it_in_a_traceback(fault: str, server: FaultyServer, tasks: Path, tmp_path: Path) -> None:
    server.behaviour.always["number"] = fault
    code = (
        "from alignbench.engines.servers import client as server_client\n"
        "server_client.pause = lambda seconds, closing: None\n"
        "from alignbench.cli.main import main\n"
        "main()\n"
    )
    words = ["--debug", "eval", server.policy(), "--tasks", "say", "--tasks-dir", str(tasks), "--out"]
    environment = {**os.environ, "ALIGNBENCH_HOME": str(tmp_path / "home"), "OPENAI_API_KEY": KEY}
    done = subprocess.run(
        [sys.executable, "-c", code, *words, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "requests failed" in done.stderr
    assert leaks(tmp_path, done.stdout, done.stderr) == []


def test_a_key_in_the_address_is_not_repeated(run: Command) -> None:
    for spec in (f"openai:m@http://u:{KEY}@127.0.0.1/v1", f"openai:m@http://127.0.0.1/v1?api_key={KEY}"):
        status, out, err = run("eval", spec)
        assert status == 2
        assert "OPENAI_API_KEY" in err
        assert KEY not in out + err


def test_a_server_that_says_the_key_in_its_text(
    server: FaultyServer, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    handler: Any = server._http.RequestHandlerClass
    plain = handler._complete

    def repeat(self: Any, *words: Any) -> Any:
        answer = plain(self, *words)
        answer["choices"][0]["text"] += f" {KEY}"
        return answer

    handler._complete = repeat
    status, out, err = run("eval", server.policy(), "--tasks", "say", "--out", f"{tmp_path}/out")
    assert status == 0, err
    assert leaks(tmp_path, out, err) == []
