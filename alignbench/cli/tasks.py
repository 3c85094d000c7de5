"""``alignbench tasks``: list, show, write and check tasks."""

from __future__ import annotations

from collections.abc import Sequence
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
KINDS = ("generate", "multiple_choice", "loglikelihood", "preference")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

EPILOG = """\b
Examples:
  alignbench tasks list
  alignbench tasks show truthfulqa_mc1 --data DIR
  alignbench tasks show truthfulqa_mc1 --data DIR --docs --json
  alignbench tasks new riddles
  alignbench tasks check my_tasks/
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """List, show, write and check tasks.

    A task is a YAML file in a folder named after its family: shipped, in a --tasks-dir, or in a package
    with an entry point in the group alignbench.tasks.
    """


@command.command("list")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("--suites", "only_suites", is_flag=True, help="List the suites instead, with their tasks.")
@DIRS
@JSON
def list_(selectors: tuple[str, ...], only_suites: bool, tasks_dirs: tuple[Path, ...], as_json: bool) -> None:
    """List every task that is found, by family, with its suites; broken ones are marked.

    SELECTOR is what can be given to --tasks: a task, a suite, a family or a glob. Default: all.

    \b
    Examples:
      alignbench tasks list
      alignbench tasks list nlp 'truthfulqa_*'
      alignbench tasks list --suites
      alignbench tasks list --tasks-dir my_tasks --json
    """
    from alignbench.tasks.registry import look, select

    registry = look(tasks_dirs)
    if only_suites:
        rows = [_suite_row(suite, registry) for suite in registry.suites]
        unknown = [name for name in selectors if name not in {row["suite"] for row in rows}]
        if unknown:
            from alignbench.errors import UsageError, nearest

            near = nearest(unknown[0], [row["suite"] for row in rows])
            raise UsageError(f"no suite {unknown[0]!r}{near}; see 'alignbench tasks list --suites'")
        rows = [row for row in rows if not selectors or row["suite"] in selectors]
        if as_json:
            _print_json(rows)
        else:
            _print_suites(rows, with_tasks=True)
        return
    wanted = [part.strip() for name in selectors for part in name.split(",") if part.strip()]
    chosen = {entry.path: entry for name in wanted for entry in select(name, registry)}
    entries = list(chosen.values()) if wanted else registry.entries
    if as_json:
        _print_json([_row(entry) for entry in entries])
        return
    _print_entries(entries)
    if not wanted and registry.suites:
        click.echo("\nSuites (--suites lists their tasks)")
        _print_suites([_suite_row(suite, registry) for suite in registry.suites])


@command.command()
@click.argument("task")
@click.option("--docs", is_flag=True, help="Print the documents with their doc_id.")
@click.option(
    "--policy",
    metavar="POLICY",
    help="Show every request of the document as it reaches this policy: prefix, chat template, token ids "
    "(a server's: its text). Written as for eval.",
)
@click.option("--doc", metavar="DOC_ID", help="The document to show. Default: the first.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of generated documents.")
@DATA
@DIRS
@JSON
def show(
    task: str,
    docs: bool,
    policy: str | None,
    doc: str | None,
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
      alignbench tasks show truthfulqa_mc1 --data DIR --policy gpt2 --doc 00012 --json
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
    from alignbench.judges.scorers import asked_of

    facts = describe(found[0])
    facts["scorers"] = asked_of(found[0])
    facts["prompt"] = render(found[0], policy, doc_id=doc, seed=seed)
    if as_json:
        _print_json(facts)
    else:
        from alignbench.cli.task_facts import print_facts

        print_facts(facts)


@command.command()
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default=KINDS[0],
    show_default=True,
    help="What is asked of a model: a text, one of several choices, the likelihood of a text, or (of a "
    "reward model) which of two answers is better.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("my_tasks"),
    show_default=True,
    metavar="DIR",
    help="The folder to write into; its name is the task's family.",
)
def new(name: str, kind: str, folder: Path) -> None:
    """Write a first task NAME: a commented task file and a few invented rows, which run at once.

    \b
    Examples:
      alignbench tasks new riddles
      alignbench tasks new exam --kind multiple_choice --dir my_tasks
    """
    import shlex

    from alignbench.tasks.starter import write_starter

    path, rows = write_starter(name, kind, folder)
    at, where = shlex.quote(name), shlex.quote(str(folder))
    policy = "REWARD_MODEL" if kind == "preference" else "pocket"
    click.echo(f"{path}\n{rows}\n\nPut your own rows and words in; then")
    click.echo(f"  alignbench tasks check {shlex.quote(str(path))}")
    click.echo(f"  alignbench tasks show {at} --tasks-dir {where}")
    click.echo(f"  alignbench eval {policy} --tasks {at} --tasks-dir {where}")


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@DATA
@JSON
def check(path: Path, mirror: Path | None, as_json: bool) -> None:
    """Check a task or suite file, or every one below a folder, and name all problems.

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


def _print_entries(entries: Sequence[Any]) -> None:
    """One line a task, by family."""
    rows = [
        ("broken", "", entry.problem)
        if entry.spec is None
        else (entry.spec.area, ", ".join(entry.suites), entry.spec.description)
        for entry in entries
    ]
    widths = [max((len(entry.name) for entry in entries), default=0)]
    widths += [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    family = None
    for entry, (area, suites, words) in sorted(zip(entries, rows), key=lambda pair: pair[0].family):
        if entry.family != family:
            click.echo(entry.family if family is None else f"\n{entry.family}")
            family = entry.family
        _line([entry.name, area, suites], widths, words)


def _print_suites(rows: Sequence[dict[str, Any]], with_tasks: bool = False) -> None:
    import textwrap

    counts = [f"{len(row['tasks'])} task{'' if len(row['tasks']) == 1 else 's'}" for row in rows]
    widths = [max(len(row["suite"]) for row in rows), max(map(len, counts))] if rows else []
    for row, count in zip(rows, counts):
        state, words = ("broken", row["problem"]) if row["problem"] else (count, row["description"])
        _line([row["suite"], state], widths, words)
        for line in textwrap.wrap(", ".join(row["tasks"]), 100, break_on_hyphens=False) if with_tasks else ():
            click.echo(f"    {line}")


def _line(cells: Sequence[str], widths: Sequence[int], words: str) -> None:
    """Aligned cells and a sentence, which is cut to fit a terminal (not a pipe or a file)."""
    import shutil
    import sys

    text = "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths)), words])
    width = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and len(text) > width:
        text = text[: width - 1] + "…"
    click.echo(text.rstrip())


def _suite_row(suite: Any, registry: Any) -> dict[str, Any]:
    return {
        "suite": suite.name,
        "description": suite.description,
        "tasks": [entry.name for entry in registry.entries if suite.name in entry.suites],
        "path": str(suite.path),
        "problem": suite.problem,
    }


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


def _print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
