"""How fast the engine is, beside others on this machine: one command, reports/benchmarks/engine.{json,md}.

    python benchmarks/engine.py --data DIR --peer-python PYTHON [--vllm-python PYTHON] [--only 'mmlu*,equal*']

Each side has a process of its own, which loads the model once; then the sides take turns with the same
requests. Starting and loading are not measured, nor is a first small turn of each side. A line is left as it
was measured last, where --only leaves it out. A peer whose Python is not given is left out, and the report
says so; so is bfloat16 on a processor that has no products of it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import Any

from checkpoints import SHAPES, make
from engine_cases import CASES, Case
from engine_rounds import Reply, Seat, Worker, agreement, ratio, seconds_of_work, spread_of
from engine_table import written

from alignbench import environment

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 5


def main() -> None:
    arguments = _arguments()
    cases = [case for case in CASES if any(fnmatch(case.name, p) for p in arguments.only.split(","))]
    if not cases:
        raise SystemExit(
            f"--only {arguments.only}: no such case; there are {', '.join(c.name for c in CASES)}"
        )
    if arguments.quick:
        cases = [replace(case, n=max(2, case.n // 8), rounds=2) for case in cases]
    if not _multiplies_bfloat16(arguments.device):
        slow = [case.name for case in cases if case.dtype == "bfloat16"]
        cases = [case for case in cases if case.dtype != "bfloat16"]
        if slow:
            _say(f"left out, as this processor has no bfloat16 products: {', '.join(slow)}")
    seats = {
        # as the package sets it when it is imported before torch
        "alignbench": Seat("alignbench", sys.executable, "alignbench_side.py", "PASSIVE"),
        "generate": Seat("generate", sys.executable, "generate_side.py"),
        "generate-passive": Seat("generate-passive", sys.executable, "generate_side.py", "PASSIVE"),
    }
    if arguments.peer_python:
        seats["lm-eval"] = Seat("lm-eval", arguments.peer_python, "lm_eval_side.py")
    if arguments.vllm_python:
        seats["vllm"] = Seat("vllm", arguments.vllm_python, "vllm_side.py")
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    place = arguments.out / "engine.json"
    report = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {"lines": {}}
    report["lines"] = {
        case.name: report["lines"][case.name] for case in CASES if case.name in report["lines"]
    }
    for _, together in groupby(cases, key=lambda case: case.group):
        for name, line in _measured(list(together), seats, arguments):
            report["lines"][name] = line
            order = [case.name for case in CASES if case.name in report["lines"]]
            report["lines"] = {name: report["lines"][name] for name in order}
            arguments.out.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            place.with_suffix(".md").write_text(written(report), encoding="utf-8")
    print(place.with_suffix(".md"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="%(prog)s [options]"
    )
    say = parser.add_argument
    say("--data", type=Path, default=os.environ.get("ALIGNBENCH_DATA"), help="folder of public data")
    say(
        "--only", default="*", metavar="NAMES", help=f"of {', '.join(case.name for case in CASES)}; globs too"
    )
    lm_eval, vllm = (os.environ.get(f"ALIGNBENCH_{name}_PYTHON") for name in ("LMEVAL", "VLLM"))
    say("--peer-python", default=lm_eval, metavar="PATH", help="the Python that has lm_eval 0.4.13")
    say("--vllm-python", default=vllm, metavar="PATH", help="the Python that has vllm")
    say("--device", default="cpu", help="for every side")
    say("--threads", type=int, default=os.cpu_count(), help="for every side; as many as there are cores")
    say("--rounds", type=int, default=ROUNDS, help=f"turns of each side, {ROUNDS} by default")
    say("--quick", action="store_true", help="an eighth of the work, 2 rounds; give an --out of its own")
    scratch = Path(tempfile.gettempdir()) / "alignbench-benchmarks"
    say("--scratch", type=Path, default=scratch, help="checkpoints are made and kept here")
    say("--out", type=Path, default=ROOT / "reports" / "benchmarks")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder of public data: --data DIR, or ALIGNBENCH_DATA")
    if arguments.quick and arguments.out == ROOT / "reports" / "benchmarks":
        parser.error("--quick is no measurement to keep: give it an --out of its own")
    return arguments


def _measured(
    cases: Sequence[Case], seats: dict[str, Seat], arguments: argparse.Namespace
) -> list[tuple[str, dict[str, Any]]]:
    """The lines of cases that share a checkpoint and its processes."""
    first = cases[0]
    here = [name for name in ("alignbench", *first.peers) if name in seats]
    _say(f"{first.checkpoint} {first.dtype}: {', '.join(here)} are loading")
    folder = make(first.checkpoint, arguments.data, arguments.scratch)
    setup = {
        "model": str(folder), "dtype": first.dtype, "device": arguments.device, "budget": first.budget,
    }  # fmt: skip
    lines = []
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(seats[name], setup, arguments.scratch, arguments.threads))
            for name in here
        ]
        ready = {worker.name: worker.ready() for worker in workers}
        _say(f"{first.checkpoint} {first.dtype}: all are loaded")
        for case in cases:
            line = _line(case, workers, arguments)
            line["sides"] = {
                name: {**line["sides"][name], "versions": reply["versions"], "threads": reply["threads"]}
                for name, reply in ready.items()
            }
            line["left_out"] = [name for name in case.peers if name not in seats]
            lines.append((case.name, line))
    return lines


def _line(case: Case, workers: Sequence[Worker], arguments: argparse.Namespace) -> dict[str, Any]:
    """Turns of all sides on one case."""
    work = arguments.scratch / "job.json"
    work.write_text(json.dumps(case.make(arguments.data, case.n)), encoding="utf-8")
    multiply = arguments.scratch / "multiply.json"
    multiply.write_text(json.dumps({"verb": "multiply", "requests": []}), encoding="utf-8")
    replies: dict[str, list[Reply]] = {worker.name: [] for worker in workers}
    products = []
    for worker in workers:
        worker.round(work, small=True)
    rounds = case.rounds or arguments.rounds
    for number in range(rounds):
        products.append(workers[0].round(multiply)["flops"])
        for worker in workers:
            reply = worker.round(work)
            replies[worker.name].append(reply)
            _say(f"{case.name}: round {number + 1} of {rounds}: {worker.name} {reply['seconds']:.1f} s")
    ours = replies["alignbench"]
    generated = "tokens" in ours[0]
    line = {
        "what": case.what, "checkpoint": case.checkpoint, "dtype": case.dtype, "documents": case.n,
        "budget": case.budget, "rounds": rounds, "measured": environment.now(),
        "hardware": {**environment.hardware(), "processor": _processor()}, "device": arguments.device,
        "quick": arguments.quick, "gemm_flops": spread_of(products), "aims": case.aims, "peers": {},
        "sides": {name: _side(each) for name, each in replies.items()}, **_work(ours[0]),
    }  # fmt: skip
    line["share_of_gemm"] = _share(case, ours, line["gemm_flops"]["median"])
    for peer in replies.keys() - {"alignbench"}:
        theirs = replies[peer]
        per_token = generated and all("tokens" in reply for reply in theirs)
        took = [[seconds_of_work(r, per_token=per_token) for r in side] for side in (theirs, ours)]
        line["peers"][peer] = {
            "ratio": ratio(*took), "per_token": per_token, "agreement": agreement(ours[0], theirs[0]),
            "memory_ratio": _memory_ratio(ours, theirs),
        }  # fmt: skip
    return line


def _side(replies: Sequence[Reply]) -> dict[str, Any]:
    """One side's seconds, tokens that it produced, and the most memory during its turns (bytes), also less
    what it held after loading."""
    peak, loaded = replies[-1]["peak"], replies[-1]["loaded"]
    return {
        "seconds": spread_of([reply["seconds"] for reply in replies]),
        "tokens": replies[0].get("tokens"),
        "rows": replies[0].get("rows"),
        "peak_bytes": peak,
        "work_bytes": None if peak is None or loaded is None else peak - loaded,
    }


def _memory_ratio(ours: Sequence[Reply], theirs: Sequence[Reply]) -> dict[str, float] | None:
    """Our peak memory over theirs: of the whole process, and of the work alone."""
    a, b = _side(ours), _side(theirs)
    if a["peak_bytes"] is None or b["peak_bytes"] is None:
        return None
    whole = a["peak_bytes"] / b["peak_bytes"]
    return {"process": whole, "work": a["work_bytes"] / max(1, b["work_bytes"])}


def _work(reply: Reply) -> dict[str, Any]:
    """What there was to do, as our side counted it."""
    found = {"requests": len(reply.get("logprobs") or reply["texts"]), "work": reply["work"]}
    if "lengths" in reply:
        found["answer_tokens"] = spread_of(reply["lengths"])
        found["prompt_tokens"] = spread_of(reply["prompts"])
    return found


def _share(case: Case, replies: Sequence[Reply], rate: float) -> dict[str, float]:
    """Operations a second of the model's matrix products over the machine's own rate: two for each weight and
    computed token, and the head where it ran. Attention, norms and sampling count as nothing."""
    shares = []
    for reply in replies:
        computed = reply["work"]["computed_tokens"] + reply["work"]["decoded_tokens"]
        shape = SHAPES[case.checkpoint]
        operations = 2 * (shape.matrices * computed + shape.width * shape.vocabulary * reply["head"])
        shares.append(operations / reply["seconds"] / rate)
    return spread_of(shares)


def _processor() -> str | None:
    """The processor's name, where Linux tells it."""
    return _told("model name")


def _multiplies_bfloat16(device: str) -> bool:
    """Whether bfloat16 is of use: where a processor imitates it, it takes many times as long as float32."""
    flags = (_told("flags") or _told("Features") or "").split()
    return device != "cpu" or not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def _told(key: str) -> str | None:
    """What Linux tells of the first processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
