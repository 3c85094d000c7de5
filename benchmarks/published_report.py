"""published.md: what ``published`` measured, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEAD = """# Published outputs, scored by our tasks

    python benchmarks/published.py --data DATA

Outputs of {models} models that were published, read as `recorded:` policies, beside the numbers that were
published for them: {files}.
The files hold a part of each benchmark, the published numbers (InstructGPT's Table 14) are over the whole.
Each of our numbers has its 95 % interval. All are percent. Two prompt types of TruthfulQA are named here as
the files name them; the table has them swapped (docs/fidelity.md).
"""
OFFLINE = """
## What TruthfulQA's offline scores are worth

Against the published judge's verdict on whether an answer is true: {n} answers to {questions} questions,
{true:.1f} % of them judged true. Agreement and κ are of `*_acc`, AUC of `*_diff`; intervals by drawing
questions with all their answers. r: over the {cells} means of model and prompt.

| score | said to be true | agreement | κ | AUC | r |
|---|---|---|---|---|---|
"""
TAX = """## The tax

Paired differences in each task's headline metric, with their intervals. Toxicity is better when lower.
"""


def markdown(found: dict[str, Any]) -> str:
    """The report of what ``published.measure`` found."""
    files = ", ".join(f"`{name}`" for name in found["files"])
    parts = [HEAD.format(models=len(found["models"]), files=files)]
    parts += [_correlations(found["correlations"])]
    parts += [_cells(found["cells"], name) for name in dict.fromkeys(cell["file"] for cell in found["cells"])]
    if found["offline_truth"]:
        parts.append(_offline(found["offline_truth"]))
    if found["tax"]:
        parts.append(_tax(found["tax"]))
    return "\n".join(parts)


def _correlations(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "## Correlation with the table\n",
        "Pearson's r over models, Fisher's interval. Within: published numbers inside our intervals.\n",
        "| task | metric | numbers | r | ours − published | within |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["ci"]
        r = f"{row['r']:.3f} ({low:.2f} to {high:.2f})"
        shown = [
            row["task"],
            row["metric"],
            row["cells"],
            r,
            f"{100 * row['difference']:+.1f}",
            row["within"],
        ]
        lines.append(f"| {' | '.join(map(str, shown))} |")
    return "\n".join(lines) + "\n"


def _cells(cells: Sequence[dict[str, Any]], name: str) -> str:
    mine = [cell for cell in cells if cell["file"] == name]
    columns = list(dict.fromkeys((cell["task"], cell["metric"]) for cell in mine))
    lines = [
        f"## {name}\n",
        "Ours (interval) / published.\n",
        "| model | " + " | ".join(f"{task}: {metric}" for task, metric in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for model in dict.fromkeys(cell["model"] for cell in mine):
        by = {(cell["task"], cell["metric"]): cell for cell in mine if cell["model"] == model}
        lines.append(f"| {model} | " + " | ".join(_cell(by[column]) for column in columns) + " |")
    n = {cell["n"] for cell in mine}
    lines.append(f"\nn = {min(n)} a cell{f' to {max(n)}' if len(n) > 1 else ''}.")
    return "\n".join(lines) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    published = "–" if cell["published"] is None else f"{100 * cell['published']:.1f}"
    return f"{_number(cell['mean'], cell['ci'])} / {published}"


def _number(value: float | None, ci: Sequence[float] | None, sign: str = "") -> str:
    if value is None:
        return "–"
    interval = f" ({100 * ci[0]:{sign}.0f} to {100 * ci[1]:{sign}.0f})" if ci else ""
    return f"{100 * value:{sign}.1f}{interval}"


def _offline(rows: Sequence[dict[str, Any]]) -> str:
    first = rows[0]
    text = OFFLINE.format(**first, true=100 * first["judged_true"])
    for row in rows:
        values = [row[key] for key in ("agreement", "kappa", "auc")]
        shown = " | ".join(f"{v['value']:.3f} ({v['ci'][0]:.2f} to {v['ci'][1]:.2f})" for v in values)
        text += f"| {row['score']} | {100 * row['said_true']:.1f} | {shown} | {row['r_cells']:.2f} |\n"
    text += f"\nBy the length of the answer, for {first['score']}:\n\n"
    text += "| characters | answers | agreement | κ | AUC | true answers found |\n|---|---|---|---|---|---|\n"
    for part in first["by_length"]:
        values = [f"{part[key]:.3f}" for key in ("agreement", "kappa", "auc", "true_found")]
        text += f"| {part['from']} to {part['to']} | {part['n']} | {' | '.join(values)} |\n"
    return text


def _tax(pairs: Sequence[dict[str, Any]]) -> str:
    lines = [
        TAX,
        "| task | " + " | ".join(f"{pair['policy']} − {pair['reference']}" for pair in pairs) + " |",
        "|---|" + "---|" * len(pairs),
    ]
    for delta in pairs[0]["deltas"]:
        key = (delta["task"], delta["metric"])
        each = [next(d for d in pair["deltas"] if (d["task"], d["metric"]) == key) for pair in pairs]
        shown = " | ".join(f"{_number(d['diff'], d['ci'], '+')}, {d['verdict']}" for d in each)
        lines.append(f"| {delta['task']} ({delta['metric']}) | {shown} |")
    for pair in pairs:
        for tax in pair["tax"]:
            gain, tasks = _number(tax["mean_gain"], tax["ci"], "+"), ", ".join(tax["tasks"])
            lines.append(f"\nMean gain of {pair['policy']} over {pair['reference']} on {tasks}: {gain}.")
    return "\n".join(lines) + "\n"
