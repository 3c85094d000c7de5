"""What one seed's folder says: every number that the questions are asked of, and the training curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench.recipes.evidence.seed import ARMS, OPPONENT, finished_stages

if TYPE_CHECKING:
    from alignbench.compare.results import Comparison

TRAINED = ("ppo", "ppo-ptx")
CURVES = ("kl", "reward", "gold")
JUDGES = {"gold": "win_gold", "rm": "win_rm", "rm-heldout": "win_rm_heldout"}

Measures = dict[str, dict[str, float | None]]
"""Measure → arm (or team) → value."""


def seed_record(folder: Path, seed: int) -> dict[str, Any]:
    """{seed, measures, curves, failures, seconds} of a finished seed.

    Curves are PPO's own logs: a step's mean over its rollouts of the KL divergence from the SFT policy (nats
    a response), of the reward model's reward (before the KL penalty) and of gold helpfulness.

    Raises:
        UsageError: results.json is missing or broken.
    """
    from alignbench.compare.results import read_results

    results = read_results(folder)
    curves = {arm: _curve(folder / arm / "metrics.jsonl") for arm in TRAINED}
    measures = result_measures(results)
    measures.update(json.loads((folder / "data" / "fresh.json").read_text()))
    measures.update(curve_measures(curves))
    return {
        "seed": seed,
        "measures": measures,
        "curves": curves,
        "failures": [one.error for one in results.failures],
        "seconds": finished_stages(folder),
    }


def result_measures(results: Comparison) -> Measures:
    """Win-rates over the opponent, every metric of every task (``TASK.METRIC``), and the tax (mean gain over
    the nlp tasks against base, so base has 0)."""
    from alignbench.report.run import oriented

    measures: Measures = {}
    for judge, name in JUDGES.items():
        measures[name] = dict.fromkeys(ARMS)
        for row in results.win_rates:
            if row.judge == judge and row.task is None and OPPONENT in (row.a, row.b):
                arm = row.b if row.a == OPPONENT else row.a
                measures[name][arm] = oriented(row, arm).win_rate
    for task in results.tasks:
        scores = {policy: score.mean for policy, score in task.scores.items()}
        measures[f"{task.task}.{task.metric}"] = scores
    measures["tax"] = {"base": 0.0, **{row.policy: row.mean_gain for row in results.tax}}
    return measures


def skills(results: Comparison) -> list[str]:
    """``TASK.METRIC`` of the nlp tasks' headlines, which the tax is the mean of."""
    return [f"{task.task}.{task.metric}" for task in results.tasks if task.area == "nlp" and task.headline]


def curve_measures(curves: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Measures:
    """Per arm, from its curves: how proxy and gold went together over the steps (``proxy_gold_spearman``,
    ``…_pearson``), their change from the middle third of the steps to the last (``late_change_gold``,
    ``late_change_reward``), and gold in the last third less the best of the three (``gold_below_best``; never
    positive, so no test of anything)."""
    from scipy import stats

    found: Measures = {
        "proxy_gold_spearman": {},
        "proxy_gold_pearson": {},
        "late_change_gold": {},
        "late_change_reward": {},
        "gold_below_best": {},
    }
    for arm, curve in curves.items():
        reward, gold = curve["reward"], curve["gold"]
        pairs = [(r, g) for r, g in zip(reward, gold) if r is not None and g is not None]
        # a constant column correlates with nothing
        varies = len(pairs) > 2 and all(len(set(column)) > 1 for column in zip(*pairs))
        for name, test in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
            found[f"proxy_gold_{name}"][arm] = float(test(*zip(*pairs)).statistic) if varies else None
        golds, rewards = bins(gold, 3), bins(reward, 3)
        found["late_change_gold"][arm] = _minus(golds[2], golds[1])
        found["late_change_reward"][arm] = _minus(rewards[2], rewards[1])
        known = [value for value in golds if value is not None]
        found["gold_below_best"][arm] = _minus(golds[2], max(known) if known else None)
    return found


def bins(values: Sequence[float | None], n: int) -> list[float | None]:
    """Means of ``n`` consecutive parts of nearly equal length; None where a part holds no number."""
    edges = [round(i * len(values) / n) for i in range(n + 1)]
    parts = [[v for v in values[low:high] if v is not None] for low, high in pairwise(edges)]
    return [math.fsum(part) / len(part) if part else None for part in parts]


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _curve(path: Path) -> dict[str, list[float | None]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "reward" in row]
    return {name: [row.get(name) for row in rows] for name in CURVES}
