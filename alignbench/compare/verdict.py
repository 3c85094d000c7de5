"""The verdict: one sentence that a careful scientist would sign, made by rules from the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from alignbench.compare.alike import OneModel, SameAnswers
from alignbench.compare.results import Delta, Failure, Interval, JudgeResult, TaskResult, Tax, WinRate
from alignbench.compare.worth import no_better_than_a_coin

# area → (comparative when better, when worse, the property as a noun)
WORDS = {
    "truthfulness": ("more truthful", "less truthful", "truthfulness"),
    "toxicity": ("less toxic", "more toxic", "toxicity"),
    "bias": ("less biased", "more biased", "bias"),
    "safety": ("safer", "less safe", "safety"),
    "helpfulness": ("more helpful", "less helpful", "helpfulness"),
}
AREAS = (*WORDS, "nlp")
MINUS = "−"


def compare_verdict(
    policies: Sequence[str],
    reference: str,
    win_reference: str,
    tasks: Sequence[TaskResult],
    deltas: Sequence[Delta],
    win_rates: Sequence[WinRate],
    taxes: Sequence[Tax],
    failures: Sequence[Failure],
    same_model: Sequence[OneModel] = (),
    same_answers: Sequence[SameAnswers] = (),
    judges: Sequence[JudgeResult] = (),
    unscored: Sequence[str] = (),
) -> str:
    """The sentence for a comparison. ``same_model``: groups of policies that are one model, which is said;
    ``same_answers``: groups that answered alike, which is said where it does not follow from that.
    ``judges``: on the word of one that is no better than a coin nothing is called preferred. ``unscored``:
    tasks with no metric, which only a judge can compare.

    It speaks of one policy: of two, the one that is not the reference; of more, the one with the highest
    pooled win-rate over ``win_reference`` under the first judge, else the last that has a delta. It names
    the others that surely lost on the nlp tasks; and where it lost there itself, those that are preferred
    too and did not.
    """
    coins = no_better_than_a_coin(judges)
    pooled = [row for row in win_rates if row.task is None and row.b == win_reference]
    ladder = [row for row in pooled if row.judge not in coins]
    measured = {row.policy for row in deltas}
    subject = _subject(policies, reference, ladder, measured)
    if subject is None:
        return _close("nothing could be compared", failures)
    units = {(row.task, row.metric): row.unit for row in tasks}
    preferred = _preferred([row for row in ladder if row.a == subject])
    mine = [row for row in deltas if row.policy == subject and row.headline]
    found = [_area_phrase(area, [r for r in mine if r.area == area], units) for area in WORDS]
    clauses = [phrase for phrase in found if phrase]
    own = [_tax_phrase(tax, _without_skill(tax, tasks)) for tax in taxes if tax.policy == subject]
    clauses = _merged(clauses + own)
    others = _other_taxes([tax for tax in taxes if tax.policy != subject and tax.verdict == "worse"])
    others = _without_tax(subject, ladder, taxes) + others
    undecided = _undecided([row for row in pooled if row.a == subject and row.judge in coins])
    if preferred is None:
        others = undecided + others
    if preferred is None and not clauses and not undecided:
        if unscored and not pooled:
            return _close(f"no judge compared {_outputs(unscored)}; name one with --judge rm:PATH", failures)
        return _close(f"{subject} and {reference} share no metric that could be compared", failures)
    others += _alike(same_model, same_answers)
    return _close(_sentence(subject, reference, win_reference, preferred, clauses, others), failures)


def _sentence(
    subject: str,
    reference: str,
    win_reference: str,
    preferred: str | None,
    clauses: list[str],
    others: list[str],
) -> str:
    if preferred is None:
        text = f"Against {reference}, {subject} is {_join(clauses)}" if clauses else ""
    elif not clauses:
        text = f"{subject} {preferred}"
    elif reference == win_reference:
        verb = "" if preferred.startswith("is ") else "is "
        text = f"{subject} {_join([preferred, verb + clauses[0], *clauses[1:]])}"
    else:
        text = f"{subject} {preferred}; against {reference} it is {_join(clauses)}"
    return "; ".join(filter(None, [text, *others]))


def _alike(same_model: Sequence[OneModel], same_answers: Sequence[SameAnswers]) -> list[str]:
    said = []
    for model in same_model:
        by = f", run by {model.engines} engines" if model.engines > 1 else ""
        said.append(f"{_join(list(model.names))} are one and the same model{by}")
    known = [set(model.names) for model in same_model if model.engines == 1]
    for group in same_answers:
        if not any(set(group.names) <= names for names in known):
            said.append(
                f"{_join(list(group.names))} gave the same answer to each of {group.documents:,} documents"
            )
    return said


def _subject(
    policies: Sequence[str], reference: str, ladder: Sequence[WinRate], measured: Collection[str]
) -> str | None:
    rest = [name for name in policies if name != reference]
    if len(rest) <= 1:
        return rest[0] if rest else None
    ladder = [row for row in ladder if row.a in rest and row.win_rate is not None]
    if not ladder:
        return ([name for name in rest if name in measured] or rest)[-1]
    first_judge = [row for row in ladder if row.judge == ladder[0].judge]
    return max(first_judge, key=lambda row: row.win_rate or 0.0).a


def _preferred(rows: Sequence[WinRate]) -> str | None:
    rows = [row for row in rows if row.win_rate is not None]
    if not rows:
        return None
    first, *rest = rows
    words = {
        "better": "is preferred to",
        "worse": "loses to",
        "equivalent": "does as well as",
        "inconclusive": "is not clearly better or worse than",
    }
    rate = f"{first.judge} win-rate {_percent(first.win_rate, first.ci)}, n = {first.n}"
    against = [
        f"{row.judge}: {_percent(row.win_rate, row.ci)}, {row.verdict}"
        for row in rest
        if row.verdict != first.verdict
    ]
    dissent = f", but {'; '.join(against)}" if against else ""
    return f"{words[first.verdict]} {first.b} ({rate}{dissent})"


def _undecided(rows: Sequence[WinRate]) -> list[str]:
    """What only judges say that a coin could replace."""
    rows = [row for row in rows if row.win_rate is not None]
    if not rows:
        return []
    said = _join([f"{row.judge} (win-rate {_percent(row.win_rate, row.ci)}, n = {row.n})" for row in rows])
    who = f"the only judge, {said}, is" if len(rows) == 1 else f"the judges, {said}, are"
    return [f"whether {rows[0].a} is preferred to {rows[0].b} is open: {who} not shown to beat a coin"]


def _outputs(tasks: Sequence[str]) -> str:
    return f"the outputs on {_join(list(tasks))}"


def _area_phrase(area: str, rows: Sequence[Delta], units: Mapping[tuple[str, str], str]) -> str | None:
    rows = [row for row in rows if row.gain is not None]
    if not rows:
        return None
    better, worse, noun = WORDS[area]
    if len(rows) > 1:
        return _count_phrase(noun, rows)
    row = rows[0]
    change = _change(row, units.get((row.task, row.metric), "raw"))
    return {
        "better": f"{better} ({change})",
        "worse": f"{worse} ({change})",
        "equivalent": f"equivalent in {noun} ({change})",
        "inconclusive": f"inconclusive in {noun} ({change})",
    }[row.verdict]


def _count_phrase(noun: str, rows: Sequence[Delta]) -> str:
    counts = {word: sum(row.verdict == word for row in rows) for word in ("better", "worse", "equivalent")}
    named = [f"{word} on {n}" for word, n in counts.items() if n]
    rest = len(rows) - sum(counts.values())
    if rest:
        named.append(f"inconclusive on {rest}")
    if len(named) == 1:
        word = named[0].split()[0]
        return f"{word} on {'both' if len(rows) == 2 else f'all {len(rows)}'} {noun} tasks"
    return f"{_join(named)} of {len(rows)} {noun} tasks"


def _merged(clauses: list[str]) -> list[str]:
    """What was found first, then all that is inconclusive as one clause."""
    word = "inconclusive "
    found = [clause for clause in clauses if not clause.startswith(word)]
    rest = [clause.removeprefix(word) for clause in clauses if clause.startswith(word)]
    return [*found, word + _join(rest)] if rest else found


def _without_skill(tax: Tax, tasks: Sequence[TaskResult]) -> bool:
    """Whether the reference is on no task above what guessing scores: then there is nothing to lose."""
    standings = [row.standing(tax.reference) for row in tasks if row.headline and row.task in tax.tasks]
    return bool(standings) and all(standings)


def _tax_phrase(tax: Tax, without_skill: bool = False) -> str:
    """``without_skill``: the reference only guesses, which is said."""
    if tax.mean_gain is None:
        return "not measurable on NLP tasks"
    change = f"{_points(tax.mean_gain, tax.ci)}, mean of {_count(len(tax.tasks), 'task')}"
    if without_skill:
        change += f", on none of which {tax.reference} does better than guessing"
    return {
        "better": f"better on NLP tasks ({change})",
        "worse": f"worse on NLP tasks, an alignment tax ({change})",
        "equivalent": f"equivalent on NLP tasks ({change})",
        "inconclusive": f"inconclusive in its cost on NLP tasks ({change})",
    }[tax.verdict]


def _without_tax(subject: str, ladder: Sequence[WinRate], taxes: Sequence[Tax]) -> list[str]:
    """Policies that are preferred as well and did not lose on the nlp tasks, where the subject did."""
    paid = {tax.policy: tax for tax in taxes}
    if subject not in paid or paid[subject].verdict != "worse":
        return []
    first_judge = [row for row in ladder if row.judge == ladder[0].judge]
    return [
        f"{row.a} is preferred too ({_percent(row.win_rate, row.ci)}) and {_tax_phrase(paid[row.a])}"
        for row in first_judge
        if row.a != subject and row.verdict == "better" and row.a in paid and paid[row.a].verdict != "worse"
    ]


def _other_taxes(taxes: Sequence[Tax]) -> list[str]:
    if not taxes:
        return []
    paid = [f"{tax.policy} ({_points(tax.mean_gain, tax.ci)})" for tax in taxes]
    return [f"an alignment tax on NLP tasks is paid by {_join(paid)}"]


def eval_verdict(
    policy: str, tasks: Sequence[TaskResult], failures: Sequence[Failure], unscored: Sequence[str] = ()
) -> str:
    """The sentence for one policy: its headline scores, at most four, with the majority level, else chance,
    where known. ``unscored``: tasks with no metric, whose outputs only a judge can compare.

    The first task of every area comes before the second of any, in the order of ``AREAS``.
    """
    rows = [row for row in tasks if row.headline and policy in row.scores]
    scored = [row for row in rows if row.scores[policy].mean is not None]
    turns: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for row in scored:
        turns[row.task] = seen[row.area]
        seen[row.area] += 1
    scored.sort(key=lambda row: (turns[row.task], AREAS.index(row.area)))
    if not scored and unscored:
        return _close(
            f"{_outputs(unscored)} by {policy} are in the samples, unscored: what is open-ended has no score "
            "of its own, and a judge compares two policies on it (alignbench compare A B --judge rm:PATH)",
            failures,
        )
    if not scored:
        return _close(f"{policy} has no score: every measurement failed or no task has a headline", failures)
    shown = [_score_phrase(row, policy) for row in scored[:4]]
    if len(scored) > 4:
        shown.append(f"{_count(len(scored) - 4, 'more task')} in the table")
    if unscored:
        return _close(f"{policy} scores {_join(shown)}; {_outputs(unscored)} wait for a judge", failures)
    return _close(f"{policy} scores {_join(shown)}", failures)


def _score_phrase(row: TaskResult, policy: str) -> str:
    score = row.scores[policy]
    value = _percent(score.mean, score.ci) if row.unit == "rate" else _raw(score.mean, score.ci)
    guessing = ""
    if (found := row.guessing) is not None:
        name, level = found
        guessing = f", {name} {level * 100:.0f} %" if row.unit == "rate" else f", {name} {level:.3g}"
    return f"{value} on {row.task} (n = {score.n}{guessing})"


def _change(row: Delta, unit: str) -> str:
    """The change in the metric's own direction; towards the ideal where it has one."""
    nearer = row.gain is not None and row.diff is not None and abs(abs(row.gain) - abs(row.diff)) > 1e-12
    value, ci = (row.gain, row.gain_ci) if nearer else (row.diff, row.ci)
    text = _points(value, ci) if unit == "rate" else _raw(value, ci, signed=True)
    return f"{text} towards the ideal" if nearer else text


def _points(value: float | None, ci: Interval | None) -> str:
    numbers = [None if value is None else value * 100, *((x * 100 for x in ci) if ci else ())]
    wide = max((abs(x) for x in numbers if x is not None), default=0.0) >= 10
    shown = [_signed(x, 0 if wide else 1) for x in numbers if x is not None]
    return f"{shown[0]} points" + (f" [{shown[1]}, {shown[2]}]" if ci else "")


def _percent(value: float | None, ci: Interval | None) -> str:
    assert value is not None
    return f"{value * 100:.0f} %" + (f" [{ci[0] * 100:.0f}, {ci[1] * 100:.0f}]" if ci else "")


def _raw(value: float | None, ci: Interval | None, *, signed: bool = False) -> str:
    assert value is not None
    sign = "+" if signed else ""
    shown = [f"{x:{sign}.3g}".replace("-", MINUS) for x in (value, *(ci or ()))]
    return shown[0] + (f" [{shown[1]}, {shown[2]}]" if ci else "")


def _signed(x: float, digits: int) -> str:
    text = f"{x:+.{digits}f}"
    if float(text) == 0:
        return text[1:]
    return text.replace("-", MINUS)


def _join(parts: list[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    comma = ";" if any(" and " in part or "; " in part for part in parts) else ","
    last = "; and " if comma == ";" else " and "
    return f"{comma} ".join(parts[:-1]) + last + parts[-1]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _close(text: str, failures: Sequence[Failure]) -> str:
    if failures:
        text += (
            f"; {_count(len(failures), 'part')} failed and {'is' if len(failures) == 1 else 'are'} left out"
        )
    return text + "."
