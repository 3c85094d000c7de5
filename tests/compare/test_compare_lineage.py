"""What a policy's folder says of its training."""

from __future__ import annotations

import json
from pathlib import Path

from alignbench.compare import lineage
from alignbench.engines.policy import parse_policy


def test_curves(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "loss": 2.0, "lr": 0.1},
        {"step": 2, "loss": 1.5, "lr": 0.1, "note": "text", "done": True},
        {"step": 2, "eval": {"accuracy": 0.6, "ci": [0.5, 0.7], "deep": {"loss": 0.4}}},
        {"step": 3, "loss": None, "lr": float("inf")},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '\n{"step": 4, "lo')  # a kill cut the last line
    (tmp_path / "run.json").write_text('{"kind": "rm"}')
    found = lineage.training_curves("rm", tmp_path)
    assert found is not None
    assert (found.policy, found.kind, found.steps) == ("rm", "rm", [1, 2, 3])
    assert found.series == {
        "loss": [2.0, 1.5, None],
        "lr": [0.1, 0.1, None],
        "eval_accuracy": [None, 0.6, None],
        "eval_deep_loss": [None, 0.4, None],
    }


def test_no_curves(tmp_path: Path) -> None:
    assert lineage.training_curves("a", tmp_path) is None
    assert lineage.training_curves("a", None) is None
    (tmp_path / "metrics.jsonl").write_text("not json\n[1]\n")
    assert lineage.training_curves("a", tmp_path) is None


def test_a_long_curve_is_thinned(tmp_path: Path) -> None:
    n = 3 * lineage.MAX_POINTS
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {i}, "kl": {i}}}\n' for i in range(n)))
    found = lineage.training_curves("ppo", tmp_path)
    assert found is not None
    assert len(found.steps) == lineage.MAX_POINTS
    assert found.series["kl"] == [float(step) for step in found.steps]


def test_held_out_accuracy(tmp_path: Path) -> None:
    assert lineage.held_out_accuracy(tmp_path) is None
    record = {"eval": {"accuracy": 0.61, "stderr": 0.02, "ci": [0.57, 0.65], "n": 400, "n_prompts": 90}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    found = lineage.held_out_accuracy(tmp_path)
    assert found is not None
    assert (found.mean, found.ci, found.n) == (0.61, (0.57, 0.65), 400)
    (tmp_path / "run.json").write_text('{"eval": null}')
    assert lineage.held_out_accuracy(tmp_path) is None


def test_world_and_heads(tmp_path: Path) -> None:
    policy = parse_policy(str(tmp_path))
    assert lineage.world(policy) is None
    assert not lineage.is_reward_model(tmp_path)
    config = {"alignbench_world": "pocket", "architectures": ["LlamaForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert lineage.world(policy) == "pocket"
    assert lineage.is_reward_model(tmp_path)
    assert lineage.world(parse_policy("org/model-on-the-hub")) is None
