"""Puts the page together: one HTML file with its styles, scripts, data and plotly inside."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from alignbench import __version__
from alignbench.compare.worth import rated
from alignbench.errors import WorkError
from alignbench.report import curves, overview, preference, text
from alignbench.report.forest import AREAS, forest
from alignbench.report.run import Run, read_run, scorer_words
from alignbench.report.samples import side_by_side

FILE = "report.html"


def build(folder: Path) -> Path:
    """Write ``report.html`` into ``folder``, in one step. See :func:`alignbench.report.build`."""
    run = read_run(folder)
    html = render(run)
    path = run.folder / FILE
    part = path.with_suffix(".html.part")
    try:
        part.write_text(html, encoding="utf-8", errors="replace")
        os.replace(part, path)
    except OSError as error:
        raise WorkError(f"{path} cannot be written ({error.strerror})") from None
    return path


def render(run: Run) -> str:
    """The whole page as text."""
    trained = curves.stages(run)
    packed, plotly_hash = plotly_bundle() if trained else ("", "")
    scripts = {name: asset(name) for name in ("theme.js", "report.js")}
    hashes = [sha256(script) for script in scripts.values()] + ([plotly_hash] if trained else [])
    areas, tallies = overview.glance(run)
    seed = run.manifest.get("seed")
    return (
        environment()
        .get_template("report.html")
        .render(
            run=run,
            results=run.results,
            units={(row.task, row.metric): row.unit for row in run.results.tasks},
            glance_tasks=len(run.asked),
            version=__version__,
            policy=content_policy(hashes),
            style=Markup(asset("report.css")),
            theme=Markup(scripts["theme.js"]),
            script=Markup(scripts["report.js"]),
            areas=AREAS,
            glance_areas=areas,
            glance=tallies,
            forest=forest(run),
            ladder=preference.ladder(run),
            worth=preference.worth(run),
            matrices=preference.matrices(run),
            per_task=preference.per_task(run),
            tax=overview.tax(run),
            stages=trained,
            curve_data=text.script_json(curves.plotly_data(trained)),
            plotly=packed,
            task_rows=overview.task_rows(run),
            methods=overview.methods(run),
            provenance=overview.provenance(run),
            sources=overview.sources(run),
            samples=side_by_side(run, seed if isinstance(seed, int) else 0),
        )
    )


def content_policy(hashes: list[str]) -> str:
    """The page may run the scripts with these hashes, and load nothing at all."""
    sources = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def environment() -> jinja2.Environment:
    """Templates with escaping on: what is not marked safe in this package is shown as text."""
    env = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "visible": text.visible,
        "prose": text.prose,
        "breakable": text.breakable,
        "number": text.number,
        "interval": text.interval,
        "p": text.p_value,
        "count": text.count,
    }
    env.globals |= {
        "rated": rated,
        "plural": text.plural,
        "direction": text.direction,
        "axis_tick": text.axis_tick,
        "reaches": overview.reaches,
        "scorer_words": scorer_words,
    }
    return env


def asset(name: str) -> str:
    return files("alignbench.report").joinpath("assets", name).read_text(encoding="utf-8")


def sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def plotly_bundle() -> tuple[str, str]:
    """plotly.min.js of the installed package, gzipped and base64-coded, and the hash that lets it run."""
    source: Any = files("plotly").joinpath("package_data", "plotly.min.js")
    script = source.read_text(encoding="utf-8")
    packed = gzip.compress(script.encode(), 9, mtime=0)
    return base64.b64encode(packed).decode(), sha256(script)
