"""What the shipped toxicity scorer is worth, beside a lexicon.

    python benchmarks/toxicity.py --data DIR [--quick]

DIR holds the files that toxicity_corpora.py, toxicity_vader.py and this file name. Writes
reports/benchmarks/toxicity.json and .md. ``--quick`` leaves out what needs another training.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import platform
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toxicity_corpora import Text, background, identity_of, identity_terms, madlibs, tweets, unlabelled
from toxicity_mixing import in_other_text
from toxicity_report import write
from toxicity_vader import RULES, read_lexicon

from alignbench.judges.toxicity import ToxicityModel
from alignbench.stats import mean_interval
from alignbench.stats.ranking import (
    Ranking,
    area,
    area_difference,
    spearman,
    spearman_difference,
)

PROMPTS = "real_toxicity_prompts/rtp_quark_val.jsonl.gz"
SAMPLES = "instructgpt_samples/real_toxicity_samples.csv.gz"
TOXIC = 0.5
"""Perspective's score from which a text counts as toxic (Gehman et al. 2020)."""
LOOKED_AT = 5
"""One in so many rows of RealToxicityPrompts was looked at while the model's settings were chosen."""
REPORTS = Path(__file__).resolve().parents[1] / "reports" / "benchmarks"
HELD_OUT_WORDS = ("stupid", "dumb", "vile", "filthy", "nasty", "awful", "kind", "fun", "gracious", "lovely")
"""Adjectives that the variant does not see; it sees none of their forms in the madlibs, though in tweets."""

Score = Callable[[str], float]


@dataclass(frozen=True)
class Scored:
    """A text with Perspective's ``toxicity``; ``cluster``: what it shares with others."""

    text: str
    toxicity: float
    cluster: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=REPORTS, metavar="DIR")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    found = measure(options.data, ToxicityModel.load())
    found["speed"] = speed(options.data)
    if not options.quick:
        found["unseen_words"] = unseen_words(options.data)
    for line in write(found, options.out):
        print(line)


def measure(data: Path, model: ToxicityModel) -> dict[str, Any]:
    """All that the model alone can be asked, JSON-able."""
    lexicon = read_lexicon(data)
    rules: dict[str, Score] = {
        name: lambda text, rule=rule: rule(lexicon, text) for name, rule in RULES.items()
    }
    labelled, sentences = tweets(data), background(data)
    prompts, continuations = real_toxicity_prompts(data)
    areas = {
        f"{what}{which}": compare_areas(rows, model.probability, rules)
        for what, every in (("prompts", prompts), ("continuations", continuations))
        for which, rows in (("", every), (", not looked at", [row for row in every if not looked_at(row)]))
    }
    return {
        "fingerprint": model.fingerprint,
        "python": platform.python_version(),
        "perspective": areas,
        "instructgpt": compare_ranks(instructgpt_samples(data), model.probability, rules),
        "tweets": on_tweets(labelled, model.probability),
        "calibration": calibration(labelled, sentences, model.probability),
        "background": rate(
            [model.probability(each.text) >= 0.5 for each in sentences if each.part == "test"]
        ),
        "madlibs": on_madlibs(madlibs(data), model.probability),
    }


def real_toxicity_prompts(data: Path) -> tuple[list[Scored], list[Scored]]:
    """Prompts and continuations that Perspective scored."""
    with gzip.open(data / PROMPTS, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    sides = [
        [
            Scored(row[side]["text"], row[side]["toxicity"], row["filename"])
            for row in rows
            if row[side]["toxicity"] is not None
        ]
        for side in ("prompt", "continuation")
    ]
    return sides[0], sides[1]


def looked_at(row: Scored) -> bool:
    return zlib.crc32(row.cluster.encode()) % LOOKED_AT == 0


def instructgpt_samples(data: Path) -> list[Scored]:
    """Samples of 12 models under three prompts; what they continue is the cluster."""
    with gzip.open(data / SAMPLES, "rt", encoding="utf-8", newline="") as file:
        return [Scored(row["sample"], float(row["toxicity"]), row["context"]) for row in csv.DictReader(file)]


def compare_areas(rows: Sequence[Scored], score: Score, rules: dict[str, Score]) -> dict[str, Any]:
    """Areas under the ROC curve at Perspective ≥ ½, the lexicon's by each rule, and the differences to each;
    precision and recall where the scorer says ≥ ½."""
    toxic = [row.toxicity >= TOXIC for row in rows]
    clusters = [row.cluster for row in rows]
    ours = [score(row.text) for row in rows]
    theirs = {name: [rule(row.text) for row in rows] for name, rule in rules.items()}
    areas = {name: area(scores, toxic, clusters) for name, scores in theirs.items()}
    said = [value >= 0.5 for value in ours]
    return {
        "auc": shown(area(ours, toxic, clusters)),
        "vader": {name: shown(each) for name, each in areas.items()},
        "difference": {
            name: shown(area_difference(ours, scores, toxic, clusters)) for name, scores in theirs.items()
        },
        "precision": rate([t for t, s in zip(toxic, said, strict=True) if s]),
        "recall": rate([s for t, s in zip(toxic, said, strict=True) if t]),
    }


def compare_ranks(rows: Sequence[Scored], score: Score, rules: dict[str, Score]) -> dict[str, Any]:
    """Spearman's ρ with Perspective's score, as ``compare_areas``."""
    target, clusters = [row.toxicity for row in rows], [row.cluster for row in rows]
    ours = [score(row.text) for row in rows]
    theirs = {name: [rule(row.text) for row in rows] for name, rule in rules.items()}
    rhos = {name: spearman(scores, target, clusters) for name, scores in theirs.items()}
    return {
        "rho": shown(spearman(ours, target, clusters)),
        "vader": {name: shown(each) for name, each in rhos.items()},
        "difference": {
            name: shown(spearman_difference(ours, scores, target, clusters))
            for name, scores in theirs.items()
        },
        "auc": shown(area(ours, [value >= TOXIC for value in target], clusters)),
    }


def on_tweets(texts: Sequence[Text], score: Score) -> dict[str, Any]:
    """Tweets of the part ``test``."""
    rows = [each for each in texts if each.part == "test"]
    toxic, scores = [each.toxic for each in rows], [score(each.text) for each in rows]
    return {"auc": shown(area(scores, toxic)), **rates_at_half(scores, toxic)}


def calibration(texts: Sequence[Text], sentences: Sequence[Text], score: Score) -> list[dict[str, Any]]:
    """Tweets of the part ``test``, each beside a stretch of background, by the probability that they got:
    ``observed`` is the share of toxic ones, both classes counted alike."""
    scored = [(score(each.text), each.toxic) for each in in_other_text(texts, sentences, "test")]
    share = sum(toxic for _, toxic in scored) / len(scored)
    bins = []
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        within = [
            (p, toxic, 0.5 / share if toxic else 0.5 / (1 - share)) for p, toxic in scored if low <= p < high
        ]
        weight = sum(w for _, _, w in within)
        bins.append(
            {
                "low": low,
                "high": min(1.0, high),
                "n": len(within),
                "predicted": sum(p * w for p, _, w in within) / weight if within else None,
                "observed": sum(w for _, toxic, w in within if toxic) / weight if within else None,
            }
        )
    return bins


def on_madlibs(texts: Sequence[Text], score: Score) -> dict[str, Any]:
    """The held-out templates: all, by template, and for each identity term the three areas of Borkan et al.
    (2019): within the term; its non-toxic texts against toxic texts of the others; the reverse."""
    terms = identity_terms(texts)
    rows = [each for each in texts if each.part == "test"]
    scores = {each.text: score(each.text) for each in rows}
    by_template = {
        name: shown(_area_of([each for each in rows if each.template == name], scores))
        for name in sorted({each.template for each in rows})
    }
    named = [(each, identity_of(each.text, terms)) for each in rows]
    identities = {}
    for term in sorted(terms):
        of_term = [each for each, found in named if found == term]
        others = [each for each, found in named if found and found != term]
        calm, toxic = ([each for each in of_term if each.toxic == kind] for kind in (False, True))
        calm_others, toxic_others = (
            [each for each in others if each.toxic == kind] for kind in (False, True)
        )
        identities[term] = {
            "within": shown(_area_of(of_term, scores)),
            "calm_against_toxic_others": shown(_area_of(calm + toxic_others, scores)),
            "toxic_against_calm_others": shown(_area_of(toxic + calm_others, scores)),
            "false_positives": rate([scores[each.text] >= 0.5 for each in calm]),
            "mean_of_calm": sum(scores[each.text] for each in calm) / len(calm),
        }
    at_half = rates_at_half([scores[each.text] for each in rows], [each.toxic for each in rows])
    return {
        "auc": shown(_area_of(rows, scores)),
        **at_half,
        "templates": by_template,
        "identities": identities,
    }


def _area_of(rows: Sequence[Text], scores: dict[str, float]) -> Ranking:
    return area([scores[each.text] for each in rows], [each.toxic for each in rows])


def unseen_words(data: Path) -> dict[str, Any]:
    """A variant, trained without the madlibs that hold ``HELD_OUT_WORDS``, on the held-out templates with
    just these words: what the area there owes to words that were learnt."""
    from toxicity_train import train

    texts = madlibs(data)
    hidden = [each for each in texts if set(HELD_OUT_WORDS) & set(each.text.lower().strip(".").split())]
    without = set(hidden)
    known = [each for each in texts if each not in without]
    model = train(tweets(data), known, background(data), unlabelled(data))
    rows = [each for each in hidden if each.part == "test"]
    found = shown(_area_of(rows, {each.text: model.probability(each.text) for each in rows}))
    return {"words": list(HELD_OUT_WORDS), "auc": found}


def speed(data: Path) -> dict[str, float]:
    """Continuations a second, read for the first time; the best of three."""
    texts = [row.text for row in real_toxicity_prompts(data)[1]]
    seconds = []
    for _ in range(3):
        model = ToxicityModel.load()
        started = time.perf_counter()
        for text in texts:
            model.probability(text)
        seconds.append(time.perf_counter() - started)
    return {"texts": len(texts), "texts_per_second": len(texts) / min(seconds)}


def rates_at_half(scores: Sequence[float], toxic: Sequence[bool]) -> dict[str, Any]:
    said = [(value >= 0.5, label) for value, label in zip(scores, toxic, strict=True)]
    return {
        "true_positives": rate([s for s, label in said if label]),
        "false_positives": rate([s for s, label in said if not label]),
    }


def rate(values: Sequence[bool]) -> dict[str, Any]:
    found = mean_interval([float(value) for value in values], bounds=(0.0, 1.0))
    return {"value": found.mean, "ci": found.ci, "n": found.n}


def shown(ranking: Ranking) -> dict[str, Any]:
    kept = {"value": ranking.value, "ci": ranking.ci, "n": ranking.n, "n_clusters": ranking.n_clusters}
    if ranking.n_positive is not None:
        kept["n_positive"] = ranking.n_positive
    if ranking.p is not None:
        kept["p"] = ranking.p
    return {**kept, "method": ranking.method}


if __name__ == "__main__":
    sys.exit(main())
