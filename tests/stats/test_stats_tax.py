"""The alignment tax."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from alignbench.stats import PairedDifference, TaskGain, paired_difference, tax


def gain(diff: float | None, stderr: float | None, df: int = 10_000) -> PairedDifference:
    return PairedDifference(diff, stderr, None, None, 100, 0, df + 1, "t", df=df)


def test_by_hand() -> None:
    out = tax(
        [
            TaskGain("rte", gain(-0.06, 0.03), 0.70, 0.50, "worse"),
            TaskGain("squad", gain(0.02, 0.04), 0.60, 0.0, "inconclusive"),
        ]
    )
    assert out.tasks == ("rte", "squad")
    assert out.mean_gain == pytest.approx(-0.02)
    assert out.stderr == pytest.approx(0.025)  # √(.03² + .04²)/2
    assert out.ci == pytest.approx((-0.02 - 0.049, -0.02 + 0.049), abs=1e-4)
    assert out.normalised_gain == pytest.approx(-0.04 / 0.8)  # (−.06 + .02)/(.2 + .6)
    assert out.regressed == ("rte",)
    assert out.p == pytest.approx(0.4237, abs=1e-3)


def test_few_documents_widen_the_interval() -> None:
    # Welch–Satterthwaite with equal variances: df = 2 · 4 = 8, t(.975, 8) = 2.306004
    rows = [TaskGain(name, gain(0.1, 0.1, df=4), None, None, "inconclusive") for name in "ab"]
    out = tax(rows)
    half = 2.306004 * 0.1 / math.sqrt(2)
    assert out.ci == pytest.approx((0.1 - half, 0.1 + half), abs=1e-6)
    assert out.normalised_gain is None


def test_variants_of_a_task_share_their_documents() -> None:
    rows = [
        TaskGain("rte", gain(-0.06, 0.03), None, None, "worse", source="rte"),
        TaskGain("rte_5shot", gain(-0.02, 0.01), None, None, "worse", source="rte"),
        TaskGain("sst2", gain(0.02, 0.03), None, None, "inconclusive", source="sst2"),
    ]
    out = tax(rows)
    assert out.mean_gain == pytest.approx(-0.02)
    assert out.stderr == pytest.approx(0.05 / 3)  # √((.03 + .01)² + .03²)/3
    apart = tax([replace(row, source="") for row in rows])
    assert apart.stderr == pytest.approx(math.sqrt(0.03**2 + 0.01**2 + 0.03**2) / 3)


def test_tasks_without_an_estimate_are_named() -> None:
    out = tax(
        [
            TaskGain("a", gain(0.1, 0.1), 0.4, 0.5, "inconclusive"),
            TaskGain("b", gain(None, None), None, 0.0, "inconclusive"),
        ]
    )
    assert (out.tasks, out.left_out) == (("a",), ("b",))
    assert out.normalised_gain is None  # the reference is below chance: there is no skill to lose
    empty = tax([])
    assert (empty.mean_gain, empty.ci, empty.tasks) == (None, None, ())


def test_policies_that_never_differ_still_have_an_interval() -> None:
    same = {str(i): float(i % 2) for i in range(100)}
    out = tax([TaskGain("a", paired_difference(same, same), 0.5, 0.0, "equivalent")])
    assert out.mean_gain == 0.0
    assert out.ci is not None
    assert out.ci[0] < -0.01
