"""lm-evaluation-harness's answers to requests. Runs under the Python that has lm_eval, without alignbench.

    python lm_eval_answers.py JOBS.json

JOBS.json is a list of {"model", "options", "sets", "tasks", "out"}: a checkpoint's folder; keyword arguments
of HFLM; sets {"name", "verb", "requests", "apart"}; tasks {"folder", "names"} or null; where the answers are
written. A set is given to HFLM as one call, or, with "apart", request by request, so that one that it refuses
stops no other; what it raised is then the answer ({"error": ...}).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


def ask(model: Any, verb: str, requests: list[Any]) -> list[Any]:
    instances = [
        Instance(request_type=verb, doc={}, arguments=tuple(request), idx=i)
        for i, request in enumerate(requests)
    ]
    answers = getattr(model, verb)(instances, disable_tqdm=True)
    return [list(answer) if isinstance(answer, tuple) else answer for answer in answers]


def ask_apart(model: Any, verb: str, requests: list[Any]) -> list[Any]:
    answers: list[Any] = []
    for request in requests:
        try:
            answers += ask(model, verb, [request])
        except Exception as error:
            answers.append({"error": type(error).__name__})
    return answers


def run_tasks(model: Any, folder: str, names: list[str]) -> dict[str, Any]:
    """Per task: its metrics, and each document's."""
    run = lm_eval.simple_evaluate(
        model=model,
        tasks=names,
        task_manager=TaskManager(include_path=folder),
        log_samples=True,
        bootstrap_iters=0,
    )
    found = {}
    for name in names:
        metrics = {k.split(",")[0]: v for k, v in run["results"][name].items() if k.endswith(",none")}
        metrics = {k: v for k, v in metrics.items() if not k.endswith("_stderr")}
        samples = sorted(run["samples"][name], key=lambda sample: sample["doc_id"])
        found[name] = {
            "metrics": metrics,
            "samples": [{m: s[m] for m in metrics} for s in samples],
            "prompts": [s["arguments"][0][0] for s in samples],
            "logprobs": [[float(r[0][0]) for r in s["resps"]] for s in samples],
        }
    return found


def main() -> None:
    with open(sys.argv[1]) as file:
        jobs = json.load(file)
    for job in jobs:
        model = HFLM(pretrained=job["model"], device="cpu", dtype="float32", **job["options"])
        answers = {}
        for each in job["sets"]:
            print(f"lm-eval: {job['model']}: {each['name']}", file=sys.stderr, flush=True)
            asked = ask_apart if each["apart"] else ask
            answers[each["name"]] = asked(model, each["verb"], each["requests"])
        tasks = run_tasks(model, **job["tasks"]) if job["tasks"] else {}
        with open(job["out"] + ".part", "w") as file:
            json.dump({"version": lm_eval.__version__, "sets": answers, "tasks": tasks}, file)
        os.replace(job["out"] + ".part", job["out"])  # whole or not at all


if __name__ == "__main__":
    main()
