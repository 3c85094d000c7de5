"""parity.json and parity.md: what was compared, how far it differs, and what is known to differ."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parity_compare import Comparison

HEAD = """# Parity with lm-evaluation-harness

The same requests, in float32 on the CPU, to lm-evaluation-harness {peer} (`HFLM`, in a process and an
environment of its own) and to alignbench; {versions}.
Checkpoints: `benchmarks/parity_models.py` makes small ones of four architectures with random weights and a
tokenizer of each family's kind; *pocket* is the trained model (Llama architecture) that is shipped here.
Allowed is |Δ| ≤ 1e-4 + 1e-6·|sum| in a summed log-probability. Texts and greedy flags are equal, but for
near-ties: places where the two likeliest tokens lie within 1e-4 nats in float64.

    {command}

"""
TABLE = "| set | requests | largest Δ | spread | violations | near-ties | known | metrics (ours = theirs) |\n"
TABLE += "|---|---|---|---|---|---|---|---|\n"
FOOT = """
The checkpoints have no skill at these tasks; what is compared is the arithmetic. Spread: standard deviation
of the log-probabilities over requests, in nats. Known: requests where the two are meant to differ; each is in
parity.json with its reason and, where it exists, the value that plain transformers give in float64.
"""


def write(results: Sequence[dict[str, Any]], out: Path) -> list[str]:
    """Write both files; returns what the last model's table says, a line each."""
    import torch
    import transformers

    out.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    as_json = [
        {**r, "sets": [c.as_json() for c in r["sets"]], "tasks": [c.as_json() for c in r["tasks"]]}
        for r in results
    ]
    (out / "parity.json").write_text(json.dumps({"versions": versions, "models": as_json}, indent=1) + "\n")
    shown = ", ".join(f"{k} {v}" for k, v in versions.items()) + f", Python {platform.python_version()}"
    command = "python benchmarks/parity.py --data DIR --peer-python PATH"
    text = HEAD.format(peer=results[0]["peer"], versions=shown, command=command)
    for r in results:
        text += f"## {r['model']}\n" + TABLE + "\n".join(_row(c) for c in [*r["sets"], *r["tasks"]]) + "\n\n"
    (out / "parity.md").write_text(text + FOOT.lstrip() + _known(results))
    last = results[-1]
    return [_line(last["model"], c) for c in [*last["sets"], *last["tasks"]]]


def _row(c: Comparison) -> str:
    metrics = ", ".join(
        f"{name} {ours:.4f}" + ("" if ours == theirs else f" ≠ {theirs:.4f}")
        for name, (ours, theirs) in c.metrics.items()
    )
    largest = f"{c.largest:.1e}" if c.spread else "–"
    spread = f"{c.spread:.1f}" if c.spread else "–"
    cells = (c.name, c.n, largest, spread, len(c.differences), len(c.near_ties), len(c.known), metrics or "–")
    return "| " + " | ".join(map(str, cells)) + " |"


def _line(model: str, c: Comparison) -> str:
    bad = f"{len(c.differences)} violations" if c.differences else "equal"
    unequal = f"; unequal: {', '.join(c.unequal_metrics)}" if c.unequal_metrics else ""
    return (
        f"{model}: {c.name}: n {c.n}, largest Δ {c.largest:.1e}, {bad}, {len(c.near_ties)} near-ties{unequal}"
    )


def _known(results: Sequence[dict[str, Any]]) -> str:
    whys = sorted({entry["why"] for r in results for c in r["sets"] for entry in c.known})
    return "\n## Known differences\n" + "\n".join(f"- {why}." for why in whys) + "\n" if whys else ""
