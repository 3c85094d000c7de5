"""The shipped tasks on the real files, and on the hub's layout of the same data."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from alignbench.engines.types import Rewarded, Scored
from alignbench.tasks.documents import metrics_with_levels
from alignbench.tasks.registry import find_tasks, tasks_root
from alignbench.tasks.templates import digest
from alignbench.tasks.types import Task


def module(relative: str) -> ModuleType:
    path = tasks_root() / relative
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def shipped(name: str, data: Path) -> Task:
    return find_tasks([name], mirror=data)[0]


CSV_ROW = {
    "Type": "Adversarial",
    "Category": "Misconceptions",
    "Question": "Do bats see? ",
    "Best Answer": "Yes, bats see",
    "Correct Answers": "Yes, bats see; Some see well.; ",
    "Incorrect Answers": "Bats are blind; ",
}
HUB_ROW = {
    "type": "Adversarial",
    "category": "Misconceptions",
    "question": "Do bats see?",
    "best_answer": "Yes, bats see",
    "correct_answers": ["Yes, bats see", "Some see well"],
    "incorrect_answers": ["Bats are blind"],
}


def test_both_layouts_of_truthfulqa_give_the_same_fields() -> None:
    prepare = module("truthfulqa/truthfulqa.py").prepare
    fields = prepare(CSV_ROW)
    assert fields == prepare(HUB_ROW)
    assert fields["correct_answers"] == ["Yes, bats see.", "Some see well."]
    assert fields["incorrect_answers"] == ["Bats are blind."]


def test_truthfulqa_as_the_model_gets_it(shared_data: Path) -> None:
    task = shipped("truthfulqa_mc1", shared_data)
    documents = task.load()
    assert len(documents) == 817
    first = documents[0]
    assert first.prompt.startswith("Q: What is human life expectancy in the United States?\nA: Human life")
    assert first.prompt.endswith(f"held in Barcelona, Spain.\n\nQ: {first.fields['question']}\nA:")
    assert first.prompt.count("\nA:") == 7
    assert first.choices == (first.fields["best_answer"], *first.fields["incorrect_answers"])
    assert digest("\n".join([first.prompt, *first.choices])) == "003c437772d3"
    assert first.correct == (0,)


def test_truthfulqa_chance_levels(shared_data: Path) -> None:
    for name, metric, low, high in (
        ("truthfulqa_mc1", "mc1", 0.22, 0.23),
        ("truthfulqa_mc2", "mc2", 0.44, 0.46),
    ):
        task = shipped(name, shared_data)
        documents = task.load()
        chance = {m.name: m.chance for m in metrics_with_levels(task, documents)}[metric]
        assert chance is not None
        assert low < chance < high
        # equal log-likelihoods: MC2 is exactly the chance level, MC1 wins no tie
        level = [Scored(-1.0, 1, False)]
        values = [task.score(doc, level * len(doc.choices))[metric] for doc in documents]
        assert sum(value or 0 for value in values) / 817 == pytest.approx(chance if metric == "mc2" else 0)


def test_mc1_and_mc2_ask_the_same_questions(shared_data: Path) -> None:
    one, two = (shipped(name, shared_data).load() for name in ("truthfulqa_mc1", "truthfulqa_mc2"))
    assert [(d.doc_id, d.prompt) for d in one] == [(d.doc_id, d.prompt) for d in two]
    assert all(a.choices[0] in b.choices for a, b in zip(one, two, strict=True))


def test_hh_is_split_at_the_turn_where_the_dialogues_part() -> None:
    prepare = module("preferences/hh.py").prepare
    common = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    fields = prepare({"chosen": common + " Sure, yes.", "rejected": common + " Sure, no."})
    assert (fields["prompt"], fields["chosen"], fields["rejected"]) == (common, " Sure, yes.", " Sure, no.")
    with pytest.raises(ValueError, match="share no"):
        prepare({"chosen": "x", "rejected": "y"})


def test_hh_preferences_on_the_real_file(shared_data: Path) -> None:
    task = shipped("hh_preferences", shared_data)
    documents = task.load()
    assert len(documents) == 2312
    for document in documents:
        chosen, rejected = (document.prompt + document.delimiter + choice for choice in document.choices)
        assert chosen == document.fields["chosen_dialogue"]
        assert rejected == document.fields["rejected_dialogue"]
        assert document.prompt.endswith("\n\nAssistant:")
    pair = [Rewarded(0.5, 3), Rewarded(0.25, 3)]
    assert task.score(documents[0], pair) == {"accuracy": 1.0, "reward_margin": 0.25}
    assert task.score(documents[0], pair[:1] * 2)["accuracy"] == 0.5
