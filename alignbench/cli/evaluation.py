"""What the commands ``eval`` and ``compare`` share: their options, the dry run, the table at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from alignbench.errors import WorkError

if TYPE_CHECKING:
    from alignbench.compare.plan import Plan, Settings
    from alignbench.compare.results import Comparison, Interval, JudgeResult, TaskResult, WinRate

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)

POLICY = """\b
A POLICY is [NAME=]SPEC[?key=value&…]; the SPEC is
  PATH_OR_HUB_ID[@revision]        a Hugging Face model or adapter, run here
  vllm:PATH_OR_HUB_ID[@revision]   the same, run by vLLM
  openai:MODEL@BASE_URL            a server's (its key: OPENAI_API_KEY)
  recorded:FILE_OR_FOLDER          outputs that exist already: rows with
      output or response, and doc_id, prompt or instruction; or lm-eval's log

\b
Keys: adapter, dtype, device, prefix, chat_template (auto, on, off);
  vllm: tensor_parallel, data_parallel;
  openai: prefix, chat_template, concurrency, timeout, price_in, price_out;
  recorded: generator, task, sample."""
"""What may stand for a policy; for the help of a command."""

OPTIONS = (
    click.option(
        "--tasks",
        metavar="T[,T…]",
        multiple=True,
        help="Tasks, families, suites, globs, prompts:FILE. Default: the pocket suite for pocket policies, "
        "else the tasks whose data are at hand.",
    ),
    click.option("--out", type=click.Path(path_type=Path), help="Folder to write. Default: below reports/."),
    click.option("--limit", type=int, metavar="N", help="A seeded random subset of N documents a task."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the subset and of sampling."),
    click.option(
        "--data",
        type=FOLDER,
        envvar="ALIGNBENCH_DATA",
        help="Local mirror of data sets, looked up before the hub.",
    ),
    click.option(
        "--engine",
        metavar="NAME",
        help="What runs policies that are weights: hf or vllm. Default: vllm on a CUDA GPU where it is "
        "installed and fits, else hf.",
    ),
    click.option(
        "--batch-tokens",
        type=int,
        metavar="N",
        help="Tokens that a batch may hold, and that generation keeps at once; found from memory by default.",
    ),
    click.option(
        "--scorer",
        "scorers",
        multiple=True,
        metavar="NAME=SPEC",
        help="What scores outputs for metrics that need it: hf:MODEL[?label=…], judge:POLICY, recorded, or "
        "offline (the default of toxicity). May be given again.",
    ),
    click.option("--tasks-dir", type=FOLDER, multiple=True, help="Folder of further task files."),
    click.option(
        "--workspace", type=FOLDER, help="Folder of the ledger. Default: ALIGNBENCH_HOME, the cache."
    ),
    click.option("--fresh", is_flag=True, help="Compute everything again, also what the ledger holds."),
    click.option("--dry-run", is_flag=True, help="Say what would be asked, and ask nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print results.json (or the dry run) on stdout."),
)


def shared_options(function: F) -> F:
    """Add the options that eval and compare share."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def settings_of(options: dict[str, Any]) -> Settings:
    """The settings that the shared options stand for."""
    from alignbench.compare.plan import Settings

    return Settings(
        limit=options["limit"],
        seed=options["seed"],
        mirror=options["data"],
        engine=options["engine"],
        batch_tokens=options["batch_tokens"],
        tasks_dirs=options["tasks_dir"],
        workspace=options["workspace"],
        fresh=options["fresh"],
        scorers=options["scorers"],
        command=("alignbench", *sys.argv[1:]),
    )


def carry_out(plan: Plan, options: dict[str, Any]) -> None:
    """Run the plan, or only describe it, and print the outcome.

    Raises:
        WorkError: part of the work failed; what succeeded is written, and has been printed.
    """
    import json

    for note in plan.notes:
        say(note)
    if options["dry_run"]:
        from alignbench.compare.dry import describe

        described = describe(plan)
        click.echo(
            json.dumps(described, indent=1, ensure_ascii=False) if options["as_json"] else _dry(described)
        )
        return
    from alignbench.compare.plan import replaced
    from alignbench.compare.results import to_json
    from alignbench.compare.run import execute

    before = replaced(plan)
    if before:
        say(f"{plan.out} holds the comparison of {before}; it is replaced")
    comparison = execute(plan)
    if options["as_json"]:
        click.echo(to_json(comparison))
    else:
        click.echo(summary(comparison))
        click.echo(f"\n{plan.out / 'report.html'}")
    if comparison.failures:
        first = comparison.failures[0]
        where = " on ".join(part for part in (first.task or first.judge, first.policy) if part)
        count = f"{len(comparison.failures)} parts" if len(comparison.failures) > 1 else "one part"
        raise WorkError(f"{count} failed, the rest is in {plan.out}; {where}: {first.error}")


def say(text: str) -> None:
    """A line for the person at the terminal."""
    click.echo(text, err=True)


# --- the dry run -------------------------------------------------------------------------------------------


def _dry(described: dict[str, Any]) -> str:
    policies = described["policies"]
    lines = [f"policies: {', '.join(policies)}"]
    if len(policies) > 1:
        lines.append(f"judges: {', '.join(described['judges']) or 'none'}")
    if described["scorers"]:
        scored = described["scored_outputs"]
        each = [f"{name}={spec} ({scored[name]:,})" for name, spec in described["scorers"].items()]
        lines.append(f"scorers, and the outputs that they score of a policy: {', '.join(each)}")
    lines.append(f"writes: {described['out']}\n")
    told = [cost for cost in described["costs"] if not cost["problem"]]
    lines.append(_costs(told) if told else _counts(described["tasks"]))
    total = sum(task["requests"] for task in described["tasks"])
    read = described["recorded"]
    held = sum(task["held"] for cost in told for task in cost["tasks"])
    lines.append(
        f"\n{total:,} requests a policy, {total * (len(policies) - len(read)):,} in all"
        + (f", of which the ledger holds {held:,}" if told else " (less what the ledger holds)")
        + (f"; recorded, so nothing is asked: {', '.join(read)}" if read else "")
    )
    lines += [_basis(cost) for cost in told]
    if told:
        lines.append(f"{ESTIMATED}{' and judging are' if described['judges'] else ' is'} not in it.")
    lines += [f"{c['policy']}: not estimated: {c['problem']}" for c in described["costs"] if c["problem"]]
    for task in described["tasks"]:
        shown: dict[str, list[str]] = {}
        for cost in told:
            example = next(row["example"] for row in cost["tasks"] if row["task"] == task["task"])
            shown.setdefault(example, []).append(cost["policy"])
        for text, names in (shown or {task["example"]: []}).items():
            gets = f" as {', '.join(names)} gets it" if names else ""
            lines.append(f"\n--- {task['task']}: a prompt{gets} ---\n{text}")
    return "\n".join(lines)


ESTIMATED = (
    "Times are estimates from rates measured here just now, and an upper bound where completions end early; "
    "loading"
)


def _costs(told: list[dict[str, Any]]) -> str:
    """What each policy's tasks cost."""
    head = ("documents", "requests", "held", "tokens in", "computed", "tokens out, at most", "time")
    rows = [["policy", "task", *head]]
    sampled = False
    for cost in told:
        for task in cost["tasks"]:
            estimated = task["counted"] < task["unanswered"]
            sampled = sampled or estimated
            counts = [f"{task[key]:,}" for key in ("documents", "requests", "held")]
            numbers = [task[key] for key in ("input_tokens", "computed_tokens", "output_tokens")]
            tokens = [f"{'~' if estimated and x else ''}{x:,}" for x in numbers]
            rows.append([cost["policy"], task["task"], *counts, *tokens, _duration(task["seconds"])])
    lines = [table(rows)]
    if sampled:
        lines.append("~ scaled up from a random sample of the documents")
    cut = [f"{row['task']} on {c['policy']} {row['cut']:,}" for c in told for row in c["tasks"] if row["cut"]]
    if cut:
        lines.append(f"requests that would lose their beginning to fit the context: {', '.join(cut)}")
    return "\n".join(lines)


def _counts(tasks: list[dict[str, Any]]) -> str:
    """What the tasks ask, where no policy's tokenizer is at hand."""
    rows = [["task", "kind", "documents", "requests", "tokens in", "tokens out, at most"]]
    for task in tasks:
        numbers = [task[key] for key in ("documents", "requests", "input_tokens", "output_tokens")]
        rows.append([task["task"], task["kind"], *(f"{x:,}" for x in numbers)])
    return table(rows)


def _basis(cost: dict[str, Any]) -> str:
    """One policy's time and memory, and what they rest on."""
    rates = cost["rates"]
    if not cost["seconds"]:
        return f"{cost['policy']}: the ledger holds every answer"
    own = ""
    if cost["engine"] != "hf":
        own = f"; as the engine hf would, as {cost['engine']}'s own rates are not known"
    return (
        f"{cost['policy']}: {_duration(cost['seconds'])}, about {cost['peak_bytes'] / 1e9:.2g} GB of memory "
        f"on {cost['device']} ({cost['parameters']:,} parameters in {cost['dtype']}, "
        f"{cost['batch_tokens']:,} tokens a pass; measured: {rates['flops'] / 1e9:,.0f} GFLOP/s, "
        f"{rates['bandwidth'] / 1e9:,.0f} GB/s, {rates['call'] * 1e6:.1f} µs a call){own}"
    )


def _duration(seconds: float) -> str:
    """Rounded, because it is estimated."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.2g} {unit}"
    if seconds == 0:
        return "–"
    return f"about {seconds:.0f} s" if seconds >= 1.5 else "a second or less"


# --- the table at the end ----------------------------------------------------------------------------------


def summary(comparison: Comparison) -> str:
    """Headline scores, win-rates, tax and verdict, as plain text."""
    from alignbench.compare.verdict import AREAS

    names = [policy.name for policy in comparison.policies]
    verdicts = {(d.task, d.metric, d.policy): d.verdict for d in comparison.deltas}
    headlines = [row for row in comparison.tasks if row.headline]
    levels = [
        level for level in ("chance", "majority") if any(getattr(r, level) is not None for r in headlines)
    ]
    rows = [["area", "task", *names, *levels]]
    for row in sorted(headlines, key=lambda row: AREAS.index(row.area)):
        cells = [_cell(row, name, verdicts.get((row.task, row.metric, name))) for name in names]
        rows.append([row.area, row.task, *cells, *(_level(row, level) for level in levels)])
    below = [*_guessing(headlines, names), *_cut(headlines, names), *_scorers(comparison)]
    parts = ["\n".join([table(rows), *below])] if headlines else []
    pooled = [row for row in comparison.win_rates if row.task is None and row.b == comparison.win_reference]
    if pooled:
        parts.append(_win_rates(pooled, comparison.judges))
    if comparison.tax:
        rows = [["nlp tasks", "mean gain, points", "verdict", "regressed"]]
        for tax in comparison.tax:
            gain = _points(tax.mean_gain, tax.ci)
            rows.append(
                [f"{tax.policy} − {tax.reference}", gain, tax.verdict, ", ".join(tax.regressed) or "–"]
            )
        parts.append(table(rows))
    parts.append(comparison.verdict)
    return "\n\n".join(parts)


NO_EQUAL_LENGTH = (
    "At equal length: not estimable (one policy is nearly always the longer, or none ever is; or wins, "
    "losses or prompts are too few)."
)


def _win_rates(pooled: list[WinRate], judges: list[JudgeResult]) -> str:
    """The win-rates, and below them what each judge is worth; † marks one not shown to beat a coin."""
    from alignbench.compare.worth import no_better_than_a_coin, rated, worth_in_words

    coins = no_better_than_a_coin(judges)
    rows = [["win-rate", "judge", "", "at equal length", "n", "verdict"]]
    for rate in pooled:
        even = rate.length_controlled
        values = [_percent(rate.win_rate, rate.ci), _percent(even.win_rate, even.ci) if even else "–"]
        word = f"{rated(rate.verdict)} †" if rate.judge in coins else rate.verdict
        rows.append([f"{rate.a} over {rate.b}", rate.judge, *values, str(rate.n), word])
    lines = [("† " if judge.name in coins else "") + worth_in_words(judge) for judge in judges]
    if not any(rate.length_controlled for rate in pooled):
        lines.append(NO_EQUAL_LENGTH)
    return "\n".join([table(rows), *lines])


NOT_ABOVE, BELOW = "°", "↓"
"""Beside a score: no better than guessing, and worse."""
SIGNS = {"better": "+", "worse": "−", "equivalent": "=", "inconclusive": "?"}


def _cell(row: TaskResult, name: str, verdict: str | None) -> str:
    score = row.scores.get(name)
    if score is None or score.mean is None:
        return "failed" if score is None else "missing"
    text = _percent(score.mean, score.ci) if row.unit == "rate" else f"{score.mean:.3g}"
    marks = [SIGNS[verdict]] if verdict else []
    standing = row.standing(name)
    marks += [BELOW if standing.startswith("below") else NOT_ABOVE] if standing else []
    return " ".join([text, *marks])


def _level(row: TaskResult, name: str) -> str:
    """The chance or majority level of a task."""
    value = getattr(row, name)
    if value is None:
        return "–"
    return _percent(value, None) if row.unit == "rate" else f"{value:.3g}"


def _guessing(rows: list[TaskResult], names: list[str]) -> list[str]:
    """A line on what the marks of scores that guessing reaches mean, where there are any."""
    found = {row.standing(name) for row in rows for name in names} - {""}
    words = []
    if any(text.startswith("not above") for text in found):
        words.append(f"{NOT_ABOVE} the interval holds what guessing scores (majority, else chance)")
    if any(text.startswith("below") for text in found):
        words.append(f"{BELOW} surely below it" if words else f"{BELOW} below what guessing scores")
    return ["; ".join(words)] if words else []


def _cut(rows: list[TaskResult], names: list[str]) -> list[str]:
    """A line on prompts that did not fit, where there are any."""
    found = []
    for name in names:
        cut = {row.task: row.scores[name].cut for row in rows if name in row.scores}
        tasks = ", ".join(f"{task} {n}" for task, n in cut.items() if n)
        found += [f"{name} ({tasks})"] if tasks else []
    return (
        [f"prompts that lost their beginning to fit the model's context: {'; '.join(found)}"] if found else []
    )


def _scorers(comparison: Comparison) -> list[str]:
    """A line on each model that scored outputs: the metrics that it gave, and what it is."""
    lines = []
    for scorer in comparison.scorers:
        rows = [row for row in comparison.tasks if row.headline and scorer.name in row.scorers]
        named = ", ".join(f"{row.task} {row.metric}" for row in rows)
        about = f": {scorer.note}" if scorer.note else ""
        lines.append(f"{named or 'metrics beside the headlines'} by {scorer.name}={scorer.spec}{about}")
        if scorer.cut:
            lines.append(f"{scorer.name}={scorer.spec} saw only a part of {scorer.cut:,} outputs")
    drawn: dict[int, list[str]] = {}
    for row in comparison.tasks:
        if row.headline and row.samples > 1:
            drawn.setdefault(row.samples, []).append(row.task)
    return lines + [f"{n} outputs a document: {', '.join(tasks)}" for n, tasks in drawn.items()]


def _percent(value: float | None, ci: Interval | None) -> str:
    if value is None:
        return "missing"
    return f"{value * 100:.1f} %" + (f" [{ci[0] * 100:.1f}, {ci[1] * 100:.1f}]" if ci else "")


def _points(value: float | None, ci: Interval | None) -> str:
    if value is None:
        return "missing"
    return f"{value * 100:+.1f}" + (f" [{ci[0] * 100:+.1f}, {ci[1] * 100:+.1f}]" if ci else "")


def table(rows: list[list[str]]) -> str:
    """Rows as aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(lines)
