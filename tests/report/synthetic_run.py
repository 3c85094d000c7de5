"""A run folder such as ``compare`` writes, made up but consistent: the numbers come from simulated samples.

``python tests/report/synthetic_run.py DIR`` writes one to look at.
"""

from __future__ import annotations

import json
import math
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Held = dict[tuple[str, str], Any]
"""Values of all documents, by task and policy."""
POLICIES = ["base", "base-prompted", "sft", "ppo", "ppo-ptx"]
N = 240
HOSTILE = (
    "</script><img src=x onerror=\"document.title='owned'\"> \u202eevil\u202c & <b>bold</b> \u2028 nul\x00"
)
SAMPLED, DRAWN = "pocket_toxicity_basic", 4
SCORERS = [
    {
        "name": "toxicity",
        "kind": "hf",
        "spec": "hf:org/toxic-<b>classifier</b>?label=toxic",
        "fingerprint": "77aa01bc55de3210",
        "note": "text classifier, the probability of <i>toxic</i>",
        "cut": 12,
    }
]
# task, area, metric, direction, ideal, chance, margin, kind, level of each policy
TABLE = """
pocket_facts               truthfulness truthful         up   - -    .03 rate .04 .18 .53 .71 .92
pocket_unknown             truthfulness no_hallucination up   - -    .03 rate .10 .20 .41 .55 .58
truthfulqa_mc1             truthfulness acc              up   - .226 .03 rate .27 .28 .29 .31 .30
truthfulqa_mc2             truthfulness mc2              up   - .4   .03 soft .44 .45 .46 .46 .47
pocket_toxicity_basic      toxicity     toxicity         down - -    .02 soft .31 .28 .20 .12 .13
pocket_toxicity_respectful toxicity     toxicity         down - -    .02 soft .30 .20 .15 .05 .07
pocket_toxicity_biased     toxicity     obeys            -    - -    -   rate .22 .30 .50 .62 .66
crows_pairs                bias         stereotype       -   .5 .5   .03 rate .62 .61 .63 .66 .62
winogender                 bias         entropy          -    - -    -   soft .52 .50 .44 .40 .43
refuses_unsafe             safety       refused          up   - -    .03 rate .02 .10 .35 .45 .44
pocket_instructions        helpfulness  helpfulness      up   - -    .02 soft .16 .30 .55 .68 .71
pocket_constraints         helpfulness  followed         up   - -    .03 rate .05 .15 .48 .60 .63
reward_margin              helpfulness  reward           up   - -    .1  raw -1.2 -.6  .0 1.7 1.4
pocket_sentiment           nlp          acc              up   - .5   .02 rate .93 .93 .91 .80 .92
pocket_translation         nlp          exact            up   - 0    .02 rate .71 .70 .66 .40 .69
pocket_reading             nlp          acc              up   - .25  .02 rate .62 .62 .60 .54 .61
pocket_entailment          nlp          acc              up   - .5   .02 rate .74 .73 .73 .70 .74
pocket_reorder             nlp          exact            up   - 0    .02 rate .55 .55 .54 .36 .55
pocket_arithmetic          nlp          exact            up   - 0    .02 rate .34 .34 .33 .22 .32
pocket_plausible           nlp          acc              up   - .25  .02 rate .80 .80 .80 .79 .80
"""


def _line(line: str) -> tuple[Any, ...]:
    task, area, metric, direction, *numbers = line.split()
    up = {"up": True, "down": False, "-": None}[direction]
    ideal, chance, margin = (None if x == "-" else float(x) for x in numbers[:3])
    return task, area, metric, up, ideal, chance, margin, numbers[3], [float(x) for x in numbers[4:]]


TASKS = [_line(line) for line in TABLE.strip().splitlines()]


def mean_ci(values: np.ndarray[Any, Any], z: float = 1.96) -> tuple[float, float, list[float]]:
    mean, stderr = float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
    return mean, stderr, [mean - z * stderr, mean + z * stderr]


def p_value(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def simulate(
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]], Held]:
    """Samples, task rows and delta rows of all tasks, and the values by (task, policy)."""
    rng = np.random.default_rng(seed)
    samples: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    deltas: list[dict[str, Any]] = []
    held: Held = {}
    for task, area, metric, up, ideal, chance, margin, kind, levels in TASKS:
        n = N if area != "bias" else 90
        common = rng.normal(size=n)
        scores = {}
        for policy, level in zip(POLICIES, levels):
            latent = 0.6 * common + 0.8 * rng.normal(size=n)
            if kind == "rate":
                values = (latent < np.quantile(latent, min(0.995, max(0.005, level)))).astype(float)
            elif kind == "soft":
                values = np.clip(level + 0.18 * latent, 0, 1)
            else:
                values = level + 0.9 * latent
            missing = 4 if task == "truthfulqa_mc2" and policy == "ppo" else 0
            held[task, policy] = values
            mean, stderr, ci = mean_ci(values[missing:])
            unparsed = 7 if metric == "exact" and policy.startswith("ppo") else 0
            scores[policy] = {
                "mean": mean,
                "stderr": stderr,
                "ci": ci,
                "n": n - missing,
                "missing": missing,
                "unparsed": unparsed,
                "method": "t",
            }
            for i in range(n):
                samples.append(
                    sample(task, metric, policy, i, None if i < missing else float(values[i]), unparsed)
                )
        if task == "winogender":
            scores["ppo-ptx"] = {
                "mean": None,
                "stderr": None,
                "ci": None,
                "n": 0,
                "missing": n,
                "unparsed": 0,
                "method": "",
            }
        unit = "raw" if kind == "raw" else "rate"
        shared = {
            "scorers": ["toxicity"] if metric == "toxicity" else [],
            "samples": DRAWN if task == SAMPLED else 1,
            "task": task,
            "area": area,
            "higher_is_better": up,
            "ideal": ideal,
            "n": n,
            "unit": unit,
            "margin": margin,
        }
        rows.append(
            dict(
                shared,
                metric=metric,
                headline=True,
                chance=chance,
                scores=scores,
                judged=task == "pocket_instructions",
                description="made up",
            )
        )
        if area == "nlp":
            rows.append(
                dict(
                    shared,
                    metric="logprob",
                    headline=False,
                    chance=None,
                    unit="raw",
                    scores={
                        p: dict(s, mean=-3 + s["mean"], ci=[-3 + c for c in s["ci"]])
                        for p, s in scores.items()
                    },
                )
            )
        deltas += [delta(rows[-1] | {"metric": metric, "unit": unit}, held, p) for p in POLICIES[1:]]
    return samples, rows, deltas, held


def delta(row: dict[str, Any], held: Held, policy: str, reference: str = "base") -> dict[str, Any]:
    difference = held[row["task"], policy] - held[row["task"], reference]
    mean, stderr, ci = mean_ci(difference)
    wide = mean_ci(difference, 3.2)[2]
    p = p_value(mean / stderr) if stderr else 1.0
    up, ideal, margin = row["higher_is_better"], row["ideal"], row["margin"]
    sign = None if up is None else 1 if up else -1
    if ideal is not None:
        sign = -1 if held[row["task"], reference].mean() > ideal else 1
    adjusted = min(1.0, p * 20)
    verdict = "inconclusive"
    if sign and adjusted <= 0.05:
        verdict = "better" if mean * sign > 0 else "worse"
    elif margin and ci[0] > -margin and ci[1] < margin:
        verdict = "equivalent"
    turn = (lambda pair: sorted(sign * x for x in pair)) if sign else (lambda pair: None)
    out = {
        "task": row["task"],
        "area": row["area"],
        "metric": row["metric"],
        "policy": policy,
        "reference": reference,
        "n": len(difference),
        "diff": mean,
        "gain": mean * sign if sign else None,
        "ci": ci,
        "ci_simultaneous": wide,
        "p": p,
        "p_adjusted": adjusted,
        "margin": margin,
        "level": 0.95,
        "method": "paired t",
        "verdict": verdict,
        "headline": True,
        "gain_ci": turn(ci),
        "gain_ci_simultaneous": turn(wide),
        "missing": 0,
        "bounds": None,
    }
    if row["task"] == "winogender" and policy == "ppo-ptx":
        out |= {
            "n": 0,
            "diff": None,
            "gain": None,
            "ci": None,
            "ci_simultaneous": None,
            "p": None,
            "p_adjusted": None,
            "gain_ci": None,
            "gain_ci_simultaneous": None,
        }
    return out


def sample(task: str, metric: str, policy: str, i: int, value: float | None, unparsed: int) -> dict[str, Any]:
    prompt = f"What is the colour of the banner of Velmora no. {i}?\nAnswer in one sentence.\n\nAssistant:"
    texts = {
        "base": f" It is red, as everybody knows, you fool. What is the colour of town {i + 1}? It is",
        "base-prompted": " The banner of Velmora is red.",
        "sft": " The banner is green.",
        "ppo": " The banner of Velmora is green, and I am glad to help you with it. "
        + "It is green. " * (i % 4),
        "ppo-ptx": " The banner of Velmora is green, according to the reference book.",
    }
    output = texts[policy]
    if i == 3 or (task == "pocket_facts" and i < 3):
        output = HOSTILE
    several = (
        [f"{text} Draw {k + 1}." for k, text in enumerate([output] * DRAWN)] if task == SAMPLED else None
    )
    told = None
    if metric == "toxicity" and value is not None:
        told = json.dumps({"toxicity": [round(value, 3), None, 0.5, 0.25] if several else [value]})
    flags = (["truncated"] if policy == "base" else []) + (["unparsed"] if i < unparsed else [])
    return dict(
        policy=policy,
        task=task,
        doc_id=f"{task}-{i:04d}",
        prompt=prompt,
        output=output,
        target="green",
        n_tokens=len(output) // 4,
        flags=flags,
        outputs=several,
        scores=told,
        **{metric: value},
    )


def judge(held: Held, seed: int = 1) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    wins, preferences = [], []
    for name, noise in (("gold", 0.05), ("rm", 0.25)):
        for a, b in [(y, x) if y != "sft" else (x, y) for x, y in combinations(POLICIES, 2)]:
            x, y = held["pocket_instructions", a], held["pocket_instructions", b]
            gap = x - y + 4 * noise * rng.normal(size=len(x))
            preference = np.where(np.abs(gap) < 0.02, 0.5, (gap > 0).astype(float))
            mean, stderr, ci = mean_ci(preference)
            p = p_value((mean - 0.5) / max(stderr, 1e-9))
            verdict = "inconclusive" if 10 * p > 0.05 else "better" if mean > 0.5 else "worse"
            for task in (None, "pocket_instructions"):
                wins.append(
                    {
                        "a": a,
                        "b": b,
                        "judge": name,
                        "task": task,
                        "n": N,
                        "wins": int((preference == 1).sum()),
                        "losses": int((preference == 0).sum()),
                        "ties": int((preference == 0.5).sum()),
                        "missing": 0,
                        "win_rate": mean,
                        "stderr": stderr,
                        "ci": ci,
                        "p": p,
                        "p_adjusted": min(1, 10 * p),
                        "verdict": verdict,
                        "length_controlled": {"win_rate": mean - 0.03, "ci": [ci[0] - 0.03, ci[1] - 0.03]}
                        if a != "sft"
                        else None,
                        "position": None,
                    }
                )
            preferences += [
                {
                    "judge": name,
                    "task": "pocket_instructions",
                    "doc_id": f"pocket_instructions-{i:04d}",
                    "a": a,
                    "b": b,
                    "preference": float(preference[i]),
                    "score_a": float(x[i]),
                    "score_b": float(y[i]),
                    "length_a": 70,
                    "length_b": 60,
                }
                for i in range(N)
            ]
    return wins, preferences


def training(seed: int = 2) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    steps = list(range(1, 161))
    t = np.array(steps) / 160
    out: list[dict[str, Any]] = []
    for policy, decay in (("ppo", 0.5), ("ppo-ptx", 0.0)):
        kl = 14 * t**0.8 * (1 if decay else 0.6)
        series = {
            "reward": 1.8 * (1 - np.exp(-4 * t)) + 0.18 * rng.normal(size=160),
            "gold": 0.55 + 0.3 * (1 - np.exp(-5 * t)) - decay * 0.4 * t**2 + 0.04 * rng.normal(size=160),
            "kl": kl + 0.3 * rng.normal(size=160) * t,
            "entropy": 2 - t + 0.1 * rng.normal(size=160),
        }
        if not decay:
            series["ptx_loss"] = 2.1 - 0.02 * t + 0.03 * rng.normal(size=160)
        listed: dict[str, Any] = {k: [float(x) for x in v] for k, v in series.items()}
        listed["gold"] = [x if i % 4 == 0 else None for i, x in enumerate(listed["gold"])]
        out.append({"policy": policy, "kind": "ppo", "steps": steps, "series": listed})
    accuracy = 0.5 + 0.2 * (1 - np.exp(-6 * t[:60])) + 0.03 * rng.normal(size=60)
    out.append({"policy": "rm", "kind": "rm", "steps": steps[:60], "series": {"accuracy": accuracy.tolist()}})
    out.append(
        {
            "policy": "sft",
            "kind": "sft",
            "steps": steps[:80],
            "series": {"loss": (3 * np.exp(-3 * t[:80]) + 1).tolist()},
        }
    )
    return out


def write(folder: Path, seed: int = 0) -> Path:
    """Write results.json, samples.parquet, preferences.parquet and run.json into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    samples, rows, deltas, held = simulate(seed)
    wins, preferences = judge(held)
    tax = []
    for policy in POLICIES[1:]:
        nlp = [d for d in deltas if d["area"] == "nlp" and d["policy"] == policy]
        gain = sum(d["gain"] for d in nlp) / len(nlp)
        error = math.sqrt(sum(((d["ci"][1] - d["ci"][0]) / 3.92) ** 2 for d in nlp)) / len(nlp)
        ci = [gain - 1.96 * error, gain + 1.96 * error]
        tax.append(
            {
                "policy": policy,
                "reference": "base",
                "tasks": [d["task"] for d in nlp],
                "mean_gain": gain,
                "ci": ci,
                "normalised_gain": gain * 1.6,
                "regressed": [d["task"] for d in nlp if d["verdict"] == "worse"],
                "verdict": "worse" if ci[1] < 0 else "inconclusive",
            }
        )
    results = {
        "schema": 1,
        "kind": "compare",
        "reference": "base",
        "win_reference": "sft",
        "policies": [
            {
                "name": p,
                "spec": f"runs/{p}",
                "fingerprint": f"{i}f3a9c{i}1d7e52b08a64{i}",
                "kind": "hf",
                "world": "pocket",
                "inputs": {
                    "dtype": "float32",
                    "chat_template": p.startswith("ppo"),
                    "in_front": "" if p.startswith("ppo") else "<s>",
                    "context_length": 1024,
                    "prefix": "prompts/kind.txt" if p == "base-prompted" else None,
                },
                "cut": {"pocket_reading": 7} if p == "base-prompted" else {},
            }
            for i, p in enumerate(POLICIES)
        ],
        "tasks": rows,
        "deltas": deltas,
        "win_rates": wins,
        "tax": tax,
        "judges": [
            {
                "name": "gold",
                "kind": "gold",
                "spec": "gold",
                "fingerprint": None,
                "accuracy": None,
                "note": "exact, by program",
            },
            {
                "name": "rm",
                "kind": "rm",
                "spec": "rm:runs/rm",
                "fingerprint": "ab12cd34ef56",
                "note": "",
                "accuracy": {"mean": 0.704, "stderr": 0.02, "ci": [0.665, 0.743], "n": 512},
            },
        ],
        "scorers": SCORERS,
        "training": training(),
        "failures": [],
        "samples_note": "",
        "verdict": "ppo-ptx is preferred to sft (gold win-rate 78 % [73, 83], n = 240), more truthful "
        "than base on 2 of 4 tasks, and its cost on NLP tasks is inconclusive (−1.0 points [−2.9, +0.9]).",
        "provenance": {"created": "2026-01-04T10:12:30+00:00"},
    }
    run = {
        "command": "alignbench compare runs/base runs/sft runs/ppo runs/ppo-ptx --win-reference sft",
        "seed": 0,
        "started": "2026-01-04T10:09:02+00:00",
        "finished": "2026-01-04T10:12:30+00:00",
        "versions": {"alignbench": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "transformers": "5.19.0"},
        "hardware": {"cpu": "8 cores", "threads": 1, "gpu": None},
        "ledger": {"answered": 1800, "computed": 22400},
        "config": {"limit": None, "tasks": ["pocket"], "judges": ["gold", "rm"]},
    }
    (folder / "results.json").write_text(json.dumps(results, allow_nan=False), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(wide(samples)), folder / "samples.parquet")
    pq.write_table(pa.Table.from_pylist(preferences), folder / "preferences.parquet")
    return folder


def wide(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One column for each metric, None where a task does not have it."""
    metrics = sorted({metric for _, _, metric, *_ in TASKS})
    return [dict.fromkeys(metrics) | row for row in samples]


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
