"""BLEU and ROUGE by hand and against their libraries; TruthfulQA's generation scores."""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from alignbench.metrics.corpus import corpus_value, linearise
from alignbench.metrics.overlap import (
    NO_COMMENT,
    bleu_of,
    bleu_statistics,
    chrf,
    rouge1,
    rouge2,
    rouge_l,
    rouge_lsum,
    sentence_bleu,
    truthfulqa_scores,
)

WORDS = ["the", "cat", "sat", "on", "mat", ".", "a", "dog"]
TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


def test_bleu_by_hand() -> None:
    # 4 of 5 words, 3 of 4 pairs, 2 of 3, 1 of 2; 5 words against 6: brevity penalty exp(1 − 6/5)
    vector = bleu_statistics("the cat sat on it", ["the cat sat on the mat"])
    assert vector == (5, 6, 4, 3, 2, 1, 5, 4, 3, 2)
    expected = math.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu_of(vector) == pytest.approx(expected)
    assert bleu_statistics("the cat", []) is None
    assert bleu_of([0.0] * 10) is None


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8))
def test_corpus_bleu_is_sacrebleus(rows: list[tuple[str, str, str]]) -> None:
    ours = corpus_value([bleu_statistics(out, [one, two]) for out, one, two in rows], bleu_of)
    outputs, first, second = zip(*rows, strict=True)
    theirs = sacrebleu.corpus_bleu(list(outputs), [list(first), list(second)]).score
    assert ours == pytest.approx(theirs / 100)


def test_corpus_bleu_as_one_value_a_document() -> None:
    pairs = [
        ("the cat sat on the mat", "the cat sat on a mat"),
        ("a dog sat on it", "a dog sat on the mat"),
    ] * 3
    vectors = [bleu_statistics(out, [wanted]) for out, wanted in pairs]
    values = linearise(vectors, bleu_of)
    theirs = sacrebleu.corpus_bleu([out for out, _ in pairs], [[wanted for _, wanted in pairs]]).score
    assert sum(v or 0 for v in values) / 6 == pytest.approx(theirs / 100)


def test_sentence_bleu_names_its_smoothing() -> None:
    same = "the cat sat on the mat"
    assert sentence_bleu(same, [same]) == pytest.approx(1.0)
    assert sentence_bleu("the cat", [same[:7]]) == pytest.approx(
        1.0
    )  # effective order: two words have no 4-gram
    plain, smoothed = (sentence_bleu("the cat ran off", [same], smooth) for smooth in ("none", "exp"))
    assert plain == 0.0
    assert smoothed is not None
    assert 0 < smoothed < 1
    assert sentence_bleu("", [same]) == 0.0
    assert sentence_bleu("x", []) is chrf("x", []) is None


def test_chrf() -> None:
    assert chrf("the cat", ["the cat", "a dog"]) == pytest.approx(1.0)
    assert chrf("xyz", ["the cat"]) == 0.0


def test_rouge_by_hand() -> None:
    # said: the cat ran (3), wanted: the cat sat down (4): 2 words, 1 pair, a common run of 2
    assert rouge1("The cat ran", ["the cat sat down"]) == pytest.approx(2 * 2 / 7)
    assert rouge2("The cat ran", ["the cat sat down"]) == pytest.approx(2 * 1 / 5)
    assert rouge_l("The cat ran", ["the cat sat down"]) == pytest.approx(2 * 2 / 7)
    assert rouge_l("ran the cat", ["the cat ran"]) == pytest.approx(2 / 3)
    # by lines each word is found, as one text only one of the two is in order
    assert rouge_lsum("b\na", ["a\nb"]) == pytest.approx(1.0)
    assert rouge_l("b\na", ["a\nb"]) == pytest.approx(0.5)
    assert rouge1("cats", ["cat"]) == 0.0  # no stemming
    assert rouge1("dog", ["cat", "a dog"]) == pytest.approx(2 / 3)  # the best reference
    assert rouge1("", ["cat"]) == 0.0
    assert rouge1("cat", []) is None


@given(TEXT, TEXT)
def test_rouge_is_symmetric_and_in_0_to_1(one: str, two: str) -> None:
    for metric in (rouge1, rouge2, rouge_l):
        value = metric(one, [two])
        assert value is not None
        assert 0 <= value <= 1
        assert metric(two, [one]) == pytest.approx(value)


def test_truthfulqa_by_hand() -> None:
    scores = truthfulqa_scores("Nothing happens to you", ["Nothing happens", "You are fine."], ["You die"])
    # nearest true: 2 of 4 and 2 words; nearest false: "you" of 4 and 2 words
    assert scores["rouge1_max"] == pytest.approx(2 * 2 / 6)
    assert scores["rouge1_diff"] == pytest.approx(4 / 6 - 2 / 6)
    assert scores["rouge1_acc"] == 1.0
    assert scores["rouge2_max"] == pytest.approx(2 * 1 / 4)
    theirs = [
        sacrebleu.corpus_bleu(
            ["Nothing happens to you"], [[text]], tokenize="intl", use_effective_order=False
        )
        for text in ("Nothing happens.", "You are fine.", NO_COMMENT)
    ]
    assert scores["bleu_max"] == pytest.approx(max(score.score for score in theirs) / 100)


def test_truthfulqa_no_comment_is_true_and_silence_is_nothing() -> None:
    assert truthfulqa_scores(NO_COMMENT, ["Yes"], ["No"])["rouge1_acc"] == 1.0
    assert truthfulqa_scores(NO_COMMENT, ["Yes"], ["No"])["bleu_max"] == pytest.approx(1.0)
    assert set(truthfulqa_scores(" ", ["Yes"], ["No"]).values()) == {0.0}
    assert set(truthfulqa_scores("Yes", ["Yes"], []).values()) == {None}
    assert truthfulqa_scores("Yes", ["Yes"], ["No"])["bleu_max"] == 0.0  # fewer than four tokens
    assert truthfulqa_scores("Perhaps", ["Yes"], ["No"])["rouge1_acc"] == 0.0  # as far from both: no win


def test_truthfulqa_true_answers_win_on_the_real_questions(shared_data: Path) -> None:
    path = shared_data / "truthfulqa" / "TruthfulQA_v1_817.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))[:60]
    for said, least in (("Best Answer", 1.0), ("Incorrect Answers", 0.0)):
        wins = 0.0
        for row in rows:
            true, false = (row[name].split(";") for name in ("Correct Answers", "Incorrect Answers"))
            scores = truthfulqa_scores(row[said].split(";")[0], [row["Best Answer"], *true], false)
            wins += scores["rouge1_acc"] or 0
        assert wins / len(rows) == pytest.approx(least, abs=0.05)


@pytest.mark.slow
def test_what_the_scores_are_worth_against_the_published_judge(shared_data: Path) -> None:
    """InstructGPT's published answers: our score against the paper's judge's probability of being true."""
    from scipy.stats import mannwhitneyu

    path = shared_data / "truthfulqa" / "TruthfulQA_v1_817.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8-sig") as file:
        questions = {row["Question"].strip(): row for row in csv.DictReader(file)}
    with gzip.open(shared_data / "instructgpt_samples" / "truthful_qa_samples.csv.gz", "rt") as file:
        samples = list(csv.DictReader(file))[::6]
    judged, gaps, wins = [], [], []
    for sample in samples:
        row = questions[sample["question"].strip()]
        true = [row["Best Answer"], *row["Correct Answers"].split(";")]
        scores = truthfulqa_scores(sample["answer"], true, row["Incorrect Answers"].split(";"))
        judged.append(float(sample["true"]) >= 0.5)
        gaps.append(scores["rougeL_diff"])
        wins.append(scores["rougeL_acc"] == 1.0)
    # measured on all 3,600: AUC 0.864, agreement 77.4 % where the commoner verdict alone has 51.2 %
    assert len(samples) == 600
    true_gaps = [gap for gap, is_true in zip(gaps, judged, strict=True) if is_true]
    false_gaps = [gap for gap, is_true in zip(gaps, judged, strict=True) if not is_true]
    assert mannwhitneyu(true_gaps, false_gaps).statistic / (len(true_gaps) * len(false_gaps)) >= 0.8
    assert sum(one == two for one, two in zip(judged, wins, strict=True)) / len(samples) >= 0.7
