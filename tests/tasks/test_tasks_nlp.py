"""sst2, rte and hellaswag: on the real files, and on the layout that the hub's cards describe."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignbench.engines.types import Scored
from alignbench.tasks.documents import metrics_with_levels
from alignbench.tasks.registry import find_tasks
from alignbench.tasks.types import Document, Task

# rows of our own, with the columns and types of the data sets' cards; the test splits there have no labels
SST2 = [
    {"idx": i, "sentence": f"a {word} film {i} ", "label": label}
    for i, (word, label) in enumerate([("fine", 1), ("dull", 0)] * 4)
]
RTE = [
    {"sentence1": f"Ann lives in town {i // 2}.", "sentence2": claim, "label": label, "idx": i}
    for i, (claim, label) in enumerate([("Ann lives somewhere.", 0), ("Ann is a baker.", 1)] * 4)
]
HELLASWAG = [
    {
        "ind": 24 + i,
        "activity_label": "Baking bread",
        "ctx_a": f"[header] How to bake loaf {i} [title] Mix the flour. [step] Add water [x y] and stir.",
        "ctx_b": "the baker",
        "ctx": "",
        "endings": ["waits [step] for it.", " flies  away.", "sings.", "is a loaf [title] and rests."],
        "source_id": f"wikihow~{i // 2}",
        "split": "val",
        "split_type": "indomain",
        "label": str(i % 4),
    }
    for i in range(12)
]
LAYOUTS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "sst2": ("stanfordnlp/sst2/data", SST2),
    "rte": ("nyu-mll/glue/rte", RTE),
    "hellaswag": ("Rowan/hellaswag/data", HELLASWAG),
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror with the files as the hub names them; the other splits hold what no task may read."""
    mirror = tmp_path_factory.mktemp("hub")
    for folder, rows in LAYOUTS.values():
        place = mirror / folder
        place.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), place / "validation-00000-of-00001.parquet")
        for split in ("train", "test"):
            pq.write_table(pa.table({"wrong": [1]}), place / f"{split}-00000-of-00001.parquet")
    return mirror


def task(name: str, data: Path) -> Task:
    return find_tasks([name], mirror=data)[0]


def levels(found: Task) -> dict[str, tuple[float | None, float | None]]:
    return {m.name: (m.chance, m.majority) for m in metrics_with_levels(found, found.load())}


def test_sst2_from_the_hubs_layout(hub: Path) -> None:
    first, second = task("sst2", hub).load()[:2]
    assert first.prompt.endswith("one of these two words.\n\nText: a fine film 0\nSentiment:")
    assert (first.choices, first.delimiter) == (("negative", "positive"), " ")
    assert (first.target, second.target, first.doc_id) == ("positive", "negative", "0")


def test_rte_from_the_hubs_layout(hub: Path) -> None:
    first, second, third = task("rte", hub).load()[:3]
    assert first.prompt.endswith(
        "Answer yes or no.\n\nPassage: Ann lives in town 0.\nClaim: Ann lives somewhere.\n"
        "Does the claim follow?"
    )
    assert (first.target, second.target) == ("yes", "no")
    assert first.cluster == second.cluster != third.cluster


def test_hellaswag_from_the_hubs_layout(hub: Path) -> None:
    first, second, third = task("hellaswag", hub).load()[:3]
    assert first.prompt == ("Baking bread: How to bake loaf 0. Mix the flour. Add water and stir. The baker")
    assert first.choices == ("waits for it.", "flies away.", "sings.", "is a loaf. and rests.")
    assert (first.target, second.target) == ("waits for it.", "flies away.")
    assert first.cluster == second.cluster != third.cluster
    assert re.fullmatch(r"24-[0-9a-f]{12}", first.doc_id)


def test_hellaswag_by_byte_and_by_sum_can_differ(hub: Path) -> None:
    found = task("hellaswag", hub)
    document = found.load()[0]
    # "sings." has the greatest sum, "waits for it." the greatest sum a byte
    sums = [Scored(-value, 1, False) for value in (10.0, 30.0, 9.0, 40.0)]
    values = found.score(document, sums)
    assert (values["accuracy_bytes"], values["accuracy"]) == (1.0, 0.0)
    assert values["accuracy_tokens"] == 0.0  # all are one token here, so as by the sum


@pytest.mark.parametrize("name", ["sst2", "rte", "hellaswag"])
def test_five_shots_of_the_hubs_layout_say_who_they_are(hub: Path, name: str) -> None:
    zero, five = task(name, hub).load(), task(f"{name}_5shot", hub).load()
    for plain, shown in zip(zero, five, strict=True):
        assert (plain.doc_id, plain.choices, plain.correct) == (shown.doc_id, shown.choices, shown.correct)
        _no_leak(plain, shown, zero)


def _no_leak(plain: Document, shown: Document, pool: list[Document]) -> None:
    """Five exemplars, each a document of the pool with its target; none the tested one or of its cluster."""
    instruction, _, own = plain.prompt.rpartition("\n\n")
    assert shown.prompt.startswith(instruction)
    assert shown.prompt.endswith(f"\n\n{own}")
    exemplars = shown.prompt.removeprefix(instruction).removesuffix(f"\n\n{own}").strip("\n").split("\n\n")
    assert len(exemplars) == 5
    by_text = {f"{doc.prompt.rpartition(chr(10) * 2)[2]} {doc.target}": doc for doc in pool}
    for text in exemplars:
        assert by_text[text].cluster != plain.cluster


# --- the real files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n", "labels"),
    [
        ("sst2", 872, {"positive": 444, "negative": 428}),
        ("rte", 277, {"yes": 146, "no": 131}),
        ("hellaswag", 1000, None),
    ],
)
def test_the_real_files(shared_data: Path, name: str, n: int, labels: dict[str, int] | None) -> None:
    documents = task(name, shared_data).load()
    assert len(documents) == n
    if labels:
        assert Counter(doc.target for doc in documents) == labels
    if name == "hellaswag":
        assert not any(mark in doc.prompt for doc in documents for mark in ("  ", "["))


def test_the_order_of_the_labels_on_real_rows(shared_data: Path) -> None:
    """Rows that leave no doubt, found by their words."""
    sst2 = {doc.prompt: doc.target for doc in task("sst2", shared_data).load()}
    for words, target in (
        ("it 's a charming and often affecting journey", "positive"),
        ("unflinchingly bleak and desperate", "negative"),
        ("a sequel that 's much too big for its britches", "negative"),
    ):
        assert [found for prompt, found in sst2.items() if words in prompt] == [target]
    rte = {doc.prompt: doc.target for doc in task("rte", shared_data).load()}
    for words, target in (
        ("Claim: Christopher Reeve had an accident.", "no"),  # the passage tells of his widow's death
        ("Claim: Breast milk may help fight cervical cancer.", "yes"),
        ("Claim: Pope John Paul II was born in Poland.", "no"),
    ):
        assert {found for prompt, found in rte.items() if words in prompt} == {target}


def test_levels_on_the_real_files(shared_data: Path) -> None:
    assert levels(task("sst2", shared_data)) == {"accuracy": (0.5, pytest.approx(444 / 872))}
    assert levels(task("rte_5shot", shared_data)) == {"accuracy": (0.5, pytest.approx(146 / 277))}
    assert levels(task("hellaswag", shared_data)) == {
        "accuracy_bytes": (0.25, None),
        "accuracy": (0.25, None),
        "accuracy_tokens": (0.25, None),
    }


@pytest.mark.parametrize("name", ["sst2", "rte", "hellaswag"])
def test_five_shots_of_the_real_files(shared_data: Path, name: str) -> None:
    zero, five = task(name, shared_data).load(), task(f"{name}_5shot", shared_data).load()
    for plain, shown in zip(zero, five, strict=True):
        _no_leak(plain, shown, zero)
    if name == "sst2":
        assert {doc.prompt.count("Sentiment: positive") for doc in five} == {3}


def test_claims_on_one_passage_are_one_cluster(shared_data: Path) -> None:
    documents = task("rte", shared_data).load()
    assert len({doc.cluster for doc in documents}) == 274
