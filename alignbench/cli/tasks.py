"""``alignbench tasks``: list, show and check tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

DIRS = click.option(
    "--tasks-dir",
    "tasks_dirs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder of task files of your own; may be given again.",
)
DATA = click.option(
    "--data",
    "mirror",
    type=click.Path(path_type=Path),
    metavar="DIR",
    envvar="ALIGNBENCH_DATA",
    help="Local mirror of data sets, looked up before the hub.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

EPILOG = """\b
Examples:
  alignbench tasks list
  alignbench tasks show truthfulqa_mc1 --data DIR
  alignbench tasks show truthfulqa_mc1 --data DIR --docs --json
  alignbench tasks check my_tasks/
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """List, show and check tasks.

    A task is a YAML file in a folder named after its family: shipped, in a --tasks-dir, or in a package
    with an entry point in the group alignbench.tasks.
    """


@command.command("list")
@DIRS
@JSON
def list_(tasks_dirs: tuple[Path, ...], as_json: bool) -> None:
    """List every task that is found, by family, broken ones marked.

    A name, a family, a suite or a glob can be given to --tasks.

    \b
    Examples:
      alignbench tasks list
      alignbench tasks list --tasks-dir my_tasks --json
    """
    from alignbench.tasks.registry import list_entries

    entries = list_entries(tasks_dirs)
    if as_json:
        _print_json([_row(entry) for entry in entries])
        return
    width = max((len(entry.name) for entry in entries), default=4)
    family = None
    for entry in sorted(entries, key=lambda entry: entry.family):
        if entry.family != family:
            click.echo(entry.family if family is None else f"\n{entry.family}")
            family = entry.family
        area, words = (
            ("broken", entry.problem) if entry.spec is None else (entry.spec.area, entry.spec.description)
        )
        click.echo(f"  {entry.name:{width}}  {area:13}  {words}")


@command.command()
@click.argument("task")
@click.option("--docs", is_flag=True, help="Print the documents with their doc_id.")
@click.option(
    "--policy", metavar="POLICY", help="Show the prompt with this policy's prefix, template and tokens."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of generated documents.")
@DATA
@DIRS
@JSON
def show(
    task: str,
    docs: bool,
    policy: str | None,
    seed: int,
    mirror: Path | None,
    tasks_dirs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Show TASK and one rendered prompt exactly as a model gets it.

    \b
    Examples:
      alignbench tasks show truthfulqa_mc1 --data DIR
      alignbench tasks show pocket_truth --policy runs/sft
      alignbench tasks show prompts:mine.txt --docs
    """
    from alignbench.errors import UsageError
    from alignbench.tasks.registry import find_tasks

    found = find_tasks([task], tasks_dirs=tasks_dirs, mirror=mirror, seed=seed)
    if len(found) > 1:
        raise UsageError(f"{task!r} means {len(found)} tasks; show one of {', '.join(t.name for t in found)}")
    from alignbench.evaluation.show import describe, documents_as_rows, render

    if docs:
        rows = documents_as_rows(found[0])
        if as_json:
            _print_json(rows)
        else:
            for row in rows:
                click.echo(f"{row['doc_id']}\t{' '.join(str(row['prompt']).split())[-100:]}")
        return
    facts = describe(found[0])
    facts["prompt"] = render(found[0], policy)
    if as_json:
        _print_json(facts)
    else:
        _print_facts(facts)


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@DATA
@JSON
def check(path: Path, mirror: Path | None, as_json: bool) -> None:
    """Check a task file, or every one below a folder, and name all problems.

    Documents are loaded and rendered where the data is at hand: generated, beside the task file, or
    in --data.

    \b
    Examples:
      alignbench tasks check my_tasks/
      alignbench tasks check my_tasks/riddles.yaml --data DIR --json
    """
    from alignbench.tasks.check import check_path

    reports = check_path(path, mirror)
    if as_json:
        _print_json(reports)
    else:
        for report in reports:
            click.echo(f"{report['path']}: {report['status']}")
            for problem in report["problems"]:
                click.echo(f"  {problem}")
    if any(report["problems"] for report in reports):
        raise click.exceptions.Exit(2)


def _row(entry: Any) -> dict[str, Any]:
    spec = entry.spec
    return {
        "task": entry.name,
        "family": entry.family,
        "suites": list(entry.suites),
        "area": spec and spec.area,
        "kind": spec and spec.kind,
        "headline": spec and spec.headline,
        "judged": spec and spec.judged,
        "description": spec and spec.description,
        "path": str(entry.path),
        "problem": entry.problem,
    }


def _print_facts(facts: dict[str, Any]) -> None:
    import shutil
    import textwrap

    prompt = facts.pop("prompt")
    shown = {key.replace("_", " "): value for key, value in facts.items() if key != "metrics"}
    shown |= {f"metric {metric['name']}": _metric_words(metric) for metric in facts["metrics"]}
    width = max(60, min(110, shutil.get_terminal_size().columns))
    for key, value in shown.items():
        if value in (None, "", [], {}, False):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{part} {inner!r}" for part, inner in value.items() if inner not in ((), []))
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        text = "yes" if value is True else str(value)
        start, rest = f"{key:22} ", " " * 23
        # a path or a hash is to be copied, so it is not broken
        for line in textwrap.wrap(
            text,
            width,
            initial_indent=start,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        ):
            click.echo(line)
    click.echo(f"\n--- the prompt of document {prompt['doc_id']}, between the bars\n|{prompt['text']}|")
    for text in prompt["continuations"]:
        click.echo(f"--- then\n|{text}|")
    if "token_ids" in prompt:
        click.echo(f"--- as token ids\n{prompt['token_ids']}\n{prompt['tokens']}")


def _metric_words(metric: dict[str, Any]) -> str:
    """A metric's direction and levels, a rate in percent."""
    direction = {True: "higher is better", False: "lower is better", None: "no better direction"}
    words = [] if metric["ideal"] is not None else [direction[metric["higher_is_better"]]]
    for key in ("ideal", "chance", "majority", "margin"):
        if metric[key] is not None:
            rate = metric["unit"] == "rate"
            words.append(f"{key} {metric[key] * 100:.1f} %" if rate else f"{key} {metric[key]:g}")
    if metric["bounds"] not in (None, (0.0, 1.0)):
        words.append(f"from {metric['bounds'][0]:g} to {metric['bounds'][1]:g}")
    return ", ".join(words)


def _print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
