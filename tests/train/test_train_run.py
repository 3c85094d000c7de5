"""A run folder: what is refused, what is written, and that a checkpoint brings everything back."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignbench.errors import UsageError, WorkError
from alignbench.train.config import SFTConfig
from alignbench.train.run import Run


def config(**more: Any) -> SFTConfig:
    return SFTConfig(model="m", data="d", **more)


def create(out: Path, *, resume: bool = False, kind: str = "sft", **more: Any) -> Run:
    return Run.create(out, config(**more), kind=kind, resume=resume, command=["alignbench", "train", kind])


def lines(out: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def draw() -> tuple[float, float, float, float]:
    return random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))


def test_a_folder_that_holds_a_run_is_refused_unless_resumed(tmp_path: Path) -> None:
    create(tmp_path / "run").log(1, loss=1.0)
    with pytest.raises(UsageError, match="--resume"):
        create(tmp_path / "run")
    assert not create(tmp_path / "run", resume=True).finished


def test_resuming_with_other_rows_names_the_set(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.require_same_rows(training=["a", "b"], held_out=["c"])
    run.note()
    create(tmp_path, resume=True).require_same_rows(training=["a", "b"], held_out=["c"])
    with pytest.raises(UsageError, match="the training data are not those"):
        create(tmp_path, resume=True).require_same_rows(training=["b", "a"], held_out=["c"])
    with pytest.raises(UsageError, match="the training and held out data are not those"):
        create(tmp_path, resume=True).require_same_rows(training=["ab"], held_out=[])


def test_a_run_that_wrote_nothing_leaves_nothing_to_refuse(tmp_path: Path) -> None:
    create(tmp_path / "run")
    create(tmp_path / "run")


def test_resume_with_another_config_names_the_key(tmp_path: Path) -> None:
    create(tmp_path, seed=1).note()
    with pytest.raises(UsageError, match=r"seed is 2 but the run .* has 1"):
        create(tmp_path, resume=True, seed=2)
    with pytest.raises(UsageError, match="train sft"):
        create(tmp_path, resume=True, kind="rm")
    create(tmp_path, resume=True, seed=1, save_every=7, keep=3)  # these change no number


def test_a_key_that_is_younger_than_the_run_counts_as_its_default(tmp_path: Path) -> None:
    create(tmp_path).note()
    record = json.loads((tmp_path / "run.json").read_text())
    del record["config"]["warmup"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    create(tmp_path, resume=True)
    with pytest.raises(UsageError, match=r"warmup is 3 but the run .* has 0"):
        create(tmp_path, resume=True, warmup=3)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "metrics.jsonl"])
def test_a_folder_with_another_model_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match=name):
        create(tmp_path)


def test_checkpoints_without_their_run_are_refused(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.note()
    run.save_checkpoint(5, {"weights": torch.ones(2)})
    (tmp_path / "run.json").unlink()
    for resume in (False, True):
        with pytest.raises(UsageError, match="already holds checkpoints"):
            create(tmp_path, seed=7, resume=resume)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        '{"command": "alignbench compare"}',
        '{"kind": "sft", "finished": null, "config": null}',
    ],
)
def test_a_foreign_run_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match="no record of a training run"):
        create(tmp_path, resume=True)


def test_a_run_json_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(UsageError, match="no record of a training run"):
        create(tmp_path)


def test_a_file_and_an_unwritable_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        create(tmp_path / "file")
    with pytest.raises(UsageError, match="not writable"):
        create(tmp_path / "file" / "below")
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(UsageError, match="not writable"):
            create(tmp_path / "closed")


def test_run_json_says_where_the_run_comes_from(tmp_path: Path) -> None:
    run = create(tmp_path, seed=5)
    run.note(parents={"model": "m"}, world="pocket")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["command"] == ["alignbench", "train", "sft"]
    assert record["config"]["seed"] == record["seed"] == 5
    assert {"torch", "transformers", "alignbench", "python"} <= set(record["versions"])
    assert record["parents"] == {"model": "m"}
    assert record["world"] == "pocket"
    assert record["finished"] is None


def test_a_checkpoint_restores_state_generators_and_logs(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.log(1, loss=0.1)
    np.random.randn()  # leaves a cached second normal, which belongs to the state
    state = {"model": {"w": torch.arange(3.0)}, "order": [1, 2], "best": {"score": -1.5, "step": None}}
    run.save_checkpoint(1, state)
    drawn = draw()
    run.log(2, loss=0.2)
    run.time(2, seconds=1.0)
    run.log_rollouts(2, [{"response": "a\u2028b"}, {"response": "c"}])
    run.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # a kill in the middle of a line

    run = create(tmp_path, resume=True)
    loaded = run.load_checkpoint()
    assert loaded is not None
    step, back = loaded
    assert step == 1
    assert torch.equal(back["model"]["w"], torch.arange(3.0))
    assert (back["order"], back["best"]) == ([1, 2], {"score": -1.5, "step": None})
    assert draw() == drawn
    run.log(2, loss=0.5)
    assert lines(tmp_path) == [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 0.5}]
    assert lines(tmp_path, "timings.jsonl") == lines(tmp_path, "rollouts.jsonl") == []


def test_without_a_checkpoint_the_logs_begin_again(tmp_path: Path) -> None:
    create(tmp_path).log(1, loss=0.1)
    run = create(tmp_path, resume=True)
    assert run.load_checkpoint() is None
    assert lines(tmp_path) == []


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    run = create(tmp_path, keep=2)
    for step in (1, 2, 10):
        run.save_checkpoint(step, {"step": step})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-10", "step-2"]
    assert run.load_checkpoint() == (10, {"step": 10})


def test_a_kill_while_saving_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create(tmp_path)
    run.save_checkpoint(1, {"x": 1})
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.save_checkpoint(2, {"x": 2})
    monkeypatch.undo()
    assert run.load_checkpoint() == (1, {"x": 1})
    run.save_checkpoint(2, {"x": 2})  # what the kill left behind is no obstacle
    assert run.load_checkpoint() == (2, {"x": 2})


def test_a_broken_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.save_checkpoint(1, {"x": 1})
    (tmp_path / "checkpoints" / "step-1" / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(WorkError, match="is broken"):
        run.load_checkpoint()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_stops_the_run(tmp_path: Path, value: float) -> None:
    with pytest.raises(WorkError, match="step 7: loss is"):
        create(tmp_path).log(7, loss=value)
