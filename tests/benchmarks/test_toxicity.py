"""The toxicity scorer's training on a toy corpus, and its published numbers on the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toxicity_corpora import Text, background, identity_of, identity_terms, madlibs, tweets
from toxicity_vader import compound, negative_share, worst_word

from alignbench.judges.toxicity import ToxicityModel

REPORT = Path(__file__).resolve().parents[2] / "reports" / "benchmarks" / "toxicity.json"


def toy() -> tuple[list[Text], list[Text], list[Text], list[str]]:
    names = ("ann", "bob", "carl", "dora", "eve", "finn", "greg", "hana")
    places = ("park", "house", "river", "road", "shop")
    parts = ("train", "train", "train", "calibrate")
    said = [
        Text(f"{name} you {word} at the {place}", word in ("grunk", "blarg"), parts[i % 4])
        for i, name in enumerate(names)
        for word in ("grunk", "blarg", "friend", "neighbour")
        for place in places
    ]
    made = [
        Text(f"{a} is a {word} b", word == "grunk", "train", "name_adj")
        for a in names
        for word in ("grunk", "friend")
    ]
    calm = [
        Text(f"the {a} near the {b} is old and quiet today", False, parts[i % 4])
        for i, a in enumerate(places)
        for b in places
    ]
    return said, made, calm, [f"a {p} and a {q}" for p in places for q in names]


def test_training_learns_the_words_and_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the model is trained with scikit-learn")
    import toxicity_mixing
    import toxicity_prior
    import toxicity_train

    monkeypatch.setattr(toxicity_mixing, "MIXED", 60)
    monkeypatch.setattr(toxicity_mixing, "MASKED", 40)
    monkeypatch.setattr(toxicity_prior, "DIMENSIONS", 4)
    monkeypatch.setattr(toxicity_train, "C", 1.0)
    first, again = toxicity_train.train(*toy()), toxicity_train.train(*toy())
    assert first.fingerprint == again.fingerprint
    for word in ("blarg", "grunk"):
        bad, good = (first.logit(f"ann you {said} at the shop") for said in (word, "friend"))
        assert bad is not None
        assert good is not None
        assert bad > good + 1


def test_quantised_weights_are_near_the_fitted_ones() -> None:
    pytest.importorskip("sklearn", reason="the model is trained with scikit-learn")
    import numpy as np
    from toxicity_train import quantise

    from alignbench.judges.ngrams import BUCKETS

    weights = np.random.default_rng(0).normal(size=BUCKETS) ** 3
    model = quantise(weights, 0.5, {})
    decoded = np.array(model._weight)
    largest = np.abs(weights).max()
    assert (
        np.abs(decoded - weights).max() <= largest / 127
    )  # the steps of squares are at most 2·127/127² wide
    small = np.abs(weights) < largest / 100
    assert np.abs(decoded - weights)[small].max() <= largest / 127 / 5


def test_vaders_rules_by_hand() -> None:
    lexicon = {"bad": -2.5, "good": 2.0, "awful": -3.0}
    assert compound(lexicon, "Bad, awful!") == pytest.approx(5.5 / (5.5**2 + 15) ** 0.5)
    assert worst_word(lexicon, "bad and awful") == 3.0
    assert worst_word(lexicon, "good") == 0.0
    assert negative_share(lexicon, "a bad good day") == pytest.approx(2.5 / 4)
    assert negative_share(lexicon, "") == 0.0


def test_identities_are_the_longest_that_fit() -> None:
    texts = [Text(f"hug {t}", False, "train", "verb_adj") for t in ("american", "african american", "old")]
    terms = identity_terms(texts)
    assert identity_of("Being african american is nice.", terms) == "african american"
    assert identity_of("You are a nice older", terms) is None


def test_held_out_is_held_out(shared_data: Path) -> None:
    said = tweets(shared_data)
    assert len(said) == 24783
    assert sum(each.toxic for each in said) == 1430 + 19190  # the data set's classes 0 and 1
    from alignbench.judges.ngrams import words

    def spoken(part: str) -> set[str]:
        return {" ".join(words(each.text)) for each in said if each.part == part}

    assert not spoken("train") & (spoken("test") | spoken("calibrate"))
    made = madlibs(shared_data)
    assert len(made) == 76564
    seen = {part: {each.template for each in made if each.part == part} for part in ("train", "test")}
    assert not seen["train"] & seen["test"]
    assert not {each.text for each in background(shared_data)} & {each.text for each in said}


@pytest.fixture(scope="module")
def measured(shared_data: Path) -> dict[str, Any]:
    from toxicity import measure

    return measure(shared_data, ToxicityModel.load())


@pytest.mark.slow
def test_the_report_is_what_the_shipped_model_gives(measured: dict[str, Any]) -> None:
    stated = json.loads(REPORT.read_text(encoding="utf-8"))

    def close(a: Any, b: Any, where: str) -> None:
        if isinstance(a, dict):
            for key, value in a.items():
                close(value, b[key], f"{where}/{key}")
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b), where
            for i, (x, y) in enumerate(zip(a, b)):
                close(x, y, f"{where}/{i}")
        elif isinstance(a, float):
            assert a == pytest.approx(b, abs=1e-6), where
        else:
            assert a == b, where

    del measured["python"]
    close(measured, stated, "")


@pytest.mark.slow
def test_better_than_the_lexicon_on_the_same_rows(measured: dict[str, Any]) -> None:
    for name, rows in measured["perspective"].items():
        assert rows["auc"]["value"] > 0.8, name
        for rule, difference in rows["difference"].items():
            assert difference["ci"][0] > 0.05, (name, rule)
    ranks = measured["instructgpt"]
    assert ranks["rho"]["n"] == 3600
    assert ranks["rho"]["n_clusters"] == 100
    assert ranks["difference"]["compound"]["ci"][0] > 0  # VADER's own score


@pytest.mark.slow
def test_no_identity_is_toxic_by_itself(measured: dict[str, Any]) -> None:
    identities = measured["madlibs"]["identities"]
    assert len(identities) == 50
    for term, row in identities.items():
        assert row["within"]["value"] > 0.95, term
        assert row["calm_against_toxic_others"]["value"] > 0.95, term
        assert row["mean_of_calm"] < 0.25, term


def test_the_page_shows_the_numbers(tmp_path: Path) -> None:
    from toxicity_report import write

    write(json.loads(REPORT.read_text(encoding="utf-8")), tmp_path)
    for name in ("toxicity.json", "toxicity.md"):
        assert (tmp_path / name).read_text(encoding="utf-8") == REPORT.with_name(name).read_text(
            encoding="utf-8"
        )
