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
    facts = describe(found[0])
    facts["prompt"] = render(found[0], policy, doc_id=doc, seed=seed)
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
    if "requests" in prompt:
        _print_requests(prompt)
        return
    click.echo(f"\n--- the prompt of document {prompt['doc_id']}, between the bars\n|{prompt['text']}|")
    for text in prompt["continuations"]:
        click.echo(f"--- then\n|{text}|")


def _print_requests(prompt: dict[str, Any]) -> None:
    """What reaches the model; a context that several requests have in common is printed once."""
    click.echo(f"\n--- what reaches {prompt['policy']} of document {prompt['doc_id']}")
    if "endpoint" in prompt:
        _print_sent(prompt)
        return
    for key, value in _how(prompt):
        click.echo(f"{key:22} {value}")
    context: list[int] = []
    for number, request in enumerate(prompt["requests"], 1):
        ids, tokens, start = request["token_ids"], request["tokens"], request["start"]
        lost = f", {request['cut']} more are cut on the left" if request["cut"] else ""
        click.echo(f"\n--- {request['kind']} {number} of {len(prompt['requests'])}: {len(ids)} tokens{lost}")
        if ids[:start] == context:
            click.echo(f"the same {start} tokens of context")
        else:
            context = ids[:start]
            click.echo(f"|{_visible(request['text'])}|")
            _print_tokens(tokens[:start], context)
        if start < len(ids):
            click.echo(f"the continuation, from token {start} on:")
            _print_tokens(tokens[start:], ids[start:])


def _print_sent(prompt: dict[str, Any]) -> None:
    """What a server gets: text, as its tokenizer is not here."""
    endpoint = prompt["endpoint"] or "completions where the server has them, else chat"
    rows = [("endpoint", f"{endpoint} (chat_template={prompt['chat_template']})")]
    if prompt["endpoint"] == "chat":
        rows.append(("template", "the server's own: it makes a text of the prompt, which is the user's turn"))
    else:
        rows.append(("BOS", "what the server puts in front of every text"))
    rows += _text_rows(prompt)
    for key, value in rows:
        click.echo(f"{key:22} {value}")
    context = None
    for number, request in enumerate(prompt["requests"], 1):
        text, start = request["text"], request["start"]
        click.echo(f"\n--- {request['kind']} {number} of {len(prompt['requests'])}: {len(text)} characters")
        if text[:start] == context:
            click.echo("the same context")
        else:
            context = text[:start]
            click.echo(f"|{_visible(context)}|")
        if start < len(text):
            click.echo(f"the continuation:\n|{_visible(text[start:])}|")


def _print_tokens(tokens: list[str], ids: list[int]) -> None:
    click.echo(f"tokens: {' '.join(map(_visible, tokens))}\nids: {' '.join(map(str, ids))}")


def _how(prompt: dict[str, Any]) -> list[tuple[str, str]]:
    """How the text and the ids come about, in words."""
    template, front = prompt["chat_template"], prompt["in_front"]
    reason = f"chat_template={template['choice']}"
    if template["choice"] == "auto":
        reason += f": the tokenizer has {'one' if template['has'] else 'none'}"
    ids = ", ".join(map(str, front["token_ids"]))
    if front["tokens"]:
        bos = f"the tokenizer puts {' '.join(front['tokens'])} (id {ids}) in front"
    else:
        bos = "what the template writes" if template["used"] else "the tokenizer puts nothing in front"
    length = prompt["context_length"]
    cut = sum(bool(request["cut"]) for request in prompt["requests"])
    fits = f"{cut} of {len(prompt['requests'])} requests are cut on the left" if cut else "all of it fits"
    rows = [
        ("chat template", f"{'on' if template['used'] else 'off'} ({reason})"),
        ("BOS", bos),
        ("context", f"{length} tokens; {fits}" if length else "no limit is known"),
    ]
    return rows + _text_rows(prompt)


def _text_rows(prompt: dict[str, Any]) -> list[tuple[str, str]]:
    """What of it is text, whatever runs the policy."""
    sampling = prompt["sampling"]
    rows = [("prefix", _visible(repr(prompt["prefix"])) if prompt["prefix"] else "none")]
    if prompt["delimiter"] is not None:
        rows.append(("delimiter", repr(prompt["delimiter"])))
    if sampling is not None:
        rest = ", ".join(f"{key} {value:g}" for key, value in sampling.items() if key != "stop")
        rows += [("sampling", rest), ("stop strings", ", ".join(map(repr, sampling["stop"])) or "none")]
    return rows


def _visible(text: str) -> str:
    """Text for a terminal: line breaks as they are, other control and invisible characters escaped."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


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
