"""What is put is there: exactly, after kill -9, for several processes; and what is no ledger is refused."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.errors import UsageError, WorkError
from alignbench.ledger import Ledger, content_key, store
from alignbench.ledger.filesystem import network_filesystem

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path)


@given(st.dictionaries(st.text(min_size=1, max_size=4), JSON, max_size=4))
def test_a_key_is_of_the_content_not_of_the_order(parts: dict[str, object]) -> None:
    assert content_key(**parts) == content_key(**dict(reversed(parts.items())))
    assert content_key(**parts) != content_key(**parts, one_more=1)


def test_keys_known_beforehand() -> None:
    # sha256 of {"a":[1,2.5],"b":"é"} in ASCII JSON: a change here would orphan every ledger
    assert (
        content_key(b="é", a=(1, 2.5)) == "60d4fe7d84d09285a774fa6c850ed0e739e0153890529471751ae4df4e1df886"
    )
    with pytest.raises(TypeError):
        content_key(a=object())
    with pytest.raises(ValueError):
        content_key(a=math.nan)


def test_payloads_come_back_exactly(ledger: Ledger) -> None:
    payload = {"x": 0.1 + 0.2, "y": [1e-323, -0.0, 2**60, math.inf], "text": "é\0\ud800", "none": None}
    ledger.put("score", {"k": payload})
    assert ledger.get("score", ["k", "missing"]) == {"k": payload}
    assert math.copysign(1, ledger.get("score", ["k"])["k"]["y"][1]) == -1
    assert ledger.get("generate", ["k"]) == {}, "kinds are apart"
    ledger.put("score", {"k": {"x": 1}})
    assert ledger.get("score", ["k"]) == {"k": {"x": 1}}


def test_more_keys_than_a_statement_takes(ledger: Ledger) -> None:
    rows = {f"k{i}": {"i": i} for i in range(3 * store.CHUNK + 1)}
    ledger.put("x", rows)
    assert ledger.get("x", rows) == rows


def test_a_batch_is_kept_whole_or_not_at_all(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        ledger.put("x", {"a": {"v": 1}, "b": {"v": object()}})
    assert ledger.get("x", ["a", "b"]) == {}
    ledger.put("x", {"a": {"v": 2}})
    with Ledger.open(tmp_path) as again:
        assert again.get("x", ["a"]) == {"a": {"v": 2}}


WRITER = """
import sys
from pathlib import Path
from alignbench.ledger import Ledger
with Ledger.open(Path(sys.argv[1])) as ledger:
    for batch in range(10**6):
        ledger.claim("x", [f"{batch + 1}-{row}" for row in range(20)])
        ledger.put("x", {f"{batch}-{row}": {"text": "t" * 2000} for row in range(20)})
        print(batch, flush=True)
"""


def test_kill_9_in_the_middle_of_writes(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    said += [int(line) for line in process.stdout]
    assert process.wait() == -signal.SIGKILL
    last = said[-1]
    with Ledger.open(tmp_path) as ledger:
        for batch in range(last + 1):
            assert len(ledger.get("x", [f"{batch}-{row}" for row in range(20)])) == 20
        rest = {f"{last + 1}-{row}" for row in range(20)}
        held = ledger.get("x", rest)
        assert len(held) in (0, 20), "a batch is one transaction"
        # the dead process's claims do not stand in the way
        assert ledger.claim("x", rest) == rest - held.keys()


def test_claims_are_for_one_process_until_put_or_given_back(tmp_path: Path) -> None:
    sleeper = "import sys; from pathlib import Path; from alignbench.ledger import Ledger\n"
    sleeper += "l = Ledger.open(Path(sys.argv[1])); l.claim('x', ['a', 'b']); print('ready', flush=True)\n"
    sleeper += (
        "sys.stdin.readline(); l.put('x', {'a': {}}); l.release('x', ['b']); print('done', flush=True)\n"
    )
    sleeper += "sys.stdin.readline()"
    process = subprocess.Popen(
        [sys.executable, "-c", sleeper, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        with Ledger.open(tmp_path) as ledger:
            assert ledger.claim("x", ["a", "b", "c"]) == {"c"}
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            assert ledger.claim("x", ["a", "b"]) == {"b"}, "a is held, b was given back"
    finally:
        process.kill()
        process.wait()


def test_a_claim_of_another_machine_expires(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.owner = "another-host 1 x"
    assert ledger.claim("x", ["a"]) == {"a"}
    ledger.owner = f"{os.uname().nodename} {os.getpid()} y"
    assert ledger.claim("x", ["a"]) == set()
    now = time.time()
    monkeypatch.setattr(store.time, "time", lambda: now + store.CLAIM_SECONDS + 1)
    assert ledger.claim("x", ["a"]) == {"a"}


def test_two_writers_at_once(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from alignbench.ledger import Ledger\n"
    code += "with Ledger.open(Path(sys.argv[1])) as l:\n"
    code += "    [l.put('x', {f'{sys.argv[2]}-{i}': {'i': i}}) for i in range(100)]"
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    with Ledger.open(tmp_path) as ledger:
        assert len(ledger.get("x", [f"{name}-{i}" for name in "ab" for i in range(100)])) == 200


class Contended:
    """A connection whose switch to WAL is refused ``n`` times, as SQLite does without waiting where another
    process makes the same ledger at this moment."""

    def __init__(self, n: int, code: int = sqlite3.SQLITE_BUSY) -> None:
        self.refusals, self.code, self.asked = n, code, 0

    def execute(self, statement: str) -> None:
        assert statement == "PRAGMA journal_mode = WAL"
        self.asked += 1
        if self.asked <= self.refusals:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = self.code
            raise error


def test_the_switch_to_wal_is_tried_until_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Contended(3)
    store._write_ahead(connection)  # type: ignore[arg-type]
    assert connection.asked == 4
    with pytest.raises(sqlite3.OperationalError):
        store._write_ahead(Contended(1, sqlite3.SQLITE_READONLY))  # type: ignore[arg-type]
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.05)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store._write_ahead(Contended(10_000))  # type: ignore[arg-type]


def test_the_default_workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALIGNBENCH_HOME", str(tmp_path / "home"))
    with Ledger.open() as ledger:
        assert ledger.path == tmp_path / "home" / "ledger.sqlite3"


# ---- refused


def test_a_workspace_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be made \(Not a directory\); name another folder"):
        Ledger.open(tmp_path / "file" / "w")
    with pytest.raises(UsageError, match="cannot be made"):
        Ledger.open(Path("/proc/nowhere"))


def test_a_workspace_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    if os.geteuid() == 0:  # root may write anywhere: let the check answer as it would for a user
        monkeypatch.setattr(store.os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="not writable"):
        Ledger.open(tmp_path)
    tmp_path.chmod(0o700)


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / store.FILE).write_bytes(b"not a database " * 100)
    with pytest.raises(UsageError, match="damaged"):
        Ledger.open(tmp_path)


def test_a_ledger_of_another_version(tmp_path: Path) -> None:
    Ledger.open(tmp_path).close()
    with sqlite3.connect(tmp_path / store.FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="version 99, and this alignbench reads version 1"):
        Ledger.open(tmp_path)


def test_damage_that_shows_later(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.put("x", {f"k{i}": {"t": "t" * 3000} for i in range(50)})
    data = (tmp_path / store.FILE).read_bytes()
    (tmp_path / store.FILE).write_bytes(data[:4096] + os.urandom(len(data) - 4096))
    with pytest.raises((WorkError, UsageError), match="damaged"), Ledger.open(tmp_path) as ledger:
        ledger.get("x", [f"k{i}" for i in range(50)])


@pytest.mark.parametrize(("kind", "found"), [("nfs4", "nfs4"), ("fuse.sshfs", "fuse.sshfs"), ("ext4", None)])
def test_network_file_systems(kind: str, found: str | None, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    place = tmp_path / "a b"
    (place / "deep").mkdir(parents=True)
    escaped = str(place).replace(" ", "\\040")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {escaped} {kind} rw 0 0\nodd line\n")
    assert network_filesystem(place / "deep", mounts) == found
    assert network_filesystem(tmp_path, mounts) is None
    assert network_filesystem(place, tmp_path / "none") is None


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "network_filesystem", lambda _: "nfs4")
    with pytest.raises(UsageError, match=r"network file system \(nfs4\)"):
        Ledger.open(tmp_path)
