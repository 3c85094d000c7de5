"""Rows from samples and preferences, on numbers worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.compare import analysis
from alignbench.evaluation.types import Sample
from alignbench.judges.types import Preference
from alignbench.metrics import linearise
from alignbench.metrics.corpus import ratio
from alignbench.tasks.types import Metric, Task


def task(
    name: str = "t", area: str = "nlp", headline: str | None = "m", metrics: tuple[Metric, ...] = ()
) -> Task:
    return Task(
        name=name,
        family="f",
        area=area,
        kind="generate",
        description="",
        path=Path(name),
        metrics=metrics or (Metric("m", chance=0.0, margin=0.05),),
        headline=headline,
        score=lambda document, answer: {},
        load=list,
    )


def samples(policy: str, name: str, values: list[float | None], flags: tuple[str, ...] = ()) -> list[Sample]:
    return [
        Sample(policy, name, f"d{i}", f"d{i}", "", "", None, {"m": value}, 1, flags if i == 0 else ())
        for i, value in enumerate(values)
    ]


def by_policy(name: str = "t", **values: list[float | None]) -> dict[str, dict[str, list[Sample]]]:
    return {policy: {name: samples(policy, name, found)} for policy, found in values.items()}


def test_scores_count_what_is_missing_and_unparsed() -> None:
    found = {"a": {"t": samples("a", "t", [1.0, 0.0, None, 1.0], flags=("unparsed",))}}
    (row,) = analysis.task_rows(analysis.columns([task()], found), 0.95)
    score = row.scores["a"]
    assert (row.n, score.n, score.missing, score.unparsed) == (4, 3, 1, 1)
    assert score.mean == pytest.approx(2 / 3)
    assert score.bounds == (0.5, 0.75)  # the missing one wrong, or right
    assert row.unit == "rate"


def test_a_metric_beyond_0_1_is_raw() -> None:
    table = analysis.columns([task()], by_policy(a=[0.5, -3.0], b=[0.5, 1.0]))
    assert analysis.task_rows(table, 0.95)[0].unit == "raw"


@pytest.mark.parametrize(
    ("metric", "gain"),
    [
        (Metric("m", higher_is_better=True), 2.0),
        (Metric("m", higher_is_better=False), -2.0),
        (Metric("m", higher_is_better=None), None),
        (Metric("m", higher_is_better=None, ideal=3.0), 2.0),  # from 1 to 3: at the ideal
        (Metric("m", higher_is_better=None, ideal=2.0), 0.0),  # from one below it to one above it
        (Metric("m", higher_is_better=None, ideal=1.0), -2.0),
    ],
)
def test_gain_turns_the_sign(metric: Metric, gain: float | None) -> None:
    table = analysis.columns(
        [task(metrics=(metric,))], by_policy(a=[1.1, 0.9, 1.0, 1.0], b=[3.0, 2.9, 3.1, 3.0])
    )
    found = analysis.contrasts(table, "a", 0.95)
    (row,) = analysis.deltas(found, "a", 0.95)
    assert row.diff == pytest.approx(2.0)
    assert row.ci is not None
    assert row.ci[0] < 2.0 < row.ci[1]
    if gain is None:
        assert row.gain is None
        assert row.gain_ci is None
        assert row.verdict in ("equivalent", "inconclusive")
    else:
        assert row.gain == pytest.approx(gain, abs=1e-9)
        assert row.gain_ci is not None
        assert row.gain_ci[0] <= row.gain <= row.gain_ci[1]
        assert row.verdict == ("inconclusive" if gain == 0 else "better" if gain > 0 else "worse")


def test_the_family_is_all_headlines_of_all_policies() -> None:
    tasks = [task("t"), task("u"), task("v", headline=None)]
    values = {
        policy: {name: samples(policy, name, [float((i * k) % 3 > 0) for i in range(30)]) for name in "tuv"}
        for k, policy in enumerate(["a", "b", "c"])
    }
    found = analysis.contrasts(analysis.columns(tasks, values), "a", 0.95)
    rows = analysis.deltas(found, "a", 0.95)
    assert len(rows) == 6
    family = [row for row in rows if row.headline]
    assert len(family) == 4
    # Bonferroni over four: the smallest p is held to four times itself
    least = min(family, key=lambda row: row.p or 0)
    assert least.p_adjusted == pytest.approx(min(1.0, 4 * (least.p or 0)))
    for row in rows:
        assert (row.p_adjusted is None) == (row.task == "v") == (row.ci_simultaneous is None)


def test_tax_is_over_the_nlp_tasks_that_are_rates() -> None:
    tasks = [task("t"), task("u"), task("raw"), task("truth", area="truthfulness")]
    ups, half = [1.0] * 40, [1.0, 0.0] * 20
    values = {
        "ref": {
            "t": samples("ref", "t", ups),
            "u": samples("ref", "u", half),
            "truth": samples("ref", "truth", half),
        },
        "new": {
            "t": samples("new", "t", half),
            "u": samples("new", "u", half),
            "truth": samples("new", "truth", ups),
        },
    }
    for policy, level in (("ref", 9.0), ("new", 5.0)):
        values[policy]["raw"] = samples(policy, "raw", [level, level + 1] * 20)
    found = analysis.contrasts(analysis.columns(tasks, values), "ref", 0.95)
    rows = analysis.deltas(found, "ref", 0.95)
    (tax,) = analysis.taxes(found, rows, "ref", 0.95)
    assert (tax.policy, tax.reference, tax.tasks, tax.regressed) == ("new", "ref", ["t", "u"], ["t"])
    assert tax.mean_gain == pytest.approx(-0.25)  # half of the answers lost on one of two tasks
    assert tax.normalised_gain == pytest.approx(-0.5 / 1.5)
    assert tax.verdict == "worse"


def prefer(values: list[float | None], a: str = "a", b: str = "b", name: str = "t") -> list[Preference]:
    return [
        Preference("j", name, f"d{i}", a, b, value, length_a=5, length_b=5, cluster=f"c{i}")
        for i, value in enumerate(values)
    ]


def test_win_rates_pool_tasks_and_adjust_pooled_pairs() -> None:
    rows = (
        prefer([1.0, 1.0, 0.0, 0.5, None]) + prefer([1.0, 1.0, 1.0, 1.0], name="u") + prefer([0.0] * 9, a="c")
    )
    found = analysis.win_rates(rows, [("a", "b"), ("c", "b")], 0.95)
    assert [(row.a, row.task) for row in found] == [
        ("a", None),
        ("a", "t"),
        ("a", "u"),
        ("c", None),
        ("c", "t"),
    ]
    pooled, first, _, loser, _ = found
    assert (pooled.n, pooled.wins, pooled.losses, pooled.ties, pooled.missing) == (8, 6, 1, 1, 1)
    assert pooled.win_rate == pytest.approx(6.5 / 8)
    assert first.win_rate == pytest.approx(2.5 / 4)
    assert first.p_adjusted is None
    assert loser.p_adjusted == pytest.approx(2 * (loser.p or 0))
    assert loser.verdict == "worse"
    assert (pooled.bounds[0], pooled.bounds[1]) == pytest.approx((6.5 / 9, 7.5 / 9))


def test_the_same_cluster_in_two_tasks_is_two_sources() -> None:
    rows = prefer([1.0, 0.0, 1.0]) + prefer([0.0, 1.0, 1.0], name="u")
    pooled = analysis.win_rates(rows, [("a", "b")], 0.95)[0]
    assert "cluster" not in pooled.method


@given(st.lists(st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40))
def test_b_over_a_is_the_complement(values: list[float | None]) -> None:
    there = analysis.win_rates(prefer(values), [("a", "b")], 0.95)[0]
    turned = [None if v is None else 1 - v for v in values]
    back = analysis.win_rates(prefer(turned, a="b", b="a"), [("b", "a")], 0.95)[0]
    assert (there.wins, there.losses, there.ties, there.missing) == (
        back.losses,
        back.wins,
        back.ties,
        back.missing,
    )
    if there.win_rate is None:
        assert back.win_rate is None
        return
    assert there.win_rate == pytest.approx(1 - back.win_rate)
    assert {"better": "worse", "worse": "better"}.get(there.verdict, there.verdict) == back.verdict


def test_surely_even_is_equivalent() -> None:
    even = analysis.win_rates(prefer([1.0, 0.0] * 2000), [("a", "b")], 0.95)[0]
    assert even.verdict == "equivalent"
    few = analysis.win_rates(prefer([1.0, 0.0] * 20), [("a", "b")], 0.95)[0]
    assert few.verdict == "inconclusive"


def test_tax_names_the_tasks_that_only_another_policy_has() -> None:
    tasks = [task("t"), task("u")]
    right, wrong = [1.0] * 20, [1.0, 0.0] * 10
    found = {
        name: {one: samples(name, one, values) for one in held}
        for name, values, held in (("ref", right, "tu"), ("whole", wrong, "tu"), ("part", right, "t"))
    }
    contrasts = analysis.contrasts(analysis.columns(tasks, found), "ref", 0.95)
    rows = analysis.deltas(contrasts, "ref", 0.95)
    left_out = {tax.policy: tax.left_out for tax in analysis.taxes(contrasts, rows, "ref", 0.95)}
    assert left_out == {"whole": [], "part": ["u"]}


def test_tax_equivalence_is_held_to_the_family_of_policies() -> None:
    """Equivalent alone; among five policies the intervals at 1 − 2α/5 are too wide to say so."""
    same = [1.0, 0.0] * 30
    for others, verdict in ((0, "equivalent"), (4, "inconclusive")):
        names = ["ref", "new", *(f"p{i}" for i in range(others))]
        found = {name: {"t": samples(name, "t", same)} for name in names}
        contrasts = analysis.contrasts(analysis.columns([task()], found), "ref", 0.95)
        rows = analysis.deltas(contrasts, "ref", 0.95)
        assert {tax.verdict for tax in analysis.taxes(contrasts, rows, "ref", 0.95)} == {verdict}


# --- what a task declares ----------------------------------------------------------------------------------


def test_a_declared_unit_wins_over_what_the_values_look_like() -> None:
    raw = task(metrics=(Metric("m", unit="raw", bounds=(-5.0, 5.0)),))
    (row,) = analysis.task_rows(analysis.columns([raw], by_policy(a=[0.5, 1.0, 0.2])), 0.95)
    assert row.unit == "raw"
    signed = task(metrics=(Metric("m", unit="rate", bounds=(-1.0, 1.0)),))
    (row,) = analysis.task_rows(analysis.columns([signed], by_policy(a=[-0.9, 0.9, -0.9])), 0.95)
    assert row.unit == "rate"
    assert row.scores["a"].ci == (-1.0, 1.0)  # three documents: cut at the declared range


def test_prompts_that_were_cut_are_counted() -> None:
    found = {"a": {"t": samples("a", "t", [1.0, 0.0], flags=("prompt_cut",))}}
    (row,) = analysis.task_rows(analysis.columns([task()], found), 0.95)
    assert row.scores["a"].cut == 1


def test_a_headline_without_a_direction_is_no_test_of_the_family() -> None:
    directed, neutral = task("t"), task("u", metrics=(Metric("m", higher_is_better=None),))
    a, b = [0.0, 0.0, 0.0, 1.0] * 10, [0.0, 1.0, 0.0, 1.0] * 10
    found = {
        policy: {name: samples(policy, name, values) for name in ("t", "u")}
        for policy, values in (("a", a), ("b", b))
    }
    contrasts = analysis.contrasts(analysis.columns([directed, neutral], found), "a", 0.95)
    first, second = analysis.deltas(contrasts, "a", 0.95)
    assert first.p_adjusted == first.p  # a family of one
    assert first.ci_simultaneous == pytest.approx(first.ci)
    assert (second.p_adjusted, second.ci_simultaneous, second.verdict) == (None, None, "inconclusive")
    assert second.p == first.p


@pytest.mark.parametrize(
    ("values", "changes", "says"),
    [
        ([1.0] * 9 + [0.0], {"chance": 0.5}, ""),
        ([1.0, 0.0] * 5, {"chance": 0.5}, "not above chance"),
        ([1.0, 0.0] * 50, {"chance": 0.5, "majority": 0.9}, "below majority"),
        ([1.0, 0.0] * 5, {"chance": 0.25, "majority": 0.52}, "not above majority"),
        ([0.0] * 40, {"chance": 0.25}, "below chance"),
        ([0.0] * 40, {}, ""),
        ([0.0] * 40, {"chance": 0.25, "higher_is_better": False}, ""),
        ([None] * 4, {"chance": 0.25}, ""),
    ],
)
def test_standing_against_what_guessing_scores(values, changes, says) -> None:  # type: ignore[no-untyped-def]
    one = task(metrics=(Metric("m", **changes),))
    (row,) = analysis.task_rows(analysis.columns([one], by_policy(a=values)), 0.95)
    assert row.standing("a") == says
    assert row.standing("nobody") == ""
    assert row.majority == changes.get("majority")


def test_the_interval_of_a_statistic_of_sums_ends_with_its_range() -> None:
    """Documents' values may lie outside of it, and so may an interval from them."""
    metric = Metric("m", unit="raw", limits=(-1.0, 1.0))
    table = analysis.columns([task(metrics=(metric,))], by_policy(a=[-1.0, -2.6, 0.8, -0.8]))
    score = analysis.task_rows(table, 0.95)[0].scores["a"]
    assert score.mean == pytest.approx(-0.9)
    assert score.ci is not None
    assert score.ci[0] == -1.0
    assert score.ci[1] == 1.0


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 3)), min_size=6, max_size=12), st.integers(3, 6))
def test_the_same_outputs_do_not_differ_in_a_statistic_of_sums(parts: list[tuple[int, int]], n: int) -> None:
    """A ratio Σy/Σx: ``b`` gave what ``a`` gave, on its first n documents. What stands for a document is
    made of all that were measured, so it is made anew of those that both have."""

    def spread_over(name: str, kept: int) -> list[Sample]:
        vectors = [tuple(map(float, part)) if i < kept else None for i, part in enumerate(parts)]
        values = linearise(vectors, ratio)
        return [
            replace(sample, sums={"m": vector})
            for sample, vector in zip(samples(name, "t", values), vectors, strict=True)
        ]

    by = {"a": {"t": spread_over("a", len(parts))}, "b": {"t": spread_over("b", n)}}
    made = replace(task(metrics=(Metric("m", unit="raw", limits=(0, 1)),)), combine={"m": ratio})
    (contrast,) = analysis.contrasts(analysis.columns([made], by), "a", 0.95)
    assert contrast.diff.diff == pytest.approx(0, abs=1e-12)
    assert (contrast.diff.n, contrast.diff.missing) == (n, len(parts) - n)
