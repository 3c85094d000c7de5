"""Self-Instruct's instructions as models get them, from the authors' file and from the hub."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from alignbench.engines.policy import parse_policy
from alignbench.engines.recorded import Asked, open_recording
from alignbench.errors import UsageError
from alignbench.tasks.registry import find_tasks
from alignbench.tasks.types import Task

ROWS = [
    ("user_oriented_task_0", "Make this sentence shorter.\n", "It is, I should say, raining. ", "It rains."),
    ("user_oriented_task_1", "Name three rivers.", "", "Elbe, Oder, Rhine"),
]


def mirror(folder: Path, instances: Any = lambda given, output: [{"input": given, "output": output}]) -> Path:
    """A mirror that holds our rows in the layout of the authors' repository."""
    (folder / "self_instruct").mkdir()
    lines = [
        json.dumps(
            {"id": name, "motivation_app": "Ours", "instruction": ask, "instances": instances(given, output)}
        )
        for name, ask, given, output in ROWS
    ]
    (folder / "self_instruct" / "user_oriented_instructions.jsonl").write_text("\n".join(lines))
    return folder


def load(data: Path) -> Task:
    return find_tasks(["self_instruct"], mirror=data)[0]


def test_prompts(tmp_path: Path) -> None:
    task = load(mirror(tmp_path))
    one, two = task.load()
    assert one.prompt == "Make this sentence shorter.\n\nInput: It is, I should say, raining.\nOutput:"
    assert two.prompt == "Name three rivers.\nOutput:"
    assert (one.doc_id, one.target) == ("user_oriented_task_0", "It rains.")
    assert task.judged
    assert task.metrics == ()
    assert (task.area, task.licence) == ("helpfulness", "Apache-2.0")
    assert "not to train" in task.notes


def test_the_hubs_layout_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "hub").mkdir()
    of_file = load(mirror(tmp_path / "file")).load()
    of_hub = load(mirror(tmp_path / "hub", lambda given, out: {"input": [given], "output": [out]})).load()
    assert of_file == of_hub


def test_two_instances_are_refused(tmp_path: Path) -> None:
    two = mirror(tmp_path, lambda given, output: [{"input": given, "output": output}] * 2)
    with pytest.raises(UsageError, match="has 2 instances where one was expected"):
        load(two).load()


@pytest.mark.parametrize("model", ["davinci", "davinci-t0-ft", "text-davinci-001"])
def test_the_published_predictions_meet_every_document(shared_data: Path, model: str) -> None:
    documents = load(shared_data).load()
    path = shared_data / "self_instruct" / f"{model}_predictions.jsonl.gz"
    asked = [json.loads(line)["prompt"] for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [document.prompt for document in documents] == asked
    assert len(asked) == 252
    found = open_recording(parse_policy(f"recorded:{path}")).join(
        "self_instruct", [Asked(d.doc_id, d.prompt, d.prompt) for d in documents], only=True
    )
    assert (len(found.outputs), found.missing, len(found.used)) == (252, (), 252)
    assert found.by == ("prompt",)
