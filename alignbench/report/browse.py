"""``alignbench browse``: runs, their reports, samples and training curves; on loopback, read only.

Every address is looked up in what a scan of the folder found, so no request can name a file of its own
choosing; the Host header must name this machine (a page elsewhere cannot reach it by a name of its own).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from markupsafe import Markup

from alignbench.compare.lineage import training_curves
from alignbench.compare.results import Comparison
from alignbench.errors import AlignbenchError, UsageError
from alignbench.report import curves, overview, page, pages
from alignbench.report.catalogue import (
    NEWEST,
    RUN_COLUMNS,
    TRAINING_COLUMNS,
    Catalogue,
    Column,
    arrange,
)
from alignbench.report.entries import RunEntry, TrainingEntry, Unread
from alignbench.report.run import Run, read_run

PORT = 8765
TRIED = 20
"""Ports after ``PORT`` that are tried where nobody asked for one."""
NAMES = ("127.0.0.1", "localhost", "[::1]")
"""Host names that are answered, with any port: the other end of a tunnel may have another one."""
MOST = 100
"""Rows of one kind on a page of the index."""
SANDBOX = (
    "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox; default-src 'none'; "
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A report is a file that somebody else may have written: its scripts run, but reach no other page."""


class Server(ThreadingHTTPServer):
    """The server of one folder."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, catalogue: Catalogue, port: int) -> None:
        self.catalogue = catalogue
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is nothing to speak of."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"browse: unexpected {type(error).__name__}: {error}", file=sys.stderr)


def open_catalogue(root: Path) -> Catalogue:
    """What lies below ``root``.

    Raises:
        UsageError: no such folder.
    """
    if not root.is_dir():
        raise UsageError(
            f"no folder {root}: name one that holds runs; alignbench quickstart makes reports/quickstart"
        )
    return Catalogue(root)


def open_server(root: Path, port: int | None = None) -> Server:
    """A server for the runs below ``root`` that is bound but not started; a context manager.

    Args:
        port: 0 any free one; None: ``PORT``, or the next of the ``TRIED`` after it that is free.

    Raises:
        UsageError: no such folder, or no port can be had.
    """
    catalogue = open_catalogue(root)
    reason = ""
    for number in range(PORT, PORT + TRIED + 1) if port is None else (port,):
        try:
            return Server(catalogue, number)
        except OSError as error:
            reason = error.strerror or str(error)
    asked = f"port {port}" if port is not None else f"every port from {PORT} to {PORT + TRIED}"
    raise UsageError(f"{asked} is refused ({reason}); choose another with --port")


class Handler(BaseHTTPRequestHandler):
    """GET alone; anything else is refused."""

    server: Server
    server_version = "alignbench"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        name = self.headers.get("Host", "").lower()
        if name.rpartition(":")[0] not in NAMES and name not in NAMES:
            self._send(
                HTTPStatus.MISDIRECTED_REQUEST, "this server answers to 127.0.0.1 and localhost alone\n"
            )
            return
        address = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(address.query).items()}
        try:
            self._answer(unquote(address.path), query)
        except AlignbenchError as error:
            self._sorry(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def _refuse(self) -> None:
        self._send(
            HTTPStatus.METHOD_NOT_ALLOWED, "this server only reads\n", {"Allow": "GET", "Connection": "close"}
        )
        self.close_connection = True

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = _refuse

    def _answer(self, path: str, query: dict[str, str]) -> None:
        if path == "/":
            self._html(index(self.server.catalogue, query))
            return
        if path == "/favicon.ico":
            self._send(HTTPStatus.OK, page.asset("icon.svg"), {"Content-Type": "image/svg+xml"})
            return
        _, view, key = (*path.split("/", 2), "")[:3]
        entry = self.server.catalogue.find(key.rstrip("/") or ".")
        if view == "report" and isinstance(entry, RunEntry):
            self._html(report(entry), {"Content-Security-Policy": SANDBOX})
        elif view == "samples" and isinstance(entry, RunEntry):
            self._html(samples(entry, query))
        elif view == "training" and isinstance(entry, TrainingEntry):
            self._html(training(entry, self.server.catalogue))
        else:
            reason = entry.error if isinstance(entry, Unread) else "There is no such page."
            self._sorry(HTTPStatus.NOT_FOUND, reason)

    def _sorry(self, status: HTTPStatus, reason: str) -> None:
        self._html(_template("browse_error.html", reason=reason), status=status)

    def _html(
        self, text: str, headers: dict[str, str] | None = None, status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self._send(status, text, {"Content-Type": "text/html; charset=utf-8"} | (headers or {}))

    def _send(self, status: HTTPStatus, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        common = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Content-Security-Policy": "frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for key, value in (common | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests that went well."""


def listing(catalogue: Catalogue) -> dict[str, Any]:
    """The index for a script: ``{root, runs, training, unreadable}``, the newest first; numbers as in
    ``results.json``, unknown null."""
    entries = catalogue.scan()
    runs = arrange([e for e in entries if isinstance(e, RunEntry)], RUN_COLUMNS, NEWEST)
    trained = arrange([e for e in entries if isinstance(e, TrainingEntry)], TRAINING_COLUMNS, NEWEST)
    return {
        "root": str(catalogue.root),
        "runs": [entry.as_json() for entry in runs],
        "training": [entry.as_json() for entry in trained],
        "unreadable": [{"path": e.key, "error": e.error} for e in entries if isinstance(e, Unread)],
    }


def index(catalogue: Catalogue, query: dict[str, str]) -> str:
    """The list of runs; ``q`` holds words to find in any order, ``sort`` a column (``-`` before it: falling),
    ``page`` counts from 1."""
    words = query.get("q", "").lower().split()
    everything = catalogue.scan()
    entries = [entry for entry in everything if all(word in entry.words for word in words)]
    sort = query.get("sort", NEWEST)
    runs = arrange([e for e in entries if isinstance(e, RunEntry)], RUN_COLUMNS, sort)
    trained = arrange([e for e in entries if isinstance(e, TrainingEntry)], TRAINING_COLUMNS, sort)
    number = query.get("page", "")
    count = max(1, -(-max(len(runs), len(trained)) // MOST))
    at = min(count, max(1, int(number) if number.isdecimal() and len(number) < 10 else 1))

    def address(**changes: Any) -> str:
        held = {"q": query.get("q", ""), "sort": query.get("sort", ""), "page": at} | changes
        return "/?" + urlencode({key: value for key, value in held.items() if value not in ("", 1)})

    return _template(
        "browse_index.html",
        root=catalogue.root,
        everything=everything,
        query=query.get("q", ""),
        sort=sort,
        runs=runs[(at - 1) * MOST : at * MOST],
        run_total=len(runs),
        run_heads=_heads(RUN_COLUMNS, sort),
        trained=trained[(at - 1) * MOST : at * MOST],
        trained_total=len(trained),
        training_heads=_heads(TRAINING_COLUMNS, sort),
        unread=[entry for entry in entries if isinstance(entry, Unread)],
        address=address,
        at=at,
        count=count,
    )


def _heads(columns: Sequence[Column], sort: str) -> list[tuple[str, str, str]]:
    """(title, state for ``aria-sort``, what a click asks for) of each column."""
    known = sort.removeprefix("-") in {column.key for column in columns}
    now = sort if known else NEWEST
    heads = []
    for column in columns:
        rises, falls = column.key, f"-{column.key}"
        state = "ascending" if now == rises else "descending" if now == falls else ""
        first = falls if column.falls else rises
        other = rises if now == falls else falls
        heads.append((column.title, state, other if state else first))
    return heads


def report(entry: RunEntry) -> str:
    """The report as it lies in the folder, or made afresh in memory where there is none; its name in the
    corner leads back to the index, and its bar to all samples."""
    path = entry.folder / page.FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else page.render(read_run(entry.folder))
    ways = '<a class="brand" href="/">‹ Runs</a>'
    every = f'<a href="/samples/{quote(entry.key)}">Every sample</a>'
    text = text.replace('<a class="brand" href="#verdict">alignbench</a>', ways, 1)
    return text.replace(
        '<a href="#provenance">Provenance</a>', f'<a href="#provenance">Provenance</a>{every}', 1
    )


def samples(entry: RunEntry, query: dict[str, str]) -> str:
    """One page of documents with the policies' outputs; see :class:`alignbench.report.pages.Ask`."""
    run, ask = read_run(entry.folder), pages.Ask.read(query)
    return _template(
        "browse_samples.html",
        entry=entry,
        run=run,
        ask=ask,
        held=pages.read_page(run, ask),
        choices=pages.choices(run, ask),
    )


def training(entry: TrainingEntry, catalogue: Catalogue) -> str:
    """The curves of one training run and what its run.json says."""
    name = entry.folder.name
    curve = training_curves(name, entry.folder)
    results = Comparison([], [], [], [], [], "", training=[curve] if curve else [])
    run = Run(entry.folder, results, {})
    record = entry.record
    config = record.get("config")
    return _template(
        "browse_training.html",
        entry=entry,
        stages=curves.stages(run),
        config=overview.flat(config) if isinstance(config, dict) else [],
        parents=_parents(record, catalogue),
        told=[(key, overview.show(record[key])) for key in TOLD if record.get(key) is not None],
    )


TOLD = ("started", "finished", "world", "n_train", "n_eval", "n_prompts", "selected_by", "selected_step")


def _parents(record: dict[str, Any], catalogue: Catalogue) -> list[tuple[str, str, str | None]]:
    """(role, path, key where it is a training run below the root)."""
    held = record.get("parents")
    rows: list[tuple[str, str, str | None]] = []
    for role, named in (held if isinstance(held, dict) else {}).items():
        if isinstance(named, str):
            path = Path(named).resolve()
            inside = path.is_relative_to(catalogue.root)
            key = path.relative_to(catalogue.root).as_posix() if inside else None
            found = isinstance(catalogue.find(key), TrainingEntry) if key else False
            rows.append((role, named, key if found else None))
    return rows


def _template(name: str, **values: Any) -> str:
    scripts = [page.asset("theme.js"), page.asset("browse.js")]
    policy = page.content_policy([page.sha256(script) for script in scripts])
    template = page.environment().get_template(name)
    return template.render(
        **values,
        content_policy=policy.replace("form-action 'none'", "form-action 'self'"),
        theme=Markup(scripts[0]),
        script=Markup(scripts[1]),
        style=Markup(page.asset("report.css") + page.asset("browse.css")),
        quote=quote,
    )
