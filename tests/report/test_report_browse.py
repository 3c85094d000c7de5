"""The server: an index, reports, samples in pages, training runs; nothing else, to nobody else."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from alignbench.errors import UsageError
from alignbench.report import browse
from alignbench.report.browse import Server, listing, open_catalogue, open_server
from alignbench.report.pages import PER_PAGE


@pytest.fixture(scope="module")
def root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reports")
    shutil.copytree(folder, root / "deep" / "full run")
    (root / "broken").mkdir()
    (root / "broken" / "results.json").write_text("{")
    (root / "secret.txt").write_text("secret")
    (root / "outside").symlink_to(folder)
    (root / "leak").mkdir()
    (root / "leak" / "results.json").symlink_to(folder / "results.json")
    shutil.copytree(folder, root / "leaky samples")
    (root / "leaky samples" / "samples.parquet").unlink()
    (root / "leaky samples" / "samples.parquet").symlink_to(folder / "samples.parquet")
    return root


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    with open_server(root, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with serving(root) as server:
        yield server


def ask(server: Server, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=120)
    headers = {"Host": host} if host else {}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_index_lists_and_searches(server: Server) -> None:
    status, body = ask(server, "/")
    assert status == 200
    assert "ppo-ptx is preferred to sft" in body
    assert 'href="/report/deep/full%20run"' in body
    assert "not JSON" in body
    assert "full%20run" in ask(server, "/?q=PREFERRED+crows_pairs+ppo-ptx")[1]  # any order, any field
    assert "No run matches" in ask(server, "/?q=ppo-ptx+zebra")[1]


def test_index_shows_the_best_liked_policy_and_its_tax(server: Server) -> None:
    run = next(run for run in listing(server.catalogue)["runs"] if run["path"] == "deep/full run")
    results = json.loads((server.catalogue.root / "deep/full run/results.json").read_text())
    rates = [
        rate["win_rate"] if rate["b"] == "sft" else 1 - rate["win_rate"]
        for rate in results["win_rates"]
        if rate["task"] is None and rate["judge"] == "gold" and "sft" in (rate["a"], rate["b"])
    ]
    assert run["preferred"]["value"] == pytest.approx(max(rates))
    assert run["preferred"]["about"] == "ppo-ptx over sft by gold, n = 240"
    assert run["tax"]["value"] == next(r for r in results["tax"] if r["policy"] == "ppo-ptx")["mean_gain"]


def test_index_believes_no_judge_that_may_be_a_coin(server: Server) -> None:
    path = server.catalogue.root / "deep/full run/results.json"
    before = path.read_text()

    def preferred(*coins: str) -> dict[str, Any]:
        results = json.loads(before)
        for judge in results["judges"]:
            judge["worth"] = "at_chance" if judge["name"] in coins else "above_chance"
        path.write_text(json.dumps(results))
        run = next(run for run in listing(server.catalogue)["runs"] if run["path"] == "deep/full run")
        return dict(run["preferred"])

    try:
        by_gold, by_rm, by_none = preferred("rm"), preferred("gold"), preferred("gold", "rm")
    finally:
        path.write_text(before)
    assert "by gold, n" in by_gold["about"]
    assert by_gold["verdict"] == "better"
    assert "by rm, n" in by_rm["about"]
    assert "by gold, not shown to beat a coin, n" in by_none["about"]
    assert by_none["verdict"] is None


def test_report_is_the_file_with_ways_out_and_in_a_sandbox(server: Server, html: str) -> None:
    status, body = ask(server, "/report/deep/full%20run")
    assert status == 200
    assert '<a class="brand" href="/">' in body
    assert '<a href="/samples/deep/full%20run">' in body
    assert body[-5000:] == html[-5000:]
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=120)
    connection.request("GET", "/report/deep/full%20run")
    policy = connection.getresponse().headers["Content-Security-Policy"]
    connection.close()
    assert "sandbox" in policy
    assert "allow-same-origin" not in policy


def test_samples_come_in_pages_and_are_filtered(server: Server) -> None:
    status, body = ask(server, "/samples/deep/full%20run?task=crows_pairs&policy=ppo&page=2")
    assert status == 200
    assert body.count('<article class="card"') == PER_PAGE
    assert "page 2 of 4" in body
    assert "90 of 4 " not in body
    _, found = ask(server, "/samples/deep/full%20run?policy=ppo-ptx&q=" + quote("REFERENCE book"))
    assert 'class="output p4"' in found
    assert 'class="output p3"' not in found
    assert "No document matches" in ask(server, "/samples/deep/full%20run?q=zebra")[1]


def test_hostile_filters_are_text(server: Server) -> None:
    hostile = quote("\"><script>alert(1)</script>'")
    for path in (f"/?q={hostile}&sort={hostile}", f"/samples/deep/full%20run?q={hostile}&policy={hostile}"):
        status, body = ask(server, path)
        assert status == 200
        assert "<script>alert" not in body


@pytest.mark.parametrize(
    "path",
    ["/report/../secret.txt", "/report/%2e%2e/secret.txt", "/report/outside", "/secret.txt", "/report/broken",
     "/report//etc/passwd", "/samples/deep/full run/../../outside", "/report/deep", "/samples/", "/report",
     "/report/leak", "/samples/leaky samples", "/report/leaky samples", "/training/deep/full run",
     "/samples/%00", "/nothing"],
)  # fmt: skip
def test_nothing_else_is_served(server: Server, path: str) -> None:
    status, body = ask(server, path.replace(" ", "%20"))
    assert status == 404
    assert "secret" not in body
    assert "ppo-ptx" not in body


def test_another_host_name_is_turned_away(server: Server) -> None:
    assert ask(server, "/", host="evil.example")[0] == 421
    assert ask(server, "/", host=f"evil.example:{server.server_port}")[0] == 421
    assert ask(server, "/", host="localhost.evil.example:80")[0] == 421
    assert ask(server, "/", host="127.0.0.1:localhost:evil.example")[0] == 421
    assert ask(server, "/", host=f"localhost:{server.server_port}")[0] == 200
    assert ask(server, "/", host="localhost:9999")[0] == 200  # the other end of a tunnel
    assert ask(server, "/", host="LOCALHOST")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_get(server: Server, method: str) -> None:
    assert ask(server, "/", method)[0] == 405


def test_bound_to_loopback_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_bad_folder_and_taken_port(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no folder"):
        open_server(tmp_path / "none")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="choose another with --port"):
            open_server(root, port)
        monkeypatch.setattr(browse, "PORT", port)
        with open_server(root) as server:  # nobody asked for that one
            assert port < server.server_port <= port + browse.TRIED


def test_broken_samples_and_absurd_pages_get_an_answer(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "cut")
    path = tmp_path / "cut" / "samples.parquet"
    path.write_bytes(path.read_bytes()[:500])
    shutil.copytree(folder, tmp_path / "whole")
    with serving(tmp_path) as server:
        status, body = ask(server, "/samples/cut")
        assert (status, "not a readable Parquet file" in body) == (500, True)
        for page in ("9" * 5000, "9" * 8, "-1", "two"):
            assert ask(server, f"/samples/whole?page={page}")[0] == 200
            assert ask(server, f"/?page={page}")[0] == 200


def test_empty_folder_says_what_makes_a_run(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert "alignbench quickstart" in ask(server, "/")[1]


def test_training_runs_are_listed_with_curves(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "sft <b>"
    folder.mkdir(parents=True)
    record = {
        "kind": "sft",
        "config": {"model": "pocket", "data": "d.jsonl"},
        "seed": 3,
        "started": "2026-01-02T03:04:05+00:00",
        "finished": None,
        "parents": {"model": "pocket"},
    }
    (folder / "run.json").write_text(json.dumps(record))
    lines = [{"step": i, "loss": 3 / i} for i in range(1, 51)]
    lines.insert(30, {"step": 30, "eval": {"loss": 0.5, "ci": [0.4, 0.6], "n": 15}})
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 51, "lo')
    entry = listing(open_catalogue(tmp_path))["training"][0]
    assert (entry["step"], entry["finished"], entry["seed"]) == (50, False, 3)
    assert entry["measured"]["ci"] == (0.4, 0.6)
    assert entry["measured"]["about"] == "held-out loss, n = 15"
    with serving(tmp_path) as server:
        assert "unfinished" in ask(server, "/")[1]
        status, body = ask(server, "/training/runs/sft%20%3Cb%3E")
        assert status == 200
        assert body.count('class="curve') == 1
        assert "<b>" not in body.partition("<h1")[2].partition("</h1>")[0]
