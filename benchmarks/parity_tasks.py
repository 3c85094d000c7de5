"""Whole tasks: shipped task files here, and task files of lm-eval with the same prompts there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from parity_compare import Comparison
from parity_requests import read

CLEAN = r"regex_replace('\[[^\]]*\]', '') | regex_replace(' {2,}', ' ') | trim"
"""HellaSwag's white space as ours: lm-eval keeps what its own removal of brackets leaves behind."""
TASKS: dict[str, dict[str, Any]] = {
    "hellaswag": {
        "file": "nlp_tasks/hellaswag_validation_1000.jsonl.gz",
        "doc_to_text": f"{{{{query | {CLEAN}}}}}",
        "doc_to_choice": "{{[" + ", ".join(f"choices[{i}] | {CLEAN}" for i in range(4)) + "]}}",
        "doc_to_target": "gold",
        "metrics": {"acc": "accuracy", "acc_bytes": "accuracy_bytes"},
    },
    "sst2": {
        "file": "nlp_tasks/sst2_validation.jsonl",
        "doc_to_text": (
            "Decide of each text whether its sentiment is positive or negative. Answer with one of these two "
            "words.\n\nText: {{sentence | trim}}\nSentiment:"
        ),
        "doc_to_choice": ["negative", "positive"],
        "doc_to_target": "label",
        "metrics": {"acc": "accuracy"},
    },
    "rte": {
        "file": "nlp_tasks/rte_validation.jsonl",
        "doc_to_text": (
            "Decide of each claim whether it follows from the passage above it. Answer yes or no.\n\n"
            "Passage: {{sentence1 | trim}}\nClaim: {{sentence2 | trim}}\nDoes the claim follow?"
        ),
        "doc_to_choice": ["yes", "no"],
        "doc_to_target": "label",
        "metrics": {"acc": "accuracy"},
    },
}
"""Task of alignbench → how lm-eval gets the same prompts, and which of its metrics is which of ours."""


def task_files(data: Path, folder: Path, share: float) -> Path:
    """Write lm-eval's task files, and the data that both sides read: the first ``share`` of each file's rows.
    Returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, task in TASKS.items():
        rows = list(read(data / task["file"]))
        kept = folder / Path(task["file"]).name.removesuffix(".gz")
        kept.write_text("".join(json.dumps(row) + "\n" for row in rows[: max(8, round(len(rows) * share))]))
        made = {
            "task": f"parity_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"validation": str(kept)}},
            "output_type": "multiple_choice",
            "validation_split": "validation",
            "num_fewshot": 0,
            **{key: task[key] for key in ("doc_to_text", "doc_to_choice", "doc_to_target")},
            "metric_list": [
                {"metric": m, "aggregation": "mean", "higher_is_better": True} for m in task["metrics"]
            ],
        }
        (folder / f"parity_{name}.yaml").write_text(yaml.safe_dump(made, sort_keys=False))
    return folder


def task_job(folder: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """What the peer's worker needs to run them."""
    return {"folder": str(folder), "names": [f"parity_{task}" for task in tasks]}


def alignbench_tasks(folder: Path, tasks: Sequence[str], data: Path, out: Path) -> dict[str, Any]:
    """Task → documents as ``alignbench eval`` wrote them, in the order of the data, and the means it shows.

    Raises:
        SystemExit: the command failed.
    """
    import pandas as pd

    command = [sys.executable, "-m", "alignbench", "eval", f"model={folder}?chat_template=off"]
    command += ["--tasks", ",".join(tasks), "--data", str(data), "--out", str(out), "--fresh", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    means = {
        (row["task"], row["metric"]): row["scores"]["model"]["mean"]
        for row in json.loads(done.stdout)["tasks"]
    }
    samples = pd.read_parquet(out / "samples.parquet")
    return {
        task: {
            "means": {metric: mean for (name, metric), mean in means.items() if name == task},
            "samples": samples[samples["task"] == task].to_dict("records"),
        }
        for task in tasks
    }


def compare_tasks(ours: dict[str, Any], theirs: dict[str, Any]) -> list[Comparison]:
    """Compare every document's prompt and metrics, and the means."""
    found = []
    for task, mine in ours.items():
        other, names = theirs[f"parity_{task}"], TASKS[task]["metrics"]
        by_prompt: dict[str, list[dict[str, Any]]] = {}
        for sample in mine["samples"]:
            by_prompt.setdefault(sample["prompt"], []).append(sample)
        result = Comparison(f"task {task}", len(other["samples"]))
        if len(mine["samples"]) != len(other["samples"]):
            result.differences.append({"ours": len(mine["samples"]), "theirs": len(other["samples"])})
        for i, (prompt, sample) in enumerate(zip(other["prompts"], other["samples"], strict=True)):
            same = by_prompt.get(prompt, [])
            shown = [{m: s[m] for m in names.values()} for s in same]
            expected = {ours_name: float(sample[theirs_name]) for theirs_name, ours_name in names.items()}
            if expected not in shown:
                result.differences.append(
                    {"request": i, "ours": shown, "theirs": expected, "prompt": prompt[-80:]}
                )
        result.metrics = {
            theirs_name: (mine["means"][ours_name], other["metrics"][theirs_name])
            for theirs_name, ours_name in names.items()
        }
        found.append(result)
    return found
