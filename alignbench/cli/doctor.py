"""``alignbench doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from alignbench.doctor import Diagnosis
    from alignbench.engines.selftest import EngineTest, SelfTest

MARKS = {"ok": "✓", "absent": "–", "broken": "✗"}
EPILOG = """\b
Examples:
  alignbench doctor
  alignbench doctor --no-test
  alignbench doctor --hub --json
"""


@click.command(epilog=EPILOG)
@click.option(
    "--no-test",
    is_flag=True,
    help="Leave out the self-test, which computes for some seconds and, if it is here, starts vLLM.",
)
@click.option(
    "--hub", is_flag=True, help="Ask whether the Hugging Face hub answers; else nothing is contacted."
)
@click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the ledger lies. Default: ALIGNBENCH_HOME, else the user's cache folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(no_test: bool, hub: bool, workspace: Path | None, as_json: bool) -> None:
    """What is installed, which engine will be used, and whether it computes right.

    The self-test scores and generates with the embedded pocket model through every engine that is here, and
    compares log-probabilities and greedy texts with transformers' own. It takes about ten seconds, and where
    vLLM is installed as long again or longer for its start. Status 1: something that is needed does not work.
    """
    from alignbench.doctor import diagnose

    found = diagnose(test=not no_test, ask_hub=hub, workspace=workspace)
    if as_json:
        import json

        click.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _show(found)
    if not found.ready:
        raise click.exceptions.Exit(1)


def _show(found: Diagnosis) -> None:
    tests = found.selftest.engines if found.selftest is not None else ()
    width = max(map(len, [*(each.name for each in found.findings), *(each.name for each in tests)]))
    area = ""
    for finding in found.findings:
        if finding.area != area:
            area = finding.area
            click.echo(area)
        click.echo(f"  {MARKS[finding.state]} {finding.name:{width}}  {finding.value}")
    if found.selftest is not None:
        click.echo(f"self-test ({_took(found.selftest)})")
        for test in tests:
            click.echo(f"  {MARKS[test.state]} {test.name:{width}}  {_words(test)}")
    click.echo(found.verdict)


def _took(test: SelfTest) -> str:
    """Its seconds; the start of vLLM, which may take longer than all the rest, beside them."""
    start = next((each.start_seconds for each in test.engines if each.name == "vllm"), None)
    if start is None:
        return f"{test.seconds:.1f} s"
    return f"{test.seconds - start:.1f} s, and {start:.1f} s until vllm had started"


def _words(test: EngineTest) -> str:
    from alignbench.engines.selftest import ROWS

    words = [test.note] if test.note else []
    if test.state == "ok" and test.difference is not None:
        texts = "same texts" if test.texts == ROWS else f"{test.texts} of {ROWS} texts the same"
        words.append(f"|Δ log-prob| ≤ {test.difference:.1g}, {texts}")
    if test.generated_per_second is not None and test.scored_per_second is not None:
        words.append(
            f"tokens/s: {test.generated_per_second:,.0f} generated, {test.scored_per_second:,.0f} scored"
        )
    return "; ".join(words)
