"""Published outputs beside published numbers: on files of our own of that shape, and on InstructGPT's."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
from published_files import metrics_of, read_published, write_inputs

MODELS = ("gpt-xl", "gpt-6b", "sft-xl", "sft-6b")
COLUMNS = ("", "model_type", "prompt_type", "context", "ref_text", "sample")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> Path:
    packed = path.suffix == ".gz"
    with (gzip.open if packed else open)(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows({"": number, **row} for number, row in enumerate(rows))
    return path


def answers(right: Mapping[str, int], reference: str, said: str) -> list[dict[str, Any]]:
    """Ten documents with two prompt types; each model gives the first so many of them ``reference``."""
    return [
        {
            "model_type": model,
            "prompt_type": prompt,
            "context": f"Question {number}?\nA:",
            "ref_text": reference,
            "sample": said if number < n else "something else",
        }
        for number in range(10)
        for model, n in right.items()
        for prompt in ("zeroshot", "fewshot")
    ]


RIGHT = dict(zip(MODELS, (2, 4, 5, 9)))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [
        {"task": "SQuADv2", "metric": "f1", "prompt": shot, **{m: 10 * n - 3 for m, n in RIGHT.items()}}
        for shot in ("zero-shot", "few-shot")
    ]
    return write_csv(tmp_path / "table.csv", rows, ["", *rows[0]])


def test_a_benchmark_without_a_task_of_ours(tmp_path: Path, table: Path) -> None:
    path = write_csv(tmp_path / "squadv2_samples.csv", answers(RIGHT, "a red fox|the fox", "The red fox."))
    found = published.measure([path], published.read_table(table), tmp_path, MODELS[:3])
    zero = [cell for cell in found["cells"] if cell["task"] == "squadv2_zeroshot"]
    assert {cell["model"]: cell["mean"] for cell in zero} == {m: n / 10 for m, n in RIGHT.items()}
    assert {cell["model"]: cell["published"] for cell in zero} == {
        m: pytest.approx((10 * n - 3) / 100) for m, n in RIGHT.items()
    }
    assert all(cell["n"] == 10 and cell["missing"] == 0 and cell["metric"] == "squad_f1" for cell in zero)
    whole = next(row for row in found["correlations"] if row["task"] == "squadv2, all prompts")
    assert (whole["cells"], whole["r"]) == (8, pytest.approx(1))
    assert whole["difference"] == pytest.approx(0.03)
    assert found["offline_truth"] == []
    (second, *_), (third, *_) = (pair["deltas"] for pair in found["tax"][:2])
    assert (second["diff"], third["diff"]) == (pytest.approx(0.2), pytest.approx(0.3))
    text = published.markdown(found)
    assert "| gpt-xl | 20.0 (" in text
    assert "sft-xl − gpt-6b" in text


def test_a_file_beside_another_makes_one_policy_a_model(tmp_path: Path) -> None:
    one = write_csv(tmp_path / "fr_to_en_samples.csv.gz", answers(RIGHT, "a|b c d e", "a|b c d e"))
    two = write_csv(tmp_path / "quac_samples.csv", answers(RIGHT, "yes", "yes"))
    files = [read_published(path) for path in (one, two)]
    assert [metrics_of(file) for file in files] == [("bleu",), ("quac_f1",)]
    assert files[0].rows[0].references == ("a|b c d e",)  # a bar in a translation is a bar
    inputs = write_inputs(files, tmp_path / "in", None)
    assert list(inputs.policies) == list(MODELS)
    assert sorted(inputs.tasks.values()) == [
        "fr_to_en_fewshot",
        "fr_to_en_zeroshot",
        "quac_fewshot",
        "quac_zeroshot",
    ]
    lines = (tmp_path / "in" / "gpt-xl.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 2 * 10
    other = write_csv(tmp_path / "tldr_samples.csv", answers({"else": 1}, "x", "y"))
    with pytest.raises(SystemExit, match="tldr is of other models than fr_to_en; give it alone"):
        write_inputs([files[0], read_published(other)], tmp_path / "in", None)


def test_a_document_that_stands_twice(tmp_path: Path) -> None:
    rows = answers({"m": 1}, "x", "x")
    found = read_published(write_csv(tmp_path / "qa_samples.csv", [*rows, *rows]))
    assert len(found.documents) == 20
    assert len({row.key for row in found.rows if row.prompt == "zeroshot"}) == 20


def test_contexts_that_differ_between_prompt_types(tmp_path: Path, table: Path) -> None:
    """A few-shot prompt may stand in the context; then the prompt types have no documents in common."""
    rows = answers(RIGHT, "yes", "yes")
    for row in rows:
        row["context"] = f"{row['prompt_type']}: {row['context']}"
    path = write_csv(tmp_path / "boolq_samples.csv", rows)
    found = published.measure([path], published.read_table(table), tmp_path, ())
    assert all((cell["n"], cell["missing"]) == (10, 0) for cell in found["cells"])
    assert {cell["metric"] for cell in found["cells"]} == {"f1"}
    assert {cell["published"] for cell in found["cells"]} == {None}
    assert found["correlations"] == []
    assert " / – |" in published.markdown(found)


def test_translations_are_scored_as_a_corpus(tmp_path: Path) -> None:
    said = "the cat sat on the mat today"
    path = write_csv(tmp_path / "fr_to_en_samples.csv", answers({"a": 10, "b": 0}, said, said))
    shots = [
        {"task": "FR→EN 15", "metric": "BLEU", "prompt": f"{n}-shot", "a": 39.5} for n in ("zero", "few")
    ]
    lines = published.read_table(write_csv(tmp_path / "t.csv", shots, ["", *shots[0]]))
    cells = published.measure([path], lines, tmp_path, ())["cells"]
    assert {(c["model"], c["metric"], c["published"]) for c in cells} == {
        ("a", "bleu", 0.395),
        ("b", "bleu", None),
    }
    assert [round(c["mean"], 6) for c in cells if c["model"] == "a"] == [1, 1]
    assert all(c["mean"] < 0.1 for c in cells if c["model"] == "b")


def test_nothing_to_score_by(tmp_path: Path) -> None:
    rows = [{"model_type": "m", "prompt_type": "p", "prompt": "q", "completion": "a"}]
    found = read_published(write_csv(tmp_path / "mine.csv", rows, ("", *rows[0])))
    with pytest.raises(SystemExit, match="mine has neither references nor scores"):
        write_inputs([found], tmp_path / "in", None)


def test_columns_of_scores(tmp_path: Path) -> None:
    rows = [
        {"model_type": "m", "prompt_type": "p", "prompt": "q", "completion": "a", "fair": f, "words": 9}
        for f in ("0.25", "")
    ]
    columns = ("", *rows[0])
    found = read_published(write_csv(tmp_path / "mine.csv", rows, columns))
    assert (found.name, found.scores) == ("mine", ("fair",))  # a count is no score
    assert [row.scores["fair"] for row in found.rows] == [0.25, None]
    assert metrics_of(found) == ()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (("prompt_type", "context", "sample"), "has no column model_type; its columns are"),
        (
            ("model_type", "text", "sample"),
            "needs one of the columns question, context, prompt, input; it has",
        ),
    ],
)
def test_files_of_another_shape(tmp_path: Path, columns: Sequence[str], said: str) -> None:
    path = write_csv(tmp_path / "x.csv", [dict.fromkeys(columns, "1")], ("", *columns))
    with pytest.raises(SystemExit, match=said):
        read_published(path)


def test_agreement_by_hand() -> None:
    truth = np.array([True, True, True, False, False])
    says = np.array([True, True, False, False, True])
    score = np.array([0.9, 0.4, 0.2, 0.1, 0.2])
    found = published._agreement(truth, says, score)
    # 3 of 5 agree; by chance .6·.6 + .4·.4 = .52; of the 6 pairs 5 are in order and one is tied
    assert found == {
        "agreement": pytest.approx(0.6),
        "kappa": pytest.approx((0.6 - 0.52) / 0.48),
        "auc": pytest.approx(5.5 / 6),
    }


# --- InstructGPT's files -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def instructgpt(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the report in reports/published is made of, without the tax, with fewer draws."""
    place = shared_data / "instructgpt_samples"
    paths = [place / f"{name}_samples.csv.gz" for name in published.FILES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(published, "RESAMPLES", 200)
        table = published.read_table(place / "paper_table14.csv")
        return published.measure(paths, table, shared_data, ())


@pytest.mark.slow
def test_every_output_meets_its_document(instructgpt: dict[str, Any]) -> None:
    cells = instructgpt["cells"]
    assert len(cells) == 12 * (3 * 2 + 3 + 2)
    assert all((cell["n"], cell["missing"]) == (100, 0) for cell in cells)
    assert {scorer["kind"] for scorer in instructgpt["scorers"]} == {"recorded"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "metric", "least"),
    [
        ("truthfulqa_gen", "true", 0.97),
        ("truthfulqa_gen_instruction", "true", 0.97),
        ("truthfulqa_gen_qa_instruction", "true", 0.97),
        ("truthful_qa, all prompts", "true", 0.97),
        ("truthfulqa_gen", "true_informative", 0.97),
        ("truthfulqa_gen_instruction", "true_informative", 0.97),
        ("truthfulqa_gen_qa_instruction", "true_informative", 0.95),  # 100 questions: measured .955
        ("truthful_qa, all prompts", "true_informative", 0.97),
        ("real_toxicity_biased", "toxicity", 0.9),
        ("real_toxicity, all prompts", "toxicity", 0.9),
        ("drop", "drop_f1", 0.9),
        ("drop_4shot", "drop_f1", 0.9),
    ],
)
def test_models_stand_as_in_table_14(
    instructgpt: dict[str, Any], task: str, metric: str, least: float
) -> None:
    (row,) = [r for r in instructgpt["correlations"] if (r["task"], r["metric"]) == (task, metric)]
    assert row["r"] >= least


@pytest.mark.slow
def test_two_labels_of_table_14_are_swapped(instructgpt: dict[str, Any]) -> None:
    """As the table labels them, instruction and QA + instruct do not fit the outputs."""
    shares: dict[str, list[tuple[float, float]]] = {}
    for cell in instructgpt["cells"]:
        if cell["metric"] == "true":
            shares.setdefault(cell["task"], []).append((cell["mean"], cell["published"]))
    (ours, theirs), (mine, yours) = (
        np.transpose(shares[f"truthfulqa_gen_{name}"]) for name in ("instruction", "qa_instruction")
    )
    assert np.corrcoef(ours, yours)[0, 1] < 0.75
    assert np.corrcoef(mine, theirs)[0, 1] < 0.75


def test_the_files_own_labels_are_right(shared_data: Path) -> None:
    """Behind the same six questions and answers, models often give the same answer to the letter."""
    found = read_published(shared_data / "instructgpt_samples" / "truthful_qa_samples.csv.gz")
    said = {(row.model, row.prompt, row.key): row.output for row in found.rows}
    for model in found.models:
        same = {
            prompt: sum(said[model, prompt, key] == said[model, "QA prompt", key] for key in found.documents)
            for prompt in ("QA + instruction", "instruction prompt")
        }
        assert same["QA + instruction"] > 2 * same["instruction prompt"]


def test_the_table_is_of_shares_of_817(shared_data: Path) -> None:
    """So an answer counts by a threshold: means of probabilities would not all be k/817 to three digits."""
    table = published.read_table(shared_data / "instructgpt_samples" / "paper_table14.csv")
    shares = {round(k / 817, 3) for k in range(818)}
    numbers = [v for key, row in table.items() if key[0] == "Truthful QA" for v in row.values()]
    assert len(numbers) == 72
    assert set(numbers) <= shares
    assert len(shares) < 820  # of the 1,001 numbers with three digits


@pytest.mark.slow
def test_what_the_offline_default_is_worth(instructgpt: dict[str, Any]) -> None:
    found = {row["score"]: row for row in instructgpt["offline_truth"]}
    assert all((row["n"], row["questions"], row["cells"]) == (3600, 100, 36) for row in found.values())
    best = found["rougeL"]  # the default
    assert best["auc"]["value"] == max(row["auc"]["value"] for row in found.values())
    assert best["auc"]["value"] == pytest.approx(0.864, abs=0.002)
    assert best["agreement"]["value"] == pytest.approx(0.774, abs=0.002)
    assert best["kappa"]["value"] == pytest.approx(0.549, abs=0.003)
    # it misses most true answers among the long ones, as aligned models give
    shortest, *_, longest = best["by_length"]
    assert shortest["n"] == longest["n"] == 900
    assert shortest["agreement"] > 0.9
    assert longest["agreement"] < 0.65
    assert longest["true_found"] < 0.5
    for row in found.values():
        for key in ("agreement", "kappa", "auc"):
            low, high = row[key]["ci"]
            assert low < row[key]["value"] < high
            assert high - low < 0.15
