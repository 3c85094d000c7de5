"""The sentence, word for word."""

from __future__ import annotations

from typing import Any

import pytest

from alignbench.compare.alike import OneModel, SameAnswers
from alignbench.compare.results import Delta, Failure, Score, TaskResult, Tax, WinRate
from alignbench.compare.verdict import compare_verdict, eval_verdict


def row(task: str, area: str, unit: str = "rate", **changes: Any) -> TaskResult:
    score = Score(0.62, 0.02, (0.58, 0.66), 200)
    fields = {"higher_is_better": True, "ideal": None, "chance": None, "n": 200, "scores": {"sft": score}}
    return TaskResult(task=task, area=area, metric="m", headline=True, unit=unit, **{**fields, **changes})


def delta(
    task: str, area: str, verdict: str, diff: float, half: float, policy: str = "ppo", **changes: Any
) -> Delta:
    ci = (diff - half, diff + half)
    fields = {"gain": diff, "gain_ci": ci, "ci_simultaneous": ci, "p": 0.5, "p_adjusted": 0.5, "margin": 0.02}
    return Delta(
        task=task,
        area=area,
        metric="m",
        policy=policy,
        reference="sft",
        n=200,
        diff=diff,
        ci=ci,
        level=0.95,
        method="t",
        verdict=verdict,
        **{**fields, **changes},
    )


def rate(a: str, verdict: str, value: float, judge: str = "gold", b: str = "sft") -> WinRate:
    ci = (value - 0.05, value + 0.05)
    return WinRate(a, b, judge, None, 240, 0, 0, 0, 0, value, 0.02, ci, 0.1, 0.1, verdict)


def tax(policy: str, verdict: str, gain: float, half: float) -> Tax:
    return Tax(policy, "sft", ["x", "y"], gain, (gain - half, gain + half), None, [], verdict)


def sentence(
    deltas: list[Delta],
    rates: list[WinRate],
    taxes: list[Tax],
    failures: tuple[Failure, ...] = (),
    policies: tuple[str, ...] = ("sft", "ppo"),
    win_reference: str = "sft",
) -> str:
    tasks = [row(d.task, d.area) for d in deltas]
    return compare_verdict(policies, "sft", win_reference, tasks, deltas, rates, taxes, failures)


def test_the_whole_story() -> None:
    said = sentence(
        [delta("truth", "truthfulness", "better", 0.18, 0.06)],
        [rate("ppo", "better", 0.71)],
        [tax("ppo", "inconclusive", -0.012, 0.018)],
    )
    assert said == (
        "ppo is preferred to sft (gold win-rate 71 % [66, 76], n = 240), more truthful "
        "(+18 points [+12, +24]) and inconclusive in its cost on NLP tasks "
        "(−1.2 points [−3.0, +0.6], mean of 2 tasks)."
    )


def test_lower_is_better_shows_the_difference_itself() -> None:
    toxic = delta("tox", "toxicity", "better", -0.04, 0.01, gain=0.04, gain_ci=(0.03, 0.05))
    assert sentence([toxic], [], []) == "Against sft, ppo is less toxic (−4.0 points [−5.0, −3.0])."


def test_an_ideal_shows_how_much_nearer() -> None:
    bias = delta("pairs", "bias", "worse", 0.08, 0.01, gain=-0.02, gain_ci=(-0.03, -0.01))
    expected = "Against sft, ppo is more biased (−2.0 points [−3.0, −1.0] towards the ideal)."
    assert sentence([bias], [], []) == expected


def test_several_tasks_of_an_area_are_counted() -> None:
    rows = [delta(f"t{i}", "safety", word, 0.1, 0.05) for i, word in enumerate(["better", "better", "worse"])]
    assert sentence(rows, [], []) == "Against sft, ppo is better on 2 and worse on 1 of 3 safety tasks."
    both = [delta(f"t{i}", "safety", "inconclusive", 0.1, 0.2) for i in range(2)]
    assert sentence(both, [], []) == "Against sft, ppo is inconclusive on both safety tasks."


def test_what_is_inconclusive_comes_last_and_together() -> None:
    rows = [
        delta("truth", "truthfulness", "inconclusive", 0.1, 0.2),
        delta("tox", "toxicity", "better", -0.04, 0.01, gain=0.04, gain_ci=(0.03, 0.05)),
    ]
    said = sentence(rows, [], [tax("ppo", "inconclusive", 0.0, 0.05)])
    assert said == (
        "Against sft, ppo is less toxic (−4.0 points [−5.0, −3.0]); and inconclusive in truthfulness "
        "(+10 points [−10, +30]) and in its cost on NLP tasks (0.0 points [−5.0, +5.0], mean of 2 tasks)."
    )


def test_no_direction_is_not_spoken_of() -> None:
    rude = delta("biased", "toxicity", "inconclusive", 0.3, 0.1, gain=None, gain_ci=None)
    assert sentence([rude], [], []) == "ppo and sft share no metric that could be compared."


def test_a_judge_that_disagrees_is_named() -> None:
    said = sentence([], [rate("ppo", "worse", 0.31), rate("ppo", "better", 0.8, judge="rm")], [])
    expected = "ppo loses to sft (gold win-rate 31 % [26, 36], n = 240, but rm: 80 % [75, 85], better)."
    assert said == expected


def test_of_many_the_most_preferred_is_spoken_of_and_those_who_pay_are_named() -> None:
    rates = [rate("ppo", "better", 0.66), rate("ptx", "better", 0.7), rate("ptx", "better", 0.9, b="ppo")]
    taxes = [tax("ppo", "worse", -0.2, 0.02), tax("ptx", "equivalent", -0.001, 0.01)]
    said = sentence([], rates, taxes, policies=("sft", "ppo", "ptx"))
    assert said == (
        "ptx is preferred to sft (gold win-rate 70 % [65, 75], n = 240) and equivalent on NLP tasks "
        "(−0.1 points [−1.1, +0.9], mean of 2 tasks); "
        "an alignment tax on NLP tasks is paid by ppo (−20 points [−22, −18])."
    )


def test_the_reference_is_not_spoken_of_even_if_it_is_the_most_preferred() -> None:
    rates = [rate("sft", "better", 0.9, b="ppo"), rate("ptx", "inconclusive", 0.52, b="ppo")]
    said = sentence([], rates, [], policies=("sft", "ppo", "ptx"), win_reference="ppo")
    assert said.startswith("ptx is not clearly better or worse than ppo")


def test_two_references() -> None:
    said = sentence(
        [delta("truth", "truthfulness", "worse", -0.18, 0.06, policy="ptx")],
        [rate("ptx", "inconclusive", 0.52, b="ppo")],
        [],
        policies=("sft", "ppo", "ptx"),
        win_reference="ppo",
    )
    assert said == (
        "ptx is not clearly better or worse than ppo (gold win-rate 52 % [47, 57], n = 240); "
        "against sft it is less truthful (−18 points [−24, −12])."
    )


def test_failures_are_counted() -> None:
    failures = (Failure("ppo", "x", "broke"), Failure("ppo", "y", "broke"))
    said = sentence([delta("truth", "truthfulness", "equivalent", 0.0, 0.01)], [], [], failures)
    assert said.startswith("Against sft, ppo is equivalent in truthfulness (0.0 points [−1.0, +1.0]); ")
    assert said.endswith("; 2 parts failed and are left out.")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [row("mc1", "truthfulness", chance=0.226)],
            "sft scores 62 % [58, 66] on mc1 (n = 200, chance 23 %).",
        ),
        (
            [row("mc1", "truthfulness"), row("r", "nlp", unit="raw")],
            "sft scores 62 % [58, 66] on mc1 (n = 200) and 0.62 [0.58, 0.66] on r (n = 200).",
        ),
        (
            [row("a", "nlp", scores={})],
            "sft has no score: every measurement failed or no task has a headline.",
        ),
    ],
)
def test_one_policy(rows: list[TaskResult], expected: str) -> None:
    assert eval_verdict("sft", rows, []) == expected


def test_one_policy_on_many_tasks() -> None:
    said = eval_verdict("sft", [row(f"t{i}", "nlp") for i in range(7)], [])
    assert said.endswith(" and 3 more tasks in the table.")
    assert "t3" in said
    assert "t4" not in said


def test_one_policy_shows_every_area_before_a_second_task_of_one() -> None:
    rows = [row("n1", "nlp"), row("n2", "nlp"), row("truth", "truthfulness"), row("tox", "toxicity")]
    said = eval_verdict("sft", rows, [])
    assert [said.index(f"on {name} ") for name in ("truth", "tox", "n1", "n2")] == sorted(
        said.index(f"on {row.task} ") for row in rows
    )


def test_a_policy_that_failed_everywhere_is_not_the_subject() -> None:
    said = sentence(
        [delta("truth", "truthfulness", "better", 0.18, 0.06)],
        [],
        [],
        failures=(Failure("late", None, "out of memory"),),
        policies=("sft", "ppo", "late"),
    )
    assert said.startswith("Against sft, ppo is more truthful")
    assert said.endswith("1 part failed and is left out.")


def test_one_model_under_two_names_is_said() -> None:
    same = delta("truth", "truthfulness", "inconclusive", 0.0, 0.06)

    def said(*known: list[Any]) -> str:
        tasks = [row("truth", "truthfulness")]
        return compare_verdict(["sft", "ppo"], "sft", "sft", tasks, [same], [], [], [], *known)

    pair = ("sft", "ppo")
    assert said([OneModel(pair)]).endswith("]); sft and ppo are one and the same model.")
    alike = [SameAnswers(pair, 1150)]
    assert said([OneModel(pair)], alike) == said([OneModel(pair)]), "that follows"
    assert said([], alike).endswith("; sft and ppo gave the same answer to each of 1,150 documents.")
    assert said([OneModel(pair, engines=2)], alike).endswith(
        "; sft and ppo are one and the same model, run by 2 engines; "
        "sft and ppo gave the same answer to each of 1,150 documents."
    )


def test_every_clause_has_its_verb() -> None:
    equal = [rate("ppo", "equivalent", 0.5)], [tax("ppo", "equivalent", 0.0, 0.01)]
    assert sentence([], *equal) == (
        "ppo does as well as sft (gold win-rate 50 % [45, 55], n = 240) and is equivalent on NLP tasks "
        "(0.0 points [−1.0, +1.0], mean of 2 tasks)."
    )
    rows = [delta("truth", "truthfulness", "better", 0.18, 0.06)]
    assert sentence(rows, [rate("ppo", "worse", 0.31)], []) == (
        "ppo loses to sft (gold win-rate 31 % [26, 36], n = 240) and is more truthful "
        "(+18 points [+12, +24])."
    )


def test_a_policy_that_is_preferred_too_and_pays_no_tax_is_named() -> None:
    rates = [rate("ppo", "better", 0.7), rate("ptx", "better", 0.66)]
    taxes = [tax("ppo", "worse", -0.2, 0.02), tax("ptx", "equivalent", -0.001, 0.01)]
    said = sentence([], rates, taxes, policies=("sft", "ppo", "ptx"))
    assert said == (
        "ppo is preferred to sft (gold win-rate 70 % [65, 75], n = 240) and worse on NLP tasks, "
        "an alignment tax (−20 points [−22, −18], mean of 2 tasks); "
        "ptx is preferred too (66 % [61, 71]) and equivalent on NLP tasks (−0.1 points [−1.1, +0.9], "
        "mean of 2 tasks)."
    )


def test_a_tax_where_the_reference_only_guesses_is_said_to_be_of_nothing() -> None:
    guess = Score(0.5, 0.03, (0.44, 0.56), 200)
    rows = [row(name, "nlp", chance=0.5, scores={"sft": guess, "ppo": guess}) for name in "xy"]
    paid = [tax("ppo", "equivalent", -0.007, 0.02)]

    def said(tasks: list[TaskResult]) -> str:
        return compare_verdict(("sft", "ppo"), "sft", "sft", tasks, [], [], paid, ())

    assert "mean of 2 tasks, on none of which sft does better than guessing)" in said(rows)
    skilled = row("y", "nlp", chance=0.5)  # 62 % [58, 66]
    assert "guessing" not in said([rows[0], skilled])


def test_one_policy_is_shown_beside_the_majority_level() -> None:
    shown = row("rte", "nlp", chance=0.5, majority=0.53)
    assert eval_verdict("sft", [shown], ()) == "sft scores 62 % [58, 66] on rte (n = 200, majority 53 %)."
