"""The same requests to lm-evaluation-harness and to alignbench: are the numbers the same?

    python benchmarks/parity.py --data DIR --peer-python PATH [--only llama:hellaswag]

The peer runs in its own process under its own Python (``pip install torch==2.13.0 lm_eval[hf]==0.4.13``), in
float32 on the CPU, as alignbench does here. Writes parity.json and parity.md; exit status 1 where something
differs that is not known.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from parity_compare import Comparison, compare, tolerance
from parity_edges import boundaries, edges, known_differences
from parity_models import ARCHITECTURES, checkpoint
from parity_oracle import Oracle
from parity_report import write
from parity_requests import SETS, RequestSet, free_text, training_texts
from parity_tasks import TASKS, alignbench_tasks, compare_tasks, task_files

from alignbench.engines import open_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Engine, Generate, Sampling, Score
from alignbench.pocket import base_path

HERE = Path(__file__).resolve().parent
MODELS = (*ARCHITECTURES, "pocket")
NO_BOS = "rolling"
"""lm-eval's rolling log-likelihood also scores the BOS that it puts before a text, after another BOS. It is
asked with ``add_bos_token=False``; then both score the text's own tokens after one BOS."""


def request_sets(
    name: str, folder: Path, engine: Engine, data: Path, only: set[str], scale: float
) -> list[RequestSet]:
    """What is asked of one checkpoint."""
    from transformers import AutoConfig, AutoTokenizer

    tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    causal = not config.is_encoder_decoder
    window = getattr(config, "max_position_embeddings", None) if causal else None
    found = [
        make(data, max(4, round(n * scale)))
        for each, (make, n) in SETS.items()
        if _wanted(name, each, only) and (causal or each != "rolling")
    ]
    if _wanted(name, "edge cases", only):
        found.append(edges(tokenizer, window))
    if causal and _wanted(name, "one text, many boundaries", only):
        found.append(boundaries())
    if _wanted(name, "stops it says", only):
        found.append(_stops_it_says(engine, data))
    for each in found:
        each.known.update(known_differences(each, tokenizer, window, causal=causal))
    return found


def _stops_it_says(engine: Engine, data: Path) -> RequestSet:
    """Stop strings cut out of what the model says without them: they span tokens and end within them."""
    prompts = [prompt for prompt, _ in free_text(data, 16).requests]
    sampling = Sampling(max_tokens=32)
    said = dict(_collect(engine.generate([Generate(prompt, sampling) for prompt in prompts])))
    requests: list[tuple[Any, ...]] = []
    for i, prompt in enumerate(prompts):
        text = said[i].text
        middle = len(text) // 2
        stop = text[middle : middle + 7].strip("\ufffd") or "\n"
        requests.append((prompt, {"until": [stop, "<never>"], "max_gen_toks": 32}))
    return RequestSet("stops it says", "generate_until", requests)


def _collect(batches: Iterator[list[tuple[int, Any]]]) -> list[tuple[int, Any]]:
    return [pair for batch in batches for pair in batch]


def ask(engine: Engine, requests: RequestSet) -> tuple[list[Any], dict[int, Any]]:
    """Our answers in the peer's form, and the engine's own."""
    if requests.verb == "generate_until":
        prompts = [
            Generate(prompt, Sampling(max_tokens=how["max_gen_toks"], stop=tuple(how["until"])))
            for prompt, how in requests.requests
        ]
        raw = dict(_collect(engine.generate(prompts)))
        return [raw[i].text for i in range(len(prompts))], raw
    if requests.verb == "loglikelihood_rolling":
        scores = [Score("", text, rolling=True) for (text,) in requests.requests]
        raw = dict(_collect(engine.score(scores)))
        return [raw[i].logprob for i in range(len(scores))], raw
    scores = [Score(*pair) for pair in requests.requests]
    raw = dict(_collect(engine.score(scores)))
    return [(raw[i].logprob, raw[i].greedy) for i in range(len(scores))], raw


def judge(
    requests: RequestSet, ours: list[Any], theirs: list[Any], raw: dict[int, Any], oracle: Oracle
) -> Comparison:
    """Compare; what is said to be a known difference is held against the third opinion where there is one."""

    def gap(i: int, mine: Any, other: Any) -> float:
        if requests.verb == "generate_until":
            return _gap_of_texts(oracle, raw[i], mine, other)
        found = oracle.score(*requests.requests[i])
        return found[1] if found else math.inf

    result = compare(requests, ours, theirs, gap)
    for entry in [*result.differences, *result.known]:
        if requests.verb == "loglikelihood" and all(map(str.strip, requests.requests[entry["request"]])):
            found = oracle.score(*requests.requests[entry["request"]])
            entry["float64"] = found[0] if found else None
    for entry in result.known:
        reference = entry.get("float64")
        if reference is not None and abs(entry["ours"][0] - reference) > tolerance(reference):
            result.differences.append(entry)
    return result


def _gap_of_texts(oracle: Oracle, completion: Any, mine: str, other: str) -> float:
    """The gap at the first token that makes our text another one than theirs."""
    for n in range(1, len(completion.token_ids) + 1):
        text = oracle.tokenizer.decode(completion.token_ids[:n], skip_special_tokens=True)
        if not other.startswith(text.rstrip("\ufffd")):
            return oracle.gap_at(completion.prompt_ids, completion.token_ids[:n])
    return oracle.gap_at(completion.prompt_ids, completion.token_ids)


def _wanted(model: str, name: str, only: set[str]) -> bool:
    return not only or bool(only & {model, f"{model}:{name}", f":{name}"})


def ask_peer(python: Path, jobs: list[dict[str, Any]], scratch: Path) -> list[dict[str, Any]]:
    """The peer's answers to each job.

    Raises:
        SystemExit: its process failed.
    """
    path = scratch / "jobs.json"
    path.write_text(json.dumps(jobs))
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_DATASETS_OFFLINE": "1",
    }
    environment["HF_DATASETS_CACHE"] = str(scratch / "datasets")
    command = [str(python), str(HERE / "peers" / "lm_eval_answers.py"), str(path)]
    with (scratch / "peer.log").open("w") as log:
        done = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        tail = "\n".join((scratch / "peer.log").read_text().splitlines()[-15:])
        raise SystemExit(f"the peer failed (status {done.returncode}); the end of its log:\n{tail}")
    return [json.loads(Path(job["out"]).read_text()) for job in jobs]


def run_model(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything of one checkpoint: the sets' comparisons, and the tasks'."""
    only, scratch = set(arguments.only), arguments.scratch
    texts = [] if name == "pocket" else training_texts(arguments.data)
    folder = base_path() if name == "pocket" else checkpoint(name, texts, scratch / "checkpoints")
    engine = open_engine(parse_policy(str(folder)))
    sets = request_sets(name, folder, engine, arguments.data, only, arguments.scale)
    tasks = [task for task in TASKS if _wanted(name, f"task {task}", only)]
    began = time.perf_counter()
    answers = [ask(engine, each) for each in sets]
    seconds = time.perf_counter() - began

    def job(chosen: Sequence[RequestSet], options: dict[str, Any], tasks: Any = None) -> dict[str, Any]:
        asked = [{k: getattr(s, k) for k in ("name", "verb", "requests", "apart")} for s in chosen]
        out = str(scratch / f"{name}-{len(options)}.json")
        return {
            "model": str(folder),
            "options": {"batch_size": 16, **options},
            "sets": asked,
            "tasks": tasks,
            "out": out,
        }

    yaml = task_files(arguments.data, scratch / "tasks", arguments.scale) if tasks else None
    jobs = [
        job(
            [s for s in sets if s.name != NO_BOS],
            {},
            yaml and {"folder": str(yaml), "names": [f"parity_{t}" for t in tasks]},
        )
    ]
    if any(s.name == NO_BOS for s in sets):
        jobs.append(job([s for s in sets if s.name == NO_BOS], {"add_bos_token": False}))
    replies = ask_peer(arguments.peer_python, jobs, scratch)
    theirs = {k: v for reply in replies for k, v in reply["sets"].items()}
    oracle = Oracle(folder)
    compared = [judge(s, *_first(a), theirs[s.name], a[1], oracle) for s, a in zip(sets, answers)]
    found = {"model": name, "seconds": seconds, "peer": replies[0]["version"], "sets": compared, "tasks": []}
    if tasks:
        ours = alignbench_tasks(folder, tasks, scratch / "tasks", scratch / f"run-{name}")
        found["tasks"] = compare_tasks(ours, replies[0]["tasks"])
    return found


def _first(answer: tuple[list[Any], dict[int, Any]]) -> tuple[list[Any]]:
    return (answer[0],)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("ALIGNBENCH_DATA"), help="folder of public data"
    )
    parser.add_argument("--peer-python", type=Path, default=os.environ.get("ALIGNBENCH_LMEVAL_PYTHON"))
    parser.add_argument(
        "--only", action="append", default=[], metavar="MODEL[:SET]", help="also :SET; repeatable"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="documents of each set, as a share of the default"
    )
    parser.add_argument("--scratch", type=Path, default=HERE.parent / "build" / "parity")
    parser.add_argument("--out", type=Path, default=HERE.parent / "reports" / "benchmarks")
    arguments = parser.parse_args()
    if arguments.data is None or arguments.peer_python is None:
        parser.error(
            "name the data (--data DIR or ALIGNBENCH_DATA) and the peer's Python (--peer-python PATH)"
        )
    arguments.scratch = arguments.scratch.resolve()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    os.environ["ALIGNBENCH_HOME"] = str(arguments.scratch / "home")
    chosen = [
        m for m in MODELS if not arguments.only or any(o.split(":")[0] in ("", m) for o in arguments.only)
    ]
    results = []
    for name in chosen:
        print(f"parity: {name} …", file=sys.stderr)
        results.append(run_model(name, arguments))
        for line in write(results, arguments.out):
            print(line)
    bad = sum(len(c.differences) + len(c.unequal_metrics) for r in results for c in [*r["sets"], *r["tasks"]])
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
