"""The page in a real browser, with the network off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Any]:
    """Opens the report at a width, in a colour scheme; at the end nothing may have been complained of."""
    contexts, problems, asked = [], [], []

    def open_page(width: int = 1280, scheme: str = "light", javascript: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            offline=True,
            java_script_enabled=javascript,
        )
        contexts.append(context)
        context.set_default_timeout(120_000)  # a busy machine is not a broken page
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{folder / 'report.html'}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
    assert [url for url in asked if not url.endswith("report.html")] == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (768, "light"), (390, "dark"), (360, "light")])
def test_no_sideways_scroll(opened: Any, width: int, scheme: str) -> None:
    page = opened(width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_text_is_text(opened: Any) -> None:
    page = opened()
    assert "owned" not in page.title()
    assert page.locator("img").count() == 0
    assert page.locator("#samples .text", has_text="</script>").count() > 0


PLACES = """(selector) => [...document.querySelectorAll(selector)].flatMap((plot) => {
    const frame = plot.getBoundingClientRect();
    return [...plot.querySelectorAll('use')].map((mark) => {
        const box = mark.getBoundingClientRect();
        const at = 100 * ((box.left + box.right) / 2 - frame.left) / frame.width;
        return [at, parseFloat(mark.getAttribute('x')), box.width];
    });
})"""


@pytest.mark.parametrize(
    ("selector", "count"),
    [
        ("#gain .row:nth-child(2) td.plot svg", 32),
        ("#ladder td.plot svg", 8),
        ("#ppo-gold-over-kl .frame > svg", 80),
    ],
)
def test_marks_are_drawn_where_their_numbers_say(opened: Any, selector: str, count: int) -> None:
    places = opened().evaluate(PLACES, selector)
    assert len(places) == count
    for measured, stated, width in places:
        assert measured == pytest.approx(stated, abs=0.4)
        assert width > 3


def test_theme_toggle(opened: Any) -> None:
    page = opened()
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.click("button.theme")
    dark = page.evaluate(background)
    assert light != dark
    page.click("button.theme")
    assert page.evaluate(background) == light


def test_charts_become_zoomable_offline(opened: Any) -> None:
    page = opened()
    assert page.locator("#training polyline.curve").count() > 6
    page.click("#explore")
    page.wait_for_selector(".plotly-box .main-svg", timeout=60_000)
    assert page.locator("#training .plotly-box").count() == page.locator("#training .chart").count()
    page.click("button.theme")  # drawn again in the other colours
    assert page.locator("#training .plotly-box .main-svg").count() > 0


def test_samples_are_found_and_chosen(opened: Any) -> None:
    page = opened()
    assert page.locator(".card:visible").count() == 12
    page.select_option("#pick-why", "random")
    assert page.locator(".card:visible").count() == 6
    page.select_option("#pick-why", "")
    page.fill("#find", "no such words anywhere")
    assert page.locator(".card:visible").count() == 0
    assert page.inner_text("#found") == "0 shown"


def test_task_table_sorts_and_unfolds(opened: Any) -> None:
    page = opened()
    rows = page.locator("#task-table tbody tr:visible")
    assert rows.count() == 20
    page.check("#all-metrics")
    assert rows.count() == 27
    page.uncheck("#all-metrics")
    column = page.locator("#task-table thead th", has_text="ppo-ptx")
    column.locator("button").click()
    assert column.get_attribute("aria-sort") == "descending"
    values = page.eval_on_selector_all(
        "#task-table tbody tr:not(.other)", "rows => rows.map(r => r.cells[5].dataset.v)"
    )
    known = [float(value) for value in values if value]
    assert known == sorted(known, reverse=True)
    assert values[-1] == ""  # unknown comes last


def test_one_policy_can_be_shown_alone_by_keyboard(opened: Any) -> None:
    page = opened()
    page.focus('.legend button[data-policy="ppo"]')
    page.keyboard.press("Enter")
    assert page.locator('#gain .lane[data-p="sft"].dim').count() > 0
    assert page.locator('#gain .lane[data-p="ppo"].dim').count() == 0


def test_readable_without_javascript(opened: Any) -> None:
    page = opened(javascript=False)
    assert page.locator("#gain td.plot use").count() >= 76
    assert page.locator(".card:visible").count() == 12
    assert not page.locator("#explore").is_visible()
