"""Published outputs of other people's models, scored by our tasks, beside the numbers that were published.

    python benchmarks/published.py --data DATA [FILE.csv ...] [--table TABLE.csv] [--out DIR]

Every model becomes a recorded policy; ``published_files`` writes them, and the documents that they answer.
Then a comparison runs as ``alignbench compare`` does. Written are published.json and published.md: each cell
with its interval beside the published number, correlations over the models, what TruthfulQA's offline scores
say of the published judge's verdicts, and the tax between the models of ``--tax``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from published_files import Inputs, Published, read_published, write_inputs
from published_report import markdown
from scipy import stats

from alignbench.compare.results import Comparison
from alignbench.compare.run import run_comparison

FILES = ("truthful_qa", "real_toxicity", "drop")
TABLE_METRICS = {"true": ("true",), "true + info": ("true_informative",)}
"""The table's name of a metric → ours, where it is not the task's headline."""
TABLE_PROMPTS = {
    "truthfulqa_gen": "QA prompt",
    "truthfulqa_gen_instruction": "QA + instruct",
    "truthfulqa_gen_qa_instruction": "instruction",
}
"""Task → the table's name of the prompt, where the file's does not begin with it. Table 14 has two of them
swapped: see docs/fidelity.md."""
TABLE_TASKS = {"fr_to_en": ("fren", "wmt")}
"""A file's name → how the table's name of the benchmark begins, in small letters."""
OFFLINE = ("rougeL", "rouge1", "rouge2", "bleu")
RESAMPLES = 2000
LEVEL = 0.95


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="default: the three of DATA/instructgpt_samples")
    parser.add_argument("--data", type=Path, required=True, help="the local mirror")
    parser.add_argument("--table", type=Path, help="default: DATA/instructgpt_samples/paper_table14.csv")
    parser.add_argument("--out", type=Path, default=Path("reports/published"))
    parser.add_argument("--keep", type=Path, help="keep the recorded policies and their data in this folder")
    parser.add_argument("--tax", default="gpt-175b,ppo-noptx-175b,ppo-ptx-175b", help="base, aligned, other")
    chosen = parser.parse_args(arguments)
    place = chosen.data / "instructgpt_samples"
    files = chosen.files or [next(place.glob(f"{name}_samples.csv*")) for name in FILES]
    table = chosen.table or place / "paper_table14.csv"
    tax = tuple(chosen.tax.split(","))
    if chosen.keep:
        chosen.keep.mkdir(parents=True, exist_ok=True)
        write_inputs([read_published(path) for path in files], chosen.keep, chosen.data)
    found = measure(files, read_table(table), chosen.data, tax)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "published.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    (chosen.out / "published.md").write_text(markdown(found))
    print(f"{chosen.out / 'published.md'}")


def measure(
    paths: Sequence[Path], table: dict[tuple[str, str, str], dict[str, float]], data: Path, tax: Sequence[str]
) -> dict[str, Any]:
    """Everything that is written, as JSON has it."""
    files = [read_published(path) for path in paths]
    with tempfile.TemporaryDirectory() as scratch:
        inputs = write_inputs(files, Path(scratch), data)
        comparison = _compare(inputs, list(inputs.policies), Path(scratch) / "all")
        if comparison.failures:
            raise SystemExit(f"{comparison.failures[0]}")
        cells = table_cells(files, inputs, comparison, table)
        rows = pq.read_table(Path(scratch) / "all" / "samples.parquet").to_pylist()
        three = [name for name in tax if name in inputs.policies]
        return {
            "models": list(inputs.policies),
            "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths},
            "scorers": [asdict(scorer) for scorer in comparison.scorers],
            "cells": cells,
            "correlations": correlations(cells),
            "offline_truth": offline_truth(rows),
            "tax": taxes(inputs, three, Path(scratch)) if len(three) == 3 else [],
        }


def _compare(inputs: Inputs, models: Sequence[str], out: Path) -> Comparison:
    return run_comparison(
        [inputs.policies[model] for model in models],
        list(inputs.tasks.values()),
        out=out,
        scorers=inputs.scorers,
        mirror=inputs.mirror,
        tasks_dirs=inputs.tasks_dirs,
        quiet=True,
    )


# --- beside the table --------------------------------------------------------------------------------------


def read_table(path: Path) -> dict[tuple[str, str, str], dict[str, float]]:
    """(task, metric, prompt) → model → number, as shares: what is printed in percent is divided by 100."""
    found = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = (row.pop("task"), row.pop("metric"), row.pop("prompt"))
            values = {model: float(value) for model, value in row.items() if value}
            percent = any(value > 1 for value in values.values())
            found[key] = {model: value / 100 if percent else value for model, value in values.items()}
    return found


def table_cells(
    files: Sequence[Published],
    inputs: Inputs,
    comparison: Comparison,
    table: dict[tuple[str, str, str], dict[str, float]],
) -> list[dict[str, Any]]:
    """Our number for each metric that the table has (else the headline), with its interval, beside it."""
    scores = {(row.task, row.metric): row for row in comparison.tasks}
    headlines = {row.task: row.metric for row in comparison.tasks if row.headline}
    cells = []
    for published in files:
        for prompt in published.prompts:
            task = inputs.tasks[published.name, prompt]
            lines = {
                k: v for k, v in table.items() if _same(k, published.name, TABLE_PROMPTS.get(task, prompt))
            }
            for (_, metric, _), values in (lines or {("", "", ""): {}}).items():
                (name,) = TABLE_METRICS.get(metric, (headlines[task],))
                for model in published.models:
                    score = scores[task, name].scores[model]
                    cells.append(
                        {
                            "file": published.name,
                            "task": task,
                            "metric": name,
                            "model": model,
                            "mean": score.mean,
                            "ci": score.ci,
                            "n": score.n,
                            "missing": score.missing,
                            "published": values.get(model),
                        }
                    )
    return cells


def _same(key: tuple[str, str, str], name: str, prompt: str) -> bool:
    """Whether a line of the table is of the file, and of its prompt type."""
    task, _, printed = map(_plain, key)
    return task.startswith(TABLE_TASKS.get(name, (_plain(name),))) and (
        _plain(prompt) == printed or _plain(prompt).startswith(printed)
    )


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def correlations(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pearson's r over the models between our numbers and the table's, with Fisher's interval: for each task
    and metric, and for all prompt types of a metric together. ``within``: how many published numbers lie
    within our intervals."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    known = [cell for cell in cells if None not in (cell["published"], cell["mean"])]
    for cell in known:
        groups.setdefault((cell["task"], cell["metric"]), []).append(cell)
    for cell in known:
        groups.setdefault((f"{cell['file']}, all prompts", cell["metric"]), []).append(cell)
    found = []
    for (task, metric), group in groups.items():
        ours, theirs = ([cell[key] for cell in group] for key in ("mean", "published"))
        if len(group) < 4 or len(set(ours)) == 1:
            continue
        result = stats.pearsonr(ours, theirs)
        found.append(
            {
                "task": task,
                "metric": metric,
                "cells": len(group),
                "r": float(result.statistic),
                "ci": [float(x) for x in result.confidence_interval(LEVEL)],
                "difference": float(np.mean(ours) - np.mean(theirs)),
                "within": sum(c["ci"][0] <= c["published"] <= c["ci"][1] for c in group),
            }
        )
    return found


# --- what the offline scores of TruthfulQA are worth -------------------------------------------------------


def offline_truth(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How far BLEU and ROUGE agree with the published judge on whether an answer is true.

    ``agreement``: share of the answers of which ``*_acc`` and the judge (at ½) say the same; ``kappa``:
    Cohen's; ``auc``: of ``*_diff`` for the judge's verdict; ``r_cells``: Pearson's r of the shares over all
    models and prompt types; ``by_length``: the same in each quarter of the answers by their length in
    characters. Intervals: percentiles of 2,000 draws of questions with all their answers.
    """
    kept = [row for row in rows if row["task"].startswith("truthfulqa_gen") and row["true"] is not None]
    if not kept:
        return []
    truth = np.array([row["true"] >= 0.5 for row in kept])
    _, question = np.unique([row["doc_id"] for row in kept], return_inverse=True)
    length = np.array([len(row["output"]) for row in kept])
    _, cell = np.unique([f"{row['task']} {row['policy']}" for row in kept], return_inverse=True)
    places = [np.flatnonzero(question == index) for index in range(question.max() + 1)]
    random, n = np.random.default_rng(0), len(places)
    draws = [np.concatenate([places[i] for i in random.integers(n, size=n)]) for _ in range(RESAMPLES)]
    found = []
    for name in OFFLINE:
        says = np.array([row[f"{name}_acc"] >= 0.5 for row in kept])
        score = np.array([row[f"{name}_diff"] for row in kept])
        entry: dict[str, Any] = {"score": name, "n": len(kept), "questions": n, "cells": int(cell.max()) + 1}
        entry |= {"judged_true": float(truth.mean()), "said_true": float(says.mean())}
        for key, value in _agreement(truth, says, score).items():
            drawn = [_agreement(truth[d], says[d], score[d])[key] for d in draws]
            entry[key] = {"value": value, "ci": np.percentile(drawn, [2.5, 97.5]).tolist()}
        shares = [np.bincount(cell, weights=what) / np.bincount(cell) for what in (truth, says)]
        entry["r_cells"] = float(stats.pearsonr(*shares).statistic)
        entry["by_length"] = [
            {"from": int(length[part].min()), "to": int(length[part].max()), "n": len(part)}
            | _agreement(truth[part], says[part], score[part])
            | {"true_found": float(says[part][truth[part]].mean())}
            for part in np.array_split(np.argsort(length, kind="stable"), 4)
        ]
        found.append(entry)
    return found


def _agreement(truth: Any, says: Any, score: Any) -> dict[str, float]:
    agreement = float(np.mean(truth == says))
    by_chance = truth.mean() * says.mean() + (1 - truth.mean()) * (1 - says.mean())
    ranks, positive = stats.rankdata(score), truth.sum()
    auc = (ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive))
    kappa = (agreement - by_chance) / (1 - by_chance)
    return {"agreement": agreement, "kappa": float(kappa), "auc": float(auc)}


# --- the tax -----------------------------------------------------------------------------------------------


def taxes(inputs: Inputs, models: Sequence[str], scratch: Path) -> list[dict[str, Any]]:
    """Paired differences in every task's headline: the second and third model less the first, and the third
    less the second."""
    pairs = [(models[1], models[0]), (models[2], models[0]), (models[2], models[1])]
    found = []
    for policy, reference in pairs:
        comparison = _compare(inputs, [reference, policy], scratch / f"{policy}-{reference}")
        found.append(
            {
                "policy": policy,
                "reference": reference,
                "deltas": [asdict(delta) for delta in comparison.deltas if delta.headline],
                "tax": [asdict(tax) for tax in comparison.tax],
            }
        )
    return found


if __name__ == "__main__":
    main()
