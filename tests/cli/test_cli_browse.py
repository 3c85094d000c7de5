"""``alignbench browse`` as a process: the address, the port, Ctrl-C, JSON."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignbench.cli.browse import command
from alignbench.compare.results import Comparison, PolicyResult, write_results
from alignbench.errors import UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    write_results(Comparison([PolicyResult("a", "gpt2", None, "hf")], [], [], [], [], "a is a."), run)
    return tmp_path / "runs"


def start(root: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "alignbench", "browse", str(root), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        # a shell's background job ignores Ctrl-C, and so would the child that inherits it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_prints_the_address_opens_it_and_stops_on_ctrl_c(root: Path, tmp_path: Path) -> None:
    opener = tmp_path / "opener"
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    opener.chmod(0o755)
    process = start(root, "--port", "0", "--open", BROWSER=f"{opener} %s")
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address, timeout=120) as answer:
        assert b"a is a." in answer.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
    assert (tmp_path / "opened").read_text().strip() == address


def test_a_taken_port_is_one_sentence(root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start(root, "--port", str(taken.getsockname()[1]))
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert "choose another with --port" in err
    assert len(err.strip().splitlines()) == 1


def test_json_prints_the_index_once(root: Path) -> None:
    (root / "broken").mkdir()
    (root / "broken" / "results.json").write_text("{")
    result = CliRunner().invoke(command, [str(root), "--json"])
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert [(run["path"], run["verdict"], run["preferred"]) for run in printed["runs"]] == [
        ("one", "a is a.", None)
    ]
    assert [entry["path"] for entry in printed["unreadable"]] == ["broken"]


def test_no_such_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path / "none"), "--json"])
    assert isinstance(result.exception, UsageError)
    assert "quickstart" in str(result.exception)
