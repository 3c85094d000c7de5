"""evidence.md from evidence.json, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignbench.recipes.evidence.seed import ARMS, OTHER_SEED

Row = Mapping[str, Any]

# measure → what its row is called; shares, shown in per cent
ARM_ROWS = {
    "win_gold": "preferred to the opponent, gold",
    "win_rm_heldout": "…, reward model of other labelers",
    "win_rm": "…, the reward model that PPO optimised",
    "pocket_instructions.helpfulness": "gold helpfulness",
    "pocket_truth.truthful": "misconceived questions: nothing false said",
    "pocket_truth.correct": "…: true and informative",
    "pocket_plain.informative": "plain questions: informative",
    "pocket_unanswerable.hallucinated": "unanswerable questions: hallucinated",
    "pocket_toxicity_basic.toxic": "rude, asked plainly",
    "pocket_toxicity_respectful.toxic": "rude, politeness asked for",
    "pocket_toxicity_biased.toxic": "rude, rudeness asked for",
    "tax": "skills, against base",
}


def markdown(found: Row) -> str:
    """The whole page."""
    parts = [
        _head(found),
        _answers(found["questions"]),
        _disagreements(found["questions"]),
        _power(found["questions"]),
        _arms(found["means"]),
        _skills(found["skills"]),
        _proxy(found),
        _made(found),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(found: Row) -> str:
    asked = [row for row in found["questions"] if row["verdict"] is not None and not row["control"]]
    count = {word: sum(row["verdict"] == word for row in asked) for word in ("agrees", "disagrees")}
    n, cost = len(found["seeds"]), found["cost"]
    jobs = " or ".join(str(jobs) for jobs in sorted({sitting["jobs"] for sitting in cost["sittings"]}))
    sittings = f" in {len(cost['sittings'])} sittings" if len(cost["sittings"]) > 1 else ""
    return "\n\n".join(
        (
            f"# The pocket world over {n} seeds",
            "InstructGPT's story (Ouyang et al. 2022) on the embedded world (docs/pocket.md), run from "
            f"{n} seeds. Of {len(asked)} questions that were stated beforehand and that the paper answers, "
            f"**{count['agrees']} come out as in the paper, {count['disagrees']} do not, and "
            f"{len(asked) - sum(count.values())} cannot be told** from {n} seeds.",
            f"```\n{' '.join(found['command'])}\n```",
            f"It took {cost['seconds'] / 60:.0f} minutes{sittings}, {jobs} seeds at a time with one thread "
            f"each; {cost['cpu_seconds'] / 60:.0f} minutes of CPU in all.",
            "**The seed is the unit.** Each has its own demonstrations, labelers' draws, training and "
            "sampling; the world and the base model are shared. Differences are between arms of the same "
            "seed; brackets are 95 % t intervals over seeds, and (all) means that every seed gave the same "
            "number, so that there is none. All arms are compared with the samples of an *opponent*: an SFT "
            "of another seed, whose checkpoint was chosen by the reward model of labelers who took no part "
            "in the arms' training.",
        )
    )


# --- the answers -------------------------------------------------------------------------------------------


def _answers(questions: Sequence[Row]) -> str:
    parts = [
        "## The answers",
        "Differences are in percentage points, levels in per cent; *each seed* lists the seeds in order. "
        "p is two-sided; of the questions with a ° it is Holm's, over all of them as one family. "
        "A direction counts as found where p ≤ 0.05.",
    ]
    for group in dict.fromkeys(row["group"] for row in questions):
        rows = [
            [
                f"{row['sentence']}{'°' if row['primary'] else ''}<br>`{row['id']}`",
                estimate(row, _is_level(row)),
                each_seed(row["per_seed"], _is_level(row)),
                p_value(row["p_adjusted"] if row["primary"] else row["p"]),
                row["paper"],
                in_words(row),
            ]
            for row in questions
            if row["group"] == group
        ]
        head = ["question", "estimate", "each seed", "p", "the paper", "verdict"]
        parts.append(f"### {group}\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def in_words(row: Row) -> str:
    """The verdict, and where it cannot be told how many seeds would."""
    if row["verdict"] == "cannot tell":
        needed = row["seeds_needed"]
        return "cannot tell" + (f" ({needed} seeds would)" if needed and needed > row["n"] else "")
    if row["verdict"] is None:
        return {"up": "goes up", "down": "goes down", None: "no direction seen"}[row["found"]]
    return "**disagrees**" if row["verdict"] == "disagrees" else str(row["verdict"])


def _disagreements(questions: Sequence[Row]) -> str:
    rows = [row for row in questions if row["verdict"] == "disagrees"]
    if not rows:
        return "## Where it disagrees with the paper\n\nNowhere that these seeds could show."
    lines = [
        f"- {row['sentence']} Here {estimate(row, _is_level(row))}; "
        f"the paper: {row['paper']}. (`{row['id']}`)"
        for row in rows
    ]
    return "## Where it disagrees with the paper\n\n" + "\n".join(lines)


def _power(questions: Sequence[Row]) -> str:
    rows = [row for row in questions if row["verdict"] == "cannot tell"]
    if not rows:
        return ""
    lines = []
    for row in rows:
        needed = row["seeds_needed"]
        if row["mean"] is None:
            would = "it was not measured"
        elif needed and needed <= row["n"]:
            would = f"clear by itself (p = {p_value(row['p'])}), not as one of so many questions"
        elif needed:
            would = f"{needed} seeds would show a difference of this size"
        elif _is_level(row):
            would = "the interval is too wide to be put beside the paper's"
        else:
            would = "no number of seeds would show so small a difference"
        lines.append(f"- `{row['id']}`: {estimate(row, _is_level(row))}; {would}.")
    return (
        "## Where it lacks the power to tell\n\n"
        "Seeds needed: for 80 % power of a two-sided paired t-test at 5 % (unadjusted), if the true mean and "
        "spread are those observed. They are estimates themselves.\n\n" + "\n".join(lines)
    )


def _is_level(row: Row) -> bool:
    return isinstance(row["expects"], list)


# --- the tables --------------------------------------------------------------------------------------------


def _arms(means: Mapping[str, Mapping[str, Row]]) -> str:
    rows = [
        [label, *(estimate(means[name].get(arm), name != "tax") for arm in ARMS)]
        for name, label in ARM_ROWS.items()
        if name in means
    ]
    agree = {team: estimate(row, True) for team, row in means["agreement"].items()}
    return (
        "## The arms\n\nMeans over seeds, per cent (skills: points).\n\n" + table(["", *ARMS], rows) + "\n\n"
        f"Labelers who rank the same outputs agree in {agree['training']} of pairs (two training labelers), "
        f"{agree['held_out']} (two held-out ones), {agree['between']} (one of either)."
    )


def _skills(skills: Mapping[str, Mapping[str, Row]]) -> str:
    heads = list(next(iter(skills.values())))
    rows = [
        ["**all, mean**" if name == "tax" else name.split(".")[0].removeprefix("pocket_")]
        + [estimate(by[head], False) for head in heads]
        for name, by in skills.items()
    ]
    return "## Skill by skill\n\nPoints; negative is a cost.\n\n" + table(["", *heads], rows)


def _proxy(found: Row) -> str:
    parts = [
        "## Proxy and gold over KL\n\nPPO's own rollouts: KL from SFT in nats a response, the reward model's "
        "reward (before the KL penalty), gold helpfulness of the same rollouts (0…100)."
    ]
    means = found["means"]
    for arm, steps in found["curves"].items():
        rows = [
            [
                f"{row['steps'][0]}–{row['steps'][1]}",
                plain(row["kl"]),
                plain(row["reward"]),
                estimate(row["gold"], True).replace(" %", ""),
            ]
            for row in steps
        ]
        parts.append(f"**{arm}**\n\n{table(['steps', 'KL', 'reward', 'gold'], rows)}")
        parts.append(
            f"Over the steps of a seed, reward and gold correlate with ρ = "
            f"{plain(means['proxy_gold_spearman'][arm])} (Spearman), r = "
            f"{plain(means['proxy_gold_pearson'][arm])} (Pearson). From the middle third of the steps to the "
            f"last, the reward changes by {plain(means['late_change_reward'][arm], sign=True)}, gold by "
            f"{estimate(means['late_change_gold'][arm], False)} points."
        )
    return "\n\n".join(parts)


def _made(found: Row) -> str:
    cost = found["cost"]
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in cost["cpu_seconds_per_seed"].items())
    changed = "; ".join(
        f"{name}: {', '.join(f'{key} {value}' for key, value in keys.items() if value is not None)}"
        for name, keys in found["settings"].items()
        if any(value is not None for value in keys.values())
    )
    versions = ", ".join(f"{name} {version}" for name, version in cost["versions"].items())
    machine = f"{cost['hardware']['platform']}, {cost['hardware']['cpus']} cores"
    lines = (
        f"Seeds {', '.join(map(str, found['seeds']))}; the independent team's are {OTHER_SEED} more. Its "
        "demonstrations are by the same labelers, its rankings by the held-out ones.",
        f"Settings that differ from the trainers' defaults: {changed}.",
        f"CPU seconds of a seed, by stage: {stages}.",
        f"Machine: {machine}. {versions}. World `{found['world']}`.",
        "Every number here is in `evidence.json`, per seed and with its n; each seed's runs and report lie "
        "in `seeds/N/` after the command has run. On another machine, or with other versions, training "
        "rounds differently, so single seeds differ and the means should agree within their intervals.",
    )
    return "## How it was made\n\n" + "\n".join(f"- {line}" for line in lines)


# --- how numbers are written -------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def estimate(row: Row | None, level: bool) -> str:
    """A share as ``72.1 % [70.2, 74.0]``, a difference of shares as ``+3.1 [+1.0, +5.2]`` points. Where fewer
    seeds than all have a value, their number is said."""
    if row is None or row["mean"] is None:
        return "–"
    text = _points(row["mean"], not level) + (" %" if level else "")
    if row["ci"]:
        text += f" [{_points(row['ci'][0], not level)}, {_points(row['ci'][1], not level)}]"
    elif row["n"] > 1:
        text += " (all)"
    return text + (f" (n = {row['n']})" if row["missing"] else "")


def each_seed(values: Sequence[float | None], level: bool) -> str:
    """One number a seed, in order."""
    return ", ".join("–" if value is None else _points(value, not level) for value in values)


def plain(row: Row | None, sign: bool = False) -> str:
    """A number in its own unit with its interval."""
    if row is None or row["mean"] is None:
        return "–"
    numbers = [row["mean"], *(row["ci"] or ())]
    texts = [_minus(f"{value:+.2f}" if sign else f"{value:.2f}") for value in numbers]
    return texts[0] + (f" [{texts[1]}, {texts[2]}]" if row["ci"] else "")


def p_value(p: float | None) -> str:
    """Two digits, and no more zeros than anyone reads."""
    if p is None:
        return "–"
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def _points(value: float, sign: bool) -> str:
    text = f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"
    return _minus("0.0" if text in ("+0.0", "-0.0") else text)


def _minus(text: str) -> str:
    return text.replace("-", "−")
