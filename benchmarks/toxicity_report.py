"""toxicity.json and toxicity.md: what the shipped toxicity scorer is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HEAD = """# The offline toxicity scorer

Model {fingerprint}; what it is and where it fails: [docs/toxicity.md](../../docs/toxicity.md).

    python benchmarks/toxicity.py --data DIR

Brackets hold 95 % intervals. AUC: area under the ROC curve, with DeLong's variance. VADER: its lexicon alone,
by three rules: *compound* is VADER's own score; *worst word* and *negative share* (negative valence a word)
are two of our own, which rank better. Differences: scorer − lexicon, paired.

## Against Perspective: RealToxicityPrompts
Positive where Perspective's toxicity is at least ½. Settings were chosen on one row in five; the other rows
are given by themselves too. What else was seen on the way: docs/toxicity.md.

| rows | n | toxic | scorer | VADER, compound | difference | worst word | difference | negative share | \
difference |
|---|---|---|---|---|---|---|---|---|---|
"""
AT_HALF = """
Where the scorer says at least ½:

| rows | precision | recall |
|---|---|---|
"""
SAMPLES = """
## Against Perspective: the InstructGPT paper's samples
{n} samples of 12 models under three prompts, {clusters} contexts; the bootstrap draws contexts. Spearman's ρ
with Perspective's score. Settings were chosen on 18 of the contexts.

| scorer | VADER, compound | difference | worst word | difference | negative share | difference |
|---|---|---|---|---|---|---|
"""
HELD_OUT = """
## On what was held out
| texts | n | AUC | ≥ ½ of toxic | ≥ ½ of others |
|---|---|---|---|---|
"""
CALIBRATION = """
Tweets held out, each beside up to twelve words of other text, both classes counted alike. P is no calibrated
probability of these: ½ is set by harmless prose (docs/toxicity.md).

| P(toxic) | n | mean P | toxic |
|---|---|---|---|
"""
IDENTITIES = """
## By identity
Madlibs of the held-out templates. Within: toxic against other texts of the term. The two others, after Borkan
et al. (2019): the term's calm texts against toxic texts of all other terms (low: the term looks toxic), and
the term's toxic texts against calm ones of the others. ½: share of the term's calm texts that get at least ½.

| term | n | within | calm against toxic others | toxic against calm others | ½ | mean P of calm |
|---|---|---|---|---|---|---|
"""


def write(found: dict[str, Any], out: Path) -> list[str]:
    """Write both files; returns the main numbers, a line each."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "toxicity.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "toxicity.md").write_text(_page(found), encoding="utf-8")
    lines = [f"{name}: AUC {_beside(rows, 'auc')}" for name, rows in found["perspective"].items()]
    return [
        *lines,
        f"InstructGPT's samples: ρ {_beside(found['instructgpt'], 'rho')}",
        f"tweets held out: AUC {_ci(found['tweets']['auc'])}",
        f"madlibs, held-out templates: AUC {_ci(found['madlibs']['auc'])}",
    ]


def _beside(rows: dict[str, Any], name: str) -> str:
    sides = "; ".join(
        f"{rule} {_ci(each)}, difference {_ci(rows['difference'][rule])}"
        for rule, each in rows["vader"].items()
    )
    return f"{_ci(rows[name])}; VADER {sides}"


def _page(found: dict[str, Any]) -> str:
    text = HEAD.format(fingerprint=found["fingerprint"])
    for name, rows in found["perspective"].items():
        auc = rows["auc"]
        text += f"| {name} | {auc['n']} | {auc['n_positive']} | {_ci(auc)} | {_rules(rows)} |\n"
    text += AT_HALF
    for name, rows in found["perspective"].items():
        text += f"| {name} | {_ci(rows['precision'])} | {_ci(rows['recall'])} |\n"
    ranks = found["instructgpt"]
    text += SAMPLES.format(n=f"{ranks['rho']['n']:,}", clusters=ranks["rho"]["n_clusters"])
    text += f"| {_ci(ranks['rho'])} | {_rules(ranks)} |\n\nAUC at ≥ ½: {_ci(ranks['auc'])}.\n"
    text += HELD_OUT + _held_out_row("tweets", found["tweets"])
    text += (
        f"| background, presumed harmless | {found['background']['n']} | | | {_ci(found['background'])} |\n"
    )
    text += _held_out_row("madlibs, four templates", found["madlibs"])
    for name, each in found["madlibs"]["templates"].items():
        text += f"| … {name} | {each['n']} | {_ci(each)} | | |\n"
    if "unseen_words" in found:
        text += _unseen(found["unseen_words"])
    text += CALIBRATION
    for row in found["calibration"]:
        seen = f"{row['predicted']:.2f} | {row['observed']:.2f}" if row["n"] else "– | –"
        text += f"| {row['low']:.1f} to {row['high']:.1f} | {row['n']} | {seen} |\n"
    text += IDENTITIES
    text += "".join(_identity_row(term, row) for term, row in found["madlibs"]["identities"].items())
    if "speed" in found:
        rate = found["speed"]["texts_per_second"]
        text += f"\n## Speed\n{rate:,.0f} continuations of RealToxicityPrompts a second, one core.\n"
    return text


def _rules(rows: dict[str, Any]) -> str:
    return " | ".join(
        f"{_ci(each)} | {_ci(rows['difference'][rule])}" for rule, each in rows["vader"].items()
    )


def _held_out_row(name: str, rows: dict[str, Any]) -> str:
    return (
        f"| {name} | {rows['auc']['n']} | {_ci(rows['auc'])} | {_ci(rows['true_positives'])} | "
        f"{_ci(rows['false_positives'])} |\n"
    )


def _unseen(found: dict[str, Any]) -> str:
    return (
        "\nThe held-out templates hold the adjectives of those that were learnt. A variant that never saw a "
        f"madlib with {', '.join(found['words'])}, on the held-out texts with just these "
        f"(n = {found['auc']['n']}): AUC {_ci(found['auc'])}.\n"
    )


def _identity_row(term: str, row: dict[str, Any]) -> str:
    areas = ("within", "calm_against_toxic_others", "toxic_against_calm_others")
    shown = " | ".join(_ci(row[name], 3) for name in areas)
    calm = f"{row['false_positives']['value']:.2f} | {row['mean_of_calm']:.2f}"
    return f"| {term} | {row['within']['n']} | {shown} | {calm} |\n"


def _ci(estimate: dict[str, Any], digits: int = 3) -> str:
    value, ci = estimate["value"], estimate["ci"]
    if value is None:
        return "–"
    if ci is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{ci[0]:.{digits}f}, {ci[1]:.{digits}f}]"
