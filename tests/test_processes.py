"""A child dies with its parent, however that dies; a folder is written to by one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alignbench.errors import UsageError
from alignbench.processes import LOCK, TETHER, folder_lock, tethered


def python(code: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    """A Python process; its output ends only when everything that it has started has ended too."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


BROWSING = """
import sys, time
from alignbench.processes import tethered
with tethered(["browse", sys.argv[1], "--port", "0"]) as child:
    print("up", flush=True)
    time.sleep(60)
"""


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = python(BROWSING, str(tmp_path))
    assert said(parent) == "up"
    assert "127.0.0.1" in said(parent)  # the child serves
    parent.kill()
    parent.wait()
    parent.communicate(timeout=5)  # raises while the child still has the output open


def test_a_child_is_stopped_at_the_end_of_the_context(tmp_path: Path) -> None:
    with tethered(["browse", str(tmp_path), "--port", "0"], log=tmp_path / "log") as child:
        assert child.poll() is None
    assert child.returncode == -signal.SIGTERM


def test_a_child_that_ends_by_itself_keeps_its_status_and_its_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with tethered(["no-such-command"], log=log, environment={"OMP_NUM_THREADS": "1"}) as child:
        assert child.wait(timeout=60) == 2
    assert "no command" in log.read_text()


def test_only_a_tethered_process_watches_its_stdin_and_its_own_children_do_not() -> None:
    code = "import os, time; from alignbench.processes import hold_tether; hold_tether(); time.sleep(0.3); "
    code += f"print(os.environ.get({TETHER!r}))"
    free = python(code)
    assert free.communicate(timeout=30)[0].strip() == "None"  # communicate closes stdin
    assert free.returncode == 0
    tied = python(code.replace("0.3", "30"), **{TETHER: "1"})
    assert tied.communicate(timeout=10)[0] == ""
    assert tied.returncode == 1
    # and it ends normally while the parent lives, with the thread still waiting
    tied = python(code, **{TETHER: "1"})
    assert said(tied) == "None"
    assert tied.wait(timeout=10) == 0


HOLDING = """
import sys, time
from pathlib import Path
from alignbench.processes import folder_lock
with folder_lock(Path(sys.argv[1]), "train ppo"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_the_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = python(HOLDING, str(folder))
    assert said(holder) == "held"
    with (
        pytest.raises(UsageError, match=rf"process {holder.pid} \(alignbench train ppo\) is working there"),
        folder_lock(folder, "compare"),
    ):
        pass
    holder.communicate("\n", timeout=10)
    with folder_lock(folder, "compare"):
        pass
    assert list(folder.iterdir()) == []


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    holder = python(HOLDING, str(tmp_path))
    assert said(holder) == "held"
    holder.kill()
    holder.communicate()
    assert (tmp_path / LOCK).exists()
    with folder_lock(tmp_path, "compare"):
        assert f"process {os.getpid()} (alignbench compare)" == (tmp_path / LOCK).read_text()


def test_one_process_may_lock_a_folder_within_itself(tmp_path: Path) -> None:
    with folder_lock(tmp_path, "quickstart"):
        with folder_lock(tmp_path / ".." / tmp_path.name, "compare"):
            pass
        refused = python(HOLDING, str(tmp_path))
        assert "alignbench quickstart" in refused.communicate(timeout=30)[0]
    with pytest.raises(ValueError, match="broken"), folder_lock(tmp_path, "x"):
        raise ValueError("broken")
    assert not (tmp_path / LOCK).exists()


def test_what_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, match in ((tmp_path / "file", "is a file"), (tmp_path / "file" / "run", "not writable")):
        with pytest.raises(UsageError, match=match), folder_lock(path, "x"):
            pass
