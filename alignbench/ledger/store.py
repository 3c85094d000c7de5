"""One SQLite file that keeps every generation and judgement, shared by all runs on this machine.

WAL mode: readers never wait, writers queue for the one write lock. A batch of rows is one transaction, synced
to the disk, so what was put is there after ``kill -9``. WAL needs memory that all its processes share, which
a network file system does not give, so there the ledger is refused.

A claim says that a process is computing a key, so that another waits for it instead of paying twice. It ends
with the put, with its process, or ``CLAIM_SECONDS`` after its owner last put anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from alignbench.errors import UsageError, WorkError
from alignbench.ledger.filesystem import network_filesystem
from alignbench.workspace import default_workspace

FILE = "ledger.sqlite3"
SCHEMA = 1
BUSY_SECONDS = 60.0
CLAIM_SECONDS = 1800.0
CHUNK = 500
"""Keys in one statement; SQLite's limit on variables is 999 in old builds."""

TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    kind TEXT NOT NULL, key TEXT NOT NULL, payload TEXT NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    kind TEXT NOT NULL, key TEXT NOT NULL, owner TEXT NOT NULL, expires REAL NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
"""


def content_key(**parts: Any) -> str:
    """SHA-256 (hex) of the parts' canonical JSON: the same content gives the same key in every process.

    Raises:
        TypeError: a part is not JSON-able.
        ValueError: a part holds NaN or infinity.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a ledger key")


def ledger_path(workspace: Path | None = None) -> Path:
    """Where a workspace's ledger is, or would be; ``ALIGNBENCH_HOME`` or the user's cache by default."""
    return (workspace or default_workspace()).expanduser() / FILE


class Ledger:
    """The open ledger of a workspace. A context manager; use one instance in one thread.

    ``kind`` separates what is kept (``generate``, ``score``, ``preference`` …); ``key`` is a ``content_key``;
    a payload is a JSON object, whose floats come back exactly.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.owner = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
        self._connection = connection

    @classmethod
    def open(cls, workspace: Path | None = None) -> Self:
        """Open the workspace's ledger, or make it.

        Args:
            workspace: a folder; ``ALIGNBENCH_HOME`` or the user's cache folder by default.

        Raises:
            UsageError: the folder cannot be written to or lies on a network file system, or its ledger is
                damaged or of another version.
        """
        path = ledger_path(workspace)
        folder = path.parent
        mend = "name another folder with --workspace or ALIGNBENCH_HOME"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"workspace {folder} cannot be made ({error.strerror}); {mend}") from error
        network = network_filesystem(folder)
        if network:
            raise UsageError(
                f"workspace {folder} is on a network file system ({network}), which can lose data; {mend}"
            )
        if not os.access(folder, os.W_OK):
            raise UsageError(f"workspace {folder} is not writable; {mend}")
        try:
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            version = _prepare(connection)
        except sqlite3.OperationalError as error:
            raise UsageError(f"ledger {path} cannot be opened ({error}); {mend}") from error
        except sqlite3.DatabaseError as error:
            raise UsageError(f"ledger {path} is damaged ({error}); move it away, or {mend}") from error
        if version != SCHEMA:
            connection.close()
            raise UsageError(
                f"ledger {path} has version {version}, and this alignbench reads version {SCHEMA}; {mend}"
            )
        return cls(path, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of this process's claims and of the file."""
        with suppress(sqlite3.Error):  # claims also end with the process, or expire
            self._connection.execute("DELETE FROM claims WHERE owner = ?", (self.owner,))
        self._connection.close()

    def get(self, kind: str, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The payloads that are held, by key."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, dict[str, Any]] = {}
        with self._told():
            for part in _chunks(wanted):
                rows = self._connection.execute(
                    f"SELECT key, payload FROM answers WHERE kind = ? AND key IN ({_marks(part)})",
                    (kind, *part),
                )
                found.update((key, json.loads(payload)) for key, payload in rows)
        return found

    def put(self, kind: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep payloads by key, in one transaction; a key's older payload is replaced. Their claims end, and
        the other claims of this process are renewed."""
        texts = [(kind, key, json.dumps(payload, separators=(",", ":"))) for key, payload in rows.items()]
        with self._told(), self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", texts)
            self._connection.executemany(
                "DELETE FROM claims WHERE kind = ? AND key = ?", [(kind, key) for key in rows]
            )
            self._connection.execute(
                "UPDATE claims SET expires = ? WHERE owner = ?", (time.time() + CLAIM_SECONDS, self.owner)
            )

    def claim(self, kind: str, keys: Iterable[str]) -> set[str]:
        """Claim the keys that are neither held nor claimed by another living process; returns those won."""
        won: list[str] = []
        with self._told(), self._transaction():
            for part in _chunks(list(dict.fromkeys(keys))):
                where = f"WHERE kind = ? AND key IN ({_marks(part)})"
                held = self._connection.execute(f"SELECT key FROM answers {where}", (kind, *part))
                taken = {key for (key,) in held}
                claims = self._connection.execute(
                    f"SELECT key, owner, expires FROM claims {where}", (kind, *part)
                )
                taken.update(key for key, owner, expires in claims if self._stands(owner, expires))
                won.extend(key for key in part if key not in taken)
            expires = time.time() + CLAIM_SECONDS
            self._connection.executemany(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)",
                [(kind, key, self.owner, expires) for key in won],
            )
        return set(won)

    def release(self, kind: str, keys: Iterable[str]) -> None:
        """End this process's claims on the keys."""
        with self._told(), self._transaction():
            self._connection.executemany(
                "DELETE FROM claims WHERE kind = ? AND key = ? AND owner = ?",
                [(kind, key, self.owner) for key in keys],
            )

    def _stands(self, owner: str, expires: float) -> bool:
        """Whether another process's claim holds: not expired, and its process lives as far as can be seen."""
        if owner == self.owner or expires < time.time():
            return False
        host, pid, _ = owner.rsplit(" ", 2)
        if host != socket.gethostname() or os.name != "posix":
            return True
        if int(pid) == os.getpid():
            return False  # an earlier ledger of this very process, or of a dead one whose number we got
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors as one sentence."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise WorkError(
                f"ledger {self.path}: {error}; free the disk or end the process that holds it"
            ) from error
        except sqlite3.DatabaseError as error:
            raise WorkError(f"ledger {self.path} is damaged ({error}); move it away and run again") from error


def _prepare(connection: sqlite3.Connection) -> int:
    """Make the tables of a new ledger; returns the version of the ledger's schema."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        _write_ahead(connection)
        connection.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, TABLES.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
        version = SCHEMA
    connection.execute("PRAGMA synchronous = FULL")
    return int(version)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait here as it does elsewhere where another process makes the same
    ledger at this moment, so we do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    for i in range(0, len(keys), CHUNK):
        yield keys[i : i + CHUNK]


def _marks(part: list[str]) -> str:
    return ",".join("?" * len(part))
