"""The browse server in a real browser: search, sort, page through, side by side; no console message."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet as pq
import pytest

from alignbench.report.browse import open_server

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, a broken one, a training run; one prompt is 20,000 characters without a space."""
    root = tmp_path_factory.mktemp("reports")
    for name, date in (("seed2", "2026-01-05T00:00:00"), ("seed10", "2026-01-01T00:00:00")):
        shutil.copytree(folder, root / name)
        record = json.loads((root / name / "run.json").read_text())
        (root / name / "run.json").write_text(json.dumps(record | {"finished": date}))
    rows = pq.read_table(root / "seed2" / "samples.parquet")
    prompts = ["W" * 20_000 if doc == "crows_pairs-0000" else prompt
               for doc, prompt in zip(rows["doc_id"].to_pylist(), rows["prompt"].to_pylist())]  # fmt: skip
    at = rows.schema.get_field_index("prompt")
    pq.write_table(rows.set_column(at, "prompt", [prompts]), root / "seed2" / "samples.parquet")
    (root / "broken").mkdir()
    (root / "broken" / "results.json").write_text("{")
    (root / "sft").mkdir()
    record = {"kind": "sft", "config": {"model": "m"}, "started": "2026-01-01T00:00:00", "finished": None}
    (root / "sft" / "run.json").write_text(json.dumps(record))
    lines = [json.dumps({"step": i, "loss": 1 / i}) for i in range(1, 60)]
    (root / "sft" / "metrics.jsonl").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with open_server(root, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.address
        server.shutdown()
        thread.join()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    """Opens a page of the server; at the end no console message and no request elsewhere may have come."""
    contexts, problems, asked = [], [], []

    def open_page(path: str, width: int = 1280, scheme: str = "light", javascript: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=javascript
        )
        contexts.append(context)
        context.set_default_timeout(120_000)  # a busy machine is not a broken page
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
    assert [url for url in asked if not url.startswith(address)] == []


def titles(page: Any) -> list[str]:
    return [text.strip() for text in page.locator(".runs .title").all_inner_texts()]


def follow(page: Any, selector: str) -> None:
    """Click, and wait until the next page is whole."""
    with page.expect_navigation():
        page.click(selector)


def state(page: Any) -> dict[str, str]:
    return {key: values[-1] for key, values in parse_qs(urlsplit(page.url).query).items()}


@pytest.mark.parametrize("javascript", [True, False])
def test_search_and_sort(visit: Any, javascript: bool) -> None:
    page = visit("", javascript=javascript)
    assert titles(page) == ["seed2", "seed10"]  # the newest first
    assert page.locator("[aria-sort=descending]").first.inner_text() == "Date"
    follow(page, ".runs thead a:text-is('Date')")
    assert titles(page) == ["seed10", "seed2"]
    follow(page, ".runs thead a:text-is('Run')")
    assert titles(page) == ["seed2", "seed10"]
    follow(page, ".runs thead a:text-is('Run')")
    assert titles(page) == ["seed10", "seed2"]
    page.fill("input[type=search]", "winogender seed10")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert titles(page) == ["seed10"]
    assert state(page)["sort"] == "-name"  # searching keeps the order
    page.fill("input[type=search]", "<img src=x>")
    follow(page, "button:text-is('Find')")
    assert titles(page) == []
    assert page.locator("img").count() == 0


def test_from_the_index_to_a_report_its_samples_and_back(visit: Any) -> None:
    page = visit("")
    follow(page, ".runs .title:text-is('seed2')")
    assert page.locator("#gain").count() == 1
    page.click("button.theme")  # works in the sandbox, where storage is forbidden
    follow(page, "nav a:text-is('Every sample')")
    assert page.locator(".card").count() == 25
    follow(page, "a.brand")
    assert titles(page) == ["seed2", "seed10"]


def test_a_strangers_script_in_a_report_learns_nothing(browser: Any, address: str, root: Path) -> None:
    shutil.copytree(root / "seed10", root / "foreign")
    (root / "foreign" / "report.html").write_text(
        "<script>const end = (word) => () => { document.title = word; };"
        "fetch('/').then((answer) => answer.text()).then(end('read'), end('refused'));</script>"
    )
    page = browser.new_page()
    page.set_default_timeout(120_000)
    try:
        page.goto(address + "report/foreign")
        page.wait_for_function("document.title !== ''")
        assert page.title() == "refused"
        assert page.evaluate("window.origin") == "null"  # no other page, no storage
    finally:
        page.close()
        shutil.rmtree(root / "foreign")


def test_samples_side_by_side(visit: Any) -> None:
    page = visit("samples/seed2")
    with page.expect_navigation():
        page.select_option("[name=task]", "pocket_instructions")
    with page.expect_navigation():
        page.select_option("[name=policy]", "ppo-ptx")
    with page.expect_navigation():
        page.select_option("[name=beside]", "sft")
    with page.expect_navigation():
        page.select_option("[name=show]", "preferred")
    assert state(page) == {
        "task": "pocket_instructions", "policy": "ppo-ptx", "beside": "sft", "show": "preferred"
    }  # fmt: skip
    card = page.locator(".card").first
    assert card.locator(".output .policy").all_inner_texts() == ["ppo-ptx", "sft"]
    for said in page.locator(".card .judged:has-text('gold')").all_inner_texts():
        assert "prefers" in said
        assert "ppo-ptx" in said
    tops = [box["y"] for box in (part.bounding_box() for part in card.locator(".output").all())]
    assert tops[0] == tops[1]  # beside each other, not below
    page.reload()  # the address holds the state
    assert page.input_value("[name=show]") == "preferred"
    follow(page, ".card header a >> nth=0")
    assert page.locator(".card").count() == 1
    assert page.locator(".card .output").count() == 5


def test_pages_by_keyboard(visit: Any) -> None:
    page = visit("samples/seed2?task=pocket_facts")
    first = page.locator(".card code").first.inner_text()
    with page.expect_navigation():
        page.keyboard.press("n")
    assert page.locator(".card code").first.inner_text() != first
    with page.expect_navigation():
        page.keyboard.press("p")
    assert page.locator(".card code").first.inner_text() == first
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate("[...document.querySelectorAll('.card')].indexOf(document.activeElement)") == 1
    page.keyboard.press("/")
    page.keyboard.type("reference book")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert state(page) == {"task": "pocket_facts", "q": "reference book"}


def test_hostile_and_huge_text(visit: Any) -> None:
    page = visit("samples/seed2?q=%3C%2Fscript%3E")
    assert page.locator(".text", has_text="</script>").count() > 0
    assert page.locator(".card img").count() == 0
    assert "owned" not in page.title()
    page = visit("samples/seed2?doc=crows_pairs-0000", width=390)
    assert len(page.locator(".prompt").inner_text()) == 20_000
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".prompt").bounding_box()["height"] < 300


@pytest.mark.parametrize("path", ["", "samples/seed2", "training/sft", "?q=zebra"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light"), (360, "dark")])
def test_no_sideways_scroll(visit: Any, path: str, width: int, scheme: str) -> None:
    page = visit(path, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_training_run_has_its_curve(visit: Any) -> None:
    page = visit("")
    follow(page, ".trained .title")
    assert page.locator("polyline.curve").count() == 1
    assert page.locator(".flag").inner_text().startswith("unfinished")
