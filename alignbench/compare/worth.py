"""What a judge is worth, in plain words: the same for the terminal, the report and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench.compare.results import JudgeResult, Score, Verdict

COIN = "not distinguishable from a coin"
WORDS = {0.6: "three times in five", 2 / 3: "two times in three", 0.7: "seven times in ten"}
WORDS |= {0.75: "three times in four", 0.8: "four times in five", 0.9: "nine times in ten"}


def no_better_than_a_coin(judges: Sequence[JudgeResult]) -> list[str]:
    """Names of the judges whose held-out accuracy is not surely above one half: their win-rates cannot say
    which policy is better."""
    return [judge.name for judge in judges if judge.worth in ("at_chance", "below_chance")]


def rated(verdict: Verdict) -> str:
    """A win-rate's verdict by a judge whose word decides nothing: what it rated, and not what is better."""
    return {"better": "rated higher", "worse": "rated lower"}.get(verdict, verdict)


def worth_in_words(judge: JudgeResult) -> str:
    """What the judge was made of, how often it is right, and how much of the texts it saw."""
    if judge.worth == "truth":
        return f"Judge {judge.name}: {judge.note or 'knows the truth'}."
    made = " trained on " + judge.data if judge.data else ""
    made += (" from " if made else " made from ") + judge.base if judge.base else ""
    kind = f" (a reward model{made})" if judge.kind == "rm" else ""
    note = f" Note: {judge.note}." if judge.note else ""
    return f"Judge {judge.name}{kind} {_accuracy(judge)}.{_seen(judge)}{note}"


def _accuracy(judge: JudgeResult) -> str:
    score = judge.accuracy
    if score is None or score.mean is None:
        return "has no held-out accuracy on record, so what its word is worth is not known"
    pairs = f"picks the preferred response in {percent(score)} of {score.n} held-out pairs of its own data"
    if judge.worth == "at_chance":
        return f"{pairs}: {COIN}"
    if judge.worth == "below_chance":
        return f"{pairs}: worse than a coin"
    if judge.worth == "above_chance":
        return f"{pairs}: {_about(score.mean)}"
    return pairs


def _about(mean: float) -> str:
    if mean < 0.55:
        return "better than a coin, and barely"
    if mean > 0.95:
        return "nearly always right"
    return f"right about {WORDS[min(WORDS, key=lambda known: abs(known - mean))]}"


def _seen(judge: JudgeResult) -> str:
    cut = [f"{n} of {judge.rated[name]} of {name}" for name, n in judge.cut.items() if n]
    return f" Texts longer than its context, of which it saw only the end: {', '.join(cut)}." if cut else ""


def percent(score: Score) -> str:
    """``55.6 % [49.1, 61.9]``."""
    assert score.mean is not None
    ci = f" [{score.ci[0] * 100:.1f}, {score.ci[1] * 100:.1f}]" if score.ci else ""
    return f"{score.mean * 100:.1f} %{ci}"
