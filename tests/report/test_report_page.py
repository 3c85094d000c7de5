"""The file: self-contained, well formed, safe with hostile text; with less in the folder it still stands."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from alignbench.errors import UsageError
from alignbench.report import build
from alignbench.report.page import sha256

VOID = {"wbr", "meta", "link", "br", "input", "img", "hr"}


class Reader(HTMLParser):
    """Checks that elements nest, and collects what is of interest."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        held = {key: value or "" for key, value in attrs}
        self.attributes += held.items()
        if "id" in held:
            self.ids.append(held["id"])
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "script":
            self.script = held.get("id", f"inline{len(self.scripts)}")
            self.scripts[self.script] = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "script":
            self.scripts[self.script] += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.stack == []
    return reader


def shown(html: str) -> str:
    """The page without its scripts and styles."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.S)


def edit(folder: Path, to: Path, **fields: Any) -> Path:
    to.mkdir()
    for name in ("results.json", "run.json", "samples.parquet", "preferences.parquet"):
        shutil.copy(folder / name, to)
    data = json.loads((to / "results.json").read_text())
    (to / "results.json").write_text(json.dumps(data | fields))
    return to


def test_elements_nest_and_ids_are_unique(html: str) -> None:
    reader = read(html)
    assert len(reader.ids) == len(set(reader.ids))
    order = [name for name in reader.ids if name in ("verdict", "gain", "ladder", "tax", "training", "tasks")]
    assert order == ["verdict", "gain", "ladder", "tax", "training", "tasks"]
    targets = {value[1:] for key, value in reader.attributes if key == "href"}
    assert targets <= set(reader.ids)


def test_size_and_self_containment(folder: Path, html: str) -> None:
    assert (folder / "report.html").stat().st_size < 4_000_000
    reader = read(html)
    assert not {"img", "iframe", "object", "embed", "link", "base", "form"} & set(reader.tags)
    assert not any(key in ("src", "action", "srcset") or key.startswith("on") for key, _ in reader.attributes)
    assert "http://" not in shown(html)
    assert "https://" not in shown(html)
    assert "url(" not in html[: html.index("</style>")]


def test_only_our_scripts_may_run(html: str) -> None:
    reader = read(html)
    policy = next(value for _, value in reader.attributes if value.startswith("default-src 'none'"))
    inline = [body for name, body in reader.scripts.items() if name.startswith("inline")]
    packed = base64.b64decode(reader.scripts["plotly-packed"])
    plotly = gzip.decompress(packed).decode()
    assert "unsafe" not in policy.split("style-src")[0]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert sorted(allowed) == sorted(sha256(body) for body in [*inline, plotly])
    assert "plotly.js" in plotly[:200]


def test_hostile_output_stays_text(html: str) -> None:
    assert "<img" not in html
    assert "&lt;/script&gt;&lt;img src=x onerror=" in html
    assert "\u202e" not in html
    assert "\x00" not in html
    assert "U+202E" in html


def test_no_nan_and_every_verdict_word(html: str) -> None:
    page = shown(html)
    assert not re.search(r"\b(nan|NaN|inf|Infinity|None|undefined)\b", page)
    for word in (
        "better",
        "worse",
        "equivalent",
        "inconclusive",
        "all 90 missing",
        "no data",
        "4 missing",
        "7 unparsed",
    ):
        assert word in page


def test_curve_data_is_json(html: str) -> None:
    charts = json.loads(read(html).scripts["curve-data"])
    assert {chart["id"] for chart in charts} <= set(read(html).ids)
    assert all(len(line["x"]) == len(line["y"]) for chart in charts for line in chart["lines"])


def test_building_twice_gives_the_same_bytes(folder: Path, html: str, tmp_path: Path) -> None:
    copy = edit(folder, tmp_path / "copy")
    assert build(copy).read_text(encoding="utf-8") == html


def test_hostile_names_everywhere(folder: Path, tmp_path: Path) -> None:
    evil = '</script><script>alert(1)</script>" onload="x'
    text = (folder / "results.json").read_text().replace('"ppo-ptx"', json.dumps(evil))
    data = json.loads(text)
    fields = {"verdict": f"{evil} \ud800 [1, 2]", "failures": [{"policy": evil, "task": None, "error": evil}]}
    html = build(edit(folder, tmp_path / "evil", **(data | fields))).read_text(encoding="utf-8")
    reader = read(html)
    assert len(reader.scripts) == 4
    assert "alert(1)" in shown(html)
    assert not any(key.startswith("on") for key, _ in reader.attributes)
    assert "Part of the work failed" in html


def test_one_policy_without_judge_training_or_samples(folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "results.json").read_text())
    bare = edit(
        folder,
        tmp_path / "bare",
        kind="eval",
        policies=data["policies"][:1],
        deltas=[],
        win_rates=[],
        tax=[],
        judges=[],
        training=[],
        reference=None,
        win_reference=None,
    )
    for name in ("run.json", "samples.parquet", "preferences.parquet"):
        (bare / name).unlink()
    html = build(bare).read_text(encoding="utf-8")
    reader = read(html)
    assert not {"gain", "ladder", "tax", "training"} & set(reader.ids)
    assert "no <code>samples.parquet</code>" in html
    assert len(html) < 200_000  # nothing to zoom into, so no plotly
    assert "Evaluation of 1 policy" in html


def test_two_policies_without_a_judge_says_so(folder: Path, tmp_path: Path) -> None:
    html = build(edit(folder, tmp_path / "unjudged", win_rates=[], judges=[])).read_text(encoding="utf-8")
    assert "No judge compared these outputs" in html


def test_no_results_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no results\.json"):
        build(tmp_path)


def test_a_newer_schema_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="update alignbench"):
        build(edit(folder, tmp_path / "newer", schema=2))


def test_the_path_of_the_results_will_do(folder: Path, tmp_path: Path) -> None:
    copy = edit(folder, tmp_path / "copy")
    assert build(copy / "results.json") == copy / "report.html"


@pytest.mark.parametrize("name", ["samples.parquet", "preferences.parquet"])
def test_a_table_that_was_cut_short_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    copy = edit(folder, tmp_path / "cut")
    (copy / name).write_bytes((copy / name).read_bytes()[:500])
    with pytest.raises(UsageError, match=rf"{name} is not a readable Parquet file .* again"):
        build(copy)


def test_a_table_without_a_column_is_named(folder: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    copy = edit(folder, tmp_path / "thin")
    path = copy / "samples.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["prompt"]), path)
    with pytest.raises(UsageError, match=r"samples\.parquet has no column prompt"):
        build(copy)


def test_what_reached_each_policy_is_said(html: str) -> None:
    prompted = (
        "float32 · prefix kind.txt · chat template off (auto) · &lt;s&gt; in front · context 1,024 tokens"
    )
    assert f"<small>{prompted} · prompts cut on the left to fit: pocket_reading 7</small>" in html
    assert "<small>float32 · chat template on (auto) · context 1,024 tokens</small>" in html


def test_tax_names_what_its_mean_leaves_out(folder: Path, tmp_path: Path) -> None:
    tax = json.loads((folder / "results.json").read_text())["tax"]
    tax[0]["left_out"] = ["boolq"]
    html = build(edit(folder, tmp_path / "left", tax=tax)).read_text(encoding="utf-8")
    assert "not in this mean: boolq" in html
