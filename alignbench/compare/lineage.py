"""Where a policy comes from: what its folder says of its training, its reward model and its world."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from alignbench.compare.results import JudgeResult, Score, ScorerResult, Training
from alignbench.engines.policy import Policy
from alignbench.judges.scorers import ScorerSpec
from alignbench.judges.specs import JudgeSpec

MAX_POINTS = 2000
"""A longer curve is thinned evenly to this many steps."""


def local_folder(policy: Policy) -> Path | None:
    """The folder a policy is loaded from, where that is on this machine."""
    if policy.target in ("pocket", "pocket:base"):
        from alignbench.pocket import base_path

        return base_path()
    path = Path(policy.target).expanduser()
    return path if path.is_dir() else None


def read_record(folder: Path | None, name: str = "run.json") -> dict[str, Any]:
    """A JSON object in a folder; empty where there is none or it cannot be read (lineage is a courtesy)."""
    if folder is None:
        return {}
    try:
        record = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def world(policy: Policy) -> str | None:
    """The world a checkpoint belongs to (``pocket``), by its config.json."""
    found = read_record(local_folder(policy), "config.json").get("alignbench_world")
    return found if isinstance(found, str) else None


def is_reward_model(folder: Path) -> bool:
    """Whether a folder holds a model with a scalar head."""
    architectures = read_record(folder, "config.json").get("architectures") or []
    return any("ForSequenceClassification" in name for name in architectures)


def trained_against(policy: Policy) -> Path | None:
    """The reward model that PPO optimised this policy against, by its run.json."""
    folder = local_folder(policy)
    record = read_record(folder)
    config = record.get("config")
    if record.get("kind") != "ppo" or folder is None or not isinstance(config, dict):
        return None
    return _find(config.get("reward_model"), folder)


def reward_model_of(policy: Policy) -> tuple[Path, str] | None:
    """A reward model found beside a policy, and how: named in its run.json, or a sibling folder ``rm``."""
    folder = local_folder(policy)
    if folder is None:
        return None
    named = trained_against(policy)
    if named is not None and is_reward_model(named):
        return named, f"{policy.name} was trained against it"
    sibling = folder.resolve().parent / "rm"
    if sibling.is_dir() and is_reward_model(sibling):
        return sibling, f"it lies beside {policy.name}"
    return None


def _find(named: object, folder: Path) -> Path | None:
    """A path in a run.json is as it was typed then; if it leads nowhere now, look beside the policy."""
    if not isinstance(named, str) or not named:
        return None
    path = Path(named).expanduser()
    places = (path, folder.resolve().parent / path.name)
    return next((place for place in places if place.is_dir()), None)


def training_curves(name: str, folder: Path | None) -> Training | None:
    """The curves of the run that made what lies in ``folder`` (metrics.jsonl), None where there are none.

    Numbers nested in a line (``eval: {loss: …}``) become ``eval_loss``. What was not measured at a step, or
    is not finite, is None.
    """
    if folder is None:
        return None
    rows: dict[int, dict[str, float]] = {}
    for line in _lines(folder / "metrics.jsonl"):
        step = line.get("step")
        if isinstance(step, int):
            rows.setdefault(step, {}).update(_numbers(line))
    if not rows:
        return None
    stride = math.ceil(len(rows) / MAX_POINTS)
    steps = sorted(rows)[::stride]
    names = dict.fromkeys(key for step in steps for key in rows[step])
    series = {key: [rows[step].get(key) for step in steps] for key in names}
    kind = read_record(folder).get("kind")
    return Training(name, kind if isinstance(kind, str) else "unknown", steps, series)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the line that a kill cut short
        if isinstance(record, dict):
            yield record


def _numbers(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    out: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            out.update(_numbers(value, f"{prefix}{key}_"))
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            out[prefix + key] = float(value)
    if not prefix:
        out.pop("step", None)
    return out


def judge_card(spec: JudgeSpec, described: Mapping[str, Any]) -> JudgeResult:
    """What a judge is and what it is worth: a reward model's from its run.json, as far as that lies here.

    Args:
        described: what the judge says of itself after its work (``Judge.describe``).
    """
    folder = local_folder(spec.policy) if spec.policy else None
    config = read_record(folder).get("config")
    config = config if isinstance(config, dict) else {}
    accuracy = held_out_accuracy(folder)
    return JudgeResult(
        name=spec.name,
        kind=spec.kind,
        spec=spec.spec,
        fingerprint=described.get("fingerprint"),
        accuracy=accuracy,
        note=described.get("note", ""),
        data=_text(config.get("data")),
        base=_text(config.get("model")),
        worth="truth" if spec.kind == "gold" else _worth(accuracy),
        rated=described.get("rated", {}),
        cut=described.get("cut", {}),
    )


def scorer_card(spec: ScorerSpec, described: Mapping[str, Any]) -> ScorerResult:
    """What a scorer is.

    Args:
        described: what it says of itself after its work.
    """
    return ScorerResult(
        name=spec.name,
        kind=spec.kind,
        spec=spec.spec,
        fingerprint=described.get("fingerprint"),
        note=described.get("note", ""),
        cut=described.get("cut", 0),
    )


def _worth(accuracy: Score | None) -> Literal["above_chance", "at_chance", "below_chance", "unknown"]:
    """By the interval of the held-out accuracy; a coin is right on half of the pairs."""
    if accuracy is None or accuracy.ci is None:
        return "unknown"
    low, high = accuracy.ci
    return "above_chance" if low > 0.5 else "below_chance" if high < 0.5 else "at_chance"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def held_out_accuracy(folder: Path | None) -> Score | None:
    """A reward model's held-out accuracy with its interval, as its run.json reports it under ``eval``."""
    found = read_record(folder).get("eval")
    if not isinstance(found, dict) or not isinstance(found.get("accuracy"), int | float):
        return None
    ci = found.get("ci")
    return Score(
        mean=found["accuracy"],
        stderr=found.get("stderr"),
        ci=(ci[0], ci[1]) if ci else None,
        n=int(found.get("n", 0)),
        method="pairs, clustered by prompt",
    )
