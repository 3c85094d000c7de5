"""Every shipped task is loaded, rendered and planned from local data; and a whole suite in seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from alignbench.compare.plan import Settings, make_plan
from alignbench.errors import DataAbsentError
from alignbench.evaluation.plan import dry_run
from alignbench.evaluation.run import requests_of
from alignbench.evaluation.show import describe, render
from alignbench.tasks.registry import Entry, find_tasks, list_entries, look
from alignbench.tasks.types import Task

ELSEWHERE = "its data set is not in the folder of real data; the tests of its family have rows of its format"
ABSENT = {
    **dict.fromkeys(("cnn_dm", "tldr", "ifeval", "hh_helpful_prompts"), ELSEWHERE),
    **dict.fromkeys(("drop", "drop_4shot", "quac", "quac_2shot", "squad_v2", "squad_v2_4shot"), ELSEWHERE),
    **dict.fromkeys(("wmt15_fr_en", "wmt15_fr_en_15shot", "wsc", "wsc_15shot"), ELSEWHERE),
    **dict.fromkeys(("xstest_safe", "xstest_unsafe"), ELSEWHERE),
    **dict.fromkeys(
        (
            "bbq_disability_status",
            "bbq_gender_identity",
            "bbq_nationality",
            "bbq_physical_appearance",
            "bbq_race_ethnicity",
            "bbq_race_x_gender",
            "bbq_race_x_ses",
            "bbq_religion",
            "bbq_ses",
            "bbq_sexual_orientation",
        ),
        "of BBQ only the category Age is in the folder of real data",
    ),
}
"""Tasks whose data nobody has here, and why that is no gap."""
ENTRIES = list_entries()


def here(name: str, data: Path) -> Task:
    """The task with its documents, or a skip that says why there are none."""
    (task,) = find_tasks([name], mirror=data)
    try:
        task.load()
    except DataAbsentError:
        if name not in ABSENT:
            raise
        pytest.skip(ABSENT[name])
    return task


def test_what_is_excused_exists() -> None:
    assert set(ABSENT) <= {entry.name for entry in ENTRIES}


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES])
def test_a_task_is_loaded_rendered_and_planned(name: str, shared_data: Path) -> None:
    task = here(name, shared_data)
    documents = task.load()
    assert documents
    assert len({document.doc_id for document in documents}) == len(documents)
    for document in (documents[0], documents[len(documents) // 2], documents[-1]):
        requests = requests_of(task, document)
        expected = {"generate": task.samples, "loglikelihood": 1}.get(task.kind, len(document.choices))
        assert len(requests) == expected
        assert "{{" not in document.prompt
        assert "None" not in document.prompt.split("\n")
        assert set(document.correct) <= set(range(len(document.choices)))
    (planned,) = dry_run([task], limit=200)
    assert planned.documents == min(200, len(documents))
    assert planned.requests >= planned.documents
    facts = describe(task)
    assert facts["documents"] == len(documents)
    assert facts["clusters"] <= facts["documents"]
    assert render(task)["text"] == documents[0].prompt
    assert (task.headline in {metric.name for metric in task.metrics}) or (task.judged and not task.metrics)
    assert task.citation or task.family == "pocket"
    assert task.licence or task.family == "pocket"


FEW_SHOT = [entry for entry in ENTRIES if entry.spec is not None and entry.spec.few_shot is not None]


@pytest.mark.parametrize("entry", FEW_SHOT, ids=lambda entry: entry.name)
def test_no_document_is_among_its_own_exemplars(entry: Entry, shared_data: Path) -> None:
    """All documents: a prompt's last part is the tested one, and no part before it begins like that."""
    task = here(entry.name, shared_data)
    assert entry.spec is not None
    assert entry.spec.few_shot is not None
    shots, alone = entry.spec.few_shot, 0
    head = f"{entry.spec.instruction.strip()}\n\n" if entry.spec.instruction else ""
    for document in task.load():
        assert document.prompt.startswith(head)
        *exemplars, own = document.prompt.removeprefix(head).split(shots.separator)
        if len(exemplars) != shots.n:
            continue  # a text that holds the separator itself
        alone += 1
        tested = " ".join(own.casefold().split())
        assert not any(" ".join(shot.casefold().split()).startswith(tested) for shot in exemplars)
    assert alone > 0 or any(shots.separator in document.prompt for document in task.load())


@pytest.mark.parametrize("name", [suite.name for suite in look().suites])
def test_every_suite_is_planned_with_what_is_at_hand(name: str, shared_data: Path, tmp_path: Path) -> None:
    """One that lacks no more than the data excused above, which the notes name."""
    began = time.perf_counter()
    plan = make_plan(["pocket"], [name], out=tmp_path, settings=Settings(mirror=shared_data))
    counted = dry_run(plan.tasks)
    took = time.perf_counter() - began
    members = {entry.name for entry in ENTRIES if name in entry.suites}
    left = members - {task.name for task in plan.tasks}
    assert left <= set(ABSENT)
    notes = [note for note in plan.notes if note.startswith("left out, as their data are not at hand: ")]
    assert left == set(
        ", ".join(notes).removeprefix("left out, as their data are not at hand: ").split(", ")
    ) - {""}
    assert all(task.requests > 0 and task.input_tokens > 0 for task in counted if task.kind != "generate")
    # 7 s for the largest, instructgpt, on two cores; the bound is for a loaded machine
    assert took < 90


def test_the_papers_suite_has_what_the_paper_measured() -> None:
    families = {entry.family for entry in ENTRIES if "instructgpt" in entry.suites}
    assert {"truthfulqa", "toxicity", "bias", "nlp"} <= families
    names = {entry.name for entry in ENTRIES if "instructgpt" in entry.suites}
    zero_and_few = {"drop", "hellaswag", "quac", "rte", "sst2", "squad_v2", "wmt15_fr_en", "wsc"}
    assert zero_and_few <= names
    assert all(any(other.startswith(f"{name}_") for other in names) for name in zero_and_few)
