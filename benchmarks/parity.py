"""The same requests to lm-evaluation-harness and to alignbench: are the numbers the same?

    python benchmarks/parity.py --data DIR --peer-python PATH [--only llama:hellaswag]

The peer runs in its own process under its own Python (``pip install torch==2.13.0 lm_eval[hf]==0.4.13``), in
float32 on the CPU, as alignbench does here. Writes parity.json and parity.md; exit status 1 where something
differs that is not known.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity_compare import Comparison, compare, tolerance
from parity_edges import boundaries, edges, known_differences
from parity_models import ARCHITECTURES, checkpoint
from parity_oracle import Oracle
from parity_report import write
from parity_requests import SETS, RequestSet, training_texts
from parity_sides import Answers, ask, ask_peer, peer_jobs, what_it_says
from parity_tasks import TASKS, alignbench_tasks, compare_tasks, task_files, task_job

from alignbench.engines import open_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Engine
from alignbench.pocket import base_path

HERE = Path(__file__).resolve().parent
MODELS = (*ARCHITECTURES, "pocket")
SAID = ("its own words", "stops it says")


def request_sets(
    name: str, folder: Path, engine: Engine, data: Path, only: set[str], scale: float
) -> list[RequestSet]:
    """What is asked of one checkpoint."""
    from transformers import AutoConfig, AutoTokenizer

    tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    causal = not config.is_encoder_decoder
    window = getattr(config, "max_position_embeddings", None) if causal else None
    found = [
        make(data, max(4, round(n * scale))) for each, (make, n) in SETS.items() if _wanted(name, each, only)
    ]
    if _wanted(name, "edge cases", only):
        found.append(edges(tokenizer, window))
    if causal and _wanted(name, "one text, many boundaries", only):
        found.append(boundaries())
    if any(_wanted(name, each, only) for each in SAID):
        found += [each for each in what_it_says(engine, data) if _wanted(name, each.name, only)]
    for each in found:
        each.known.update(known_differences(each, tokenizer, window, causal=causal))
    return found


def judge(requests: RequestSet, ours: Answers, theirs: list[Any], oracle: Oracle) -> Comparison:
    """Compare; what is said to be a known difference is held against the third opinion where there is one."""

    def gap(i: int, mine: Any, other: Any) -> float:
        if requests.verb == "generate_until":
            return _gap_of_texts(oracle, ours.raw[i], mine, other)
        found = oracle.score(*requests.requests[i])
        return found[1] if found else math.inf

    result = compare(requests, ours.plain, theirs, gap)
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


@dataclass(frozen=True)
class Prepared:
    """One checkpoint, and all that it is asked."""

    name: str
    folder: Path
    sets: list[RequestSet]
    ours: list[Answers]
    tasks: list[str]
    jobs: list[dict[str, Any]]


def prepare(name: str, arguments: argparse.Namespace) -> Prepared:
    """Make the checkpoint and the requests, ask our side, and write down what the peer is to be asked."""
    only, scratch = set(arguments.only), arguments.scratch
    texts = [] if name == "pocket" else training_texts(arguments.data)
    folder = base_path() if name == "pocket" else checkpoint(name, texts, scratch / "checkpoints")
    engine = open_engine(parse_policy(str(folder)))
    sets = request_sets(name, folder, engine, arguments.data, only, arguments.scale)
    tasks = [task for task in TASKS if _wanted(name, f"task {task}", only)]
    yaml = task_files(arguments.data, scratch / "tasks", arguments.scale / 4) if tasks else None
    jobs = peer_jobs(folder, sets, tasks=yaml and task_job(yaml, tasks), causal=name != "t5")
    return Prepared(name, folder, sets, [ask(engine, each) for each in sets], tasks, jobs)


def finish(prepared: Prepared, replies: Sequence[dict[str, Any]], scratch: Path) -> dict[str, Any]:
    """Compare with what the peer has answered to the jobs, and run the tasks on our side."""
    theirs = {k: v for reply in replies for k, v in reply["sets"].items()}
    oracle = Oracle(prepared.folder)
    sets = [judge(s, a, theirs[s.name], oracle) for s, a in zip(prepared.sets, prepared.ours)]
    tasks: list[Comparison] = []
    if prepared.tasks:
        out = scratch / f"run-{prepared.name}"
        ours = alignbench_tasks(prepared.folder, prepared.tasks, scratch / "tasks", out)
        tasks = compare_tasks(ours, replies[-1]["tasks"])
    return {"model": prepared.name, "peer": replies[0]["version"], "sets": sets, "tasks": tasks}


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
    prepared = []
    for name in chosen:
        print(f"parity: {name}: alignbench answers", file=sys.stderr)
        prepared.append(prepare(name, arguments))
    print("parity: lm-eval answers (its log: peer.log in the scratch folder)", file=sys.stderr)
    replies = iter(ask_peer(arguments.peer_python, [j for p in prepared for j in p.jobs], arguments.scratch))
    results = []
    for each in prepared:
        results.append(finish(each, [next(replies) for _ in each.jobs], arguments.scratch))
        for line in write(results, arguments.out):
            print(line)
    bad = sum(len(c.differences) + len(c.unequal_metrics) for r in results for c in [*r["sets"], *r["tasks"]])
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
