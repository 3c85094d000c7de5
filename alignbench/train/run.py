"""A run folder: what a training run writes, and how a killed one goes on bit for bit.

DIR/                 the finished model in Hugging Face format
DIR/run.json         command, config, versions, hardware, parents, results
DIR/metrics.jsonl    one line a step; only numbers that a second run reproduces
DIR/timings.jsonl    one line a step; seconds and rates
DIR/rollouts.jsonl   PPO: some responses of each step, with reward and KL; reproducible as well
DIR/checkpoints/     step-N/state.pt: everything that is needed to go on after step N
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from alignbench import environment
from alignbench.errors import UsageError, WorkError
from alignbench.processes import folder_lock
from alignbench.train.config import TrainConfig
from alignbench.train.models import prepare, quiet_transformers

# may differ between a run and its resumption: they change no number
FREE_KEYS = frozenset({"save_every", "keep"})
LOGS = ("metrics.jsonl", "timings.jsonl", "rollouts.jsonl")


@contextmanager
def open_run(
    out: Path, config: TrainConfig, *, kind: str, resume: bool = False, command: Sequence[str] | None = None
) -> Iterator[Run]:
    """The run in ``out``, which no other process may train in meanwhile, with torch prepared for it unless it
    has finished before.

    Raises:
        UsageError: see ``Run.create`` and ``folder_lock``.
    """
    with folder_lock(out, f"train {kind}"):
        run = Run.create(out, config, kind=kind, resume=resume, command=command)
        if not run.finished:
            prepare(config)
        try:
            yield run
        finally:
            run.close()


class Run:
    """One run folder. Make it with ``open_run``."""

    def __init__(self, out: Path, config: TrainConfig, record: dict[str, Any]) -> None:
        self.out = out
        self.config = config
        self.record = record
        self._files: dict[str, TextIO] = {}

    @classmethod
    def create(
        cls,
        out: Path,
        config: TrainConfig,
        *,
        kind: str,
        resume: bool = False,
        command: Sequence[str] | None = None,
    ) -> Run:
        """Open ``out`` as a run folder. With ``resume``, a folder that holds no run starts a new one.

        Nothing but empty folders is made before the first note, log or checkpoint: a run that ends on wrong
        data leaves nothing that the next attempt would be refused for.

        Raises:
            UsageError: ``out`` holds a run (without ``resume``), a run with another config, or other files
                that would be overwritten; or it cannot be written.
        """
        record = _read_record(out)
        if record is None:
            _refuse_foreign(out)
        elif not resume:
            raise UsageError(f"--out {out} already holds a run; add --resume, or name another folder")
        else:
            _refuse_other_config(out, record, kind, config)
        try:
            (out / "checkpoints").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=out):
                pass
        except OSError as error:
            raise UsageError(
                f"--out {out} is not writable ({error.strerror}); name another folder"
            ) from error
        return cls(out, config, record or _new_record(kind, config, command))

    @property
    def finished(self) -> bool:
        """Whether the final model has been written."""
        return self.record["finished"] is not None

    def note(self, **fields: Any) -> None:
        """Set fields of run.json (parents, world, results) and write it."""
        self.record.update(fields)
        _write_json(self.out / "run.json", self.record)

    def require_same_rows(self, **rows: Sequence[Any]) -> None:
        """Take note of the data, as loaded, that the run trains and evaluates on; it is written with the next
        ``note``. A resumed run must be given the same.

        Args:
            rows: name of a set → its rows, whose ``repr`` tells them apart.

        Raises:
            UsageError: they are not those that the run began with.
        """
        found = {name: _digest(part) for name, part in rows.items()}
        before = self.record.setdefault("rows_sha256", found)
        changed = [name.replace("_", " ") for name in found if before.get(name) != found[name]]
        if changed:
            raise UsageError(
                f"--resume: the {' and '.join(changed)} data are not those that the run in {self.out} began "
                "with; bring them back, or name another --out"
            )

    def log(self, step: int, **metrics: float | int | str | Mapping[str, Any] | None) -> None:
        """Append one line to metrics.jsonl. A step is logged before its checkpoint is saved.

        Raises:
            WorkError: a number is not finite, so the training has diverged.
        """
        for name, value in metrics.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise WorkError(f"{self.out}, step {step}: {name} is {value}; lower lr, or use dtype=float32")
        self._append("metrics.jsonl", [{"step": step, **metrics}])

    def first_logged(self) -> dict[str, Any]:
        """The first line of metrics.jsonl, without its step."""
        with (self.out / "metrics.jsonl").open(encoding="utf-8") as file:
            line: dict[str, Any] = json.loads(file.readline())
        return {name: value for name, value in line.items() if name != "step"}

    def time(self, step: int, **timings: float) -> None:
        """Append one line to timings.jsonl (seconds and rates: these differ from run to run)."""
        self._append("timings.jsonl", [{"step": step, **{k: round(v, 4) for k, v in timings.items()}}])

    def log_rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append lines to rollouts.jsonl; like ``log``, before the step's checkpoint is saved."""
        if rows:
            self._append("rollouts.jsonl", [{"step": step, **row} for row in rows])

    def save_checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """Save ``state`` (nested dicts, lists, tuples, numbers, strings, tensors) and the states of the
        global random generators. Atomic: a kill leaves the one before. The last ``config.keep`` stay."""
        for log in self._files.values():
            os.fsync(log.fileno())
        folder = self.out / "checkpoints" / f"step-{step}"
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        with (temporary / "state.pt").open("wb") as file:
            torch.save({"step": step, "state": dict(state), "rng": _rng_state()}, file)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        _sync_folder(folder.parent)
        for old in self._checkpoints()[: -self.config.keep]:
            shutil.rmtree(folder.with_name(f"step-{old}"), ignore_errors=True)

    def load_checkpoint(self) -> tuple[int, dict[str, Any]] | None:
        """Return ``(step, state)`` of the last checkpoint, restore the global random generators, and cut what
        was logged after it. None where there is none: the run then starts again, with empty logs.

        Raises:
            WorkError: the checkpoint cannot be read.
        """
        steps = self._checkpoints()
        if not steps:
            self._cut_logs(-1)
            return None
        file = self.out / "checkpoints" / f"step-{steps[-1]}" / "state.pt"
        try:
            saved = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a cut file shows as one of several kinds
            raise WorkError(f"checkpoint {file} is broken; remove its folder and resume again") from error
        _set_rng_state(saved["rng"])
        self._cut_logs(saved["step"])
        return saved["step"], saved["state"]

    def finish(self, model: Any, tokenizer: Any, **results: Any) -> None:
        """Write the final model and tokenizer into the run folder itself and close the run.

        ``results`` go into run.json. Files are moved into place whole; ``finished`` in run.json is set last.
        """
        save_model(model, tokenizer, self.out)
        self.note(finished=environment.now(), **results)
        self.close()

    def close(self) -> None:
        """Close the logs."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _append(self, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        if name not in self._files:
            if not (self.out / "run.json").exists():
                self.note()
            self._files[name] = (self.out / name).open("a", encoding="utf-8")
        self._files[name].write("".join(json.dumps(record) + "\n" for record in records))
        self._files[name].flush()

    def _checkpoints(self) -> list[int]:
        names = [path.name for path in (self.out / "checkpoints").glob("step-*")]
        return sorted(int(name.removeprefix("step-")) for name in names)

    def _cut_logs(self, step: int) -> None:
        self.close()
        for path in (self.out / name for name in LOGS):
            if path.exists():
                lines = path.read_text(encoding="utf-8").splitlines()
                held = [line for line in lines if _step_of(line) <= step]
                _write_text(path, "".join(f"{line}\n" for line in held))


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """``save_pretrained`` both into ``folder``, every file whole or not at all."""
    temporary = folder / ".model.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    with quiet_transformers():
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == "config.json"):
        path.replace(folder / path.name)
    temporary.rmdir()


def _read_record(out: Path) -> dict[str, Any] | None:
    path = out / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        record = None
    if (
        not isinstance(record, dict)
        or not {"kind", "finished"} <= set(record)
        or not isinstance(record.get("config"), dict)
    ):
        raise UsageError(f"{path} is no record of a training run; name another folder with --out")
    return record


def _new_record(kind: str, config: TrainConfig, command: Sequence[str] | None) -> dict[str, Any]:
    return {
        "kind": kind,
        "command": list(sys.argv if command is None else command),
        "config": config.model_dump(),
        "seed": config.seed,
        "versions": environment.versions(),
        "hardware": environment.hardware(),
        "started": environment.now(),
        "finished": None,
        "parents": {},
        "world": None,
    }


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    # checkpoints too: a run that found them would go on from another run's weights
    for name in ("config.json", "model.safetensors", *LOGS, "checkpoints/*"):
        if out.is_dir() and any(out.glob(name)):
            raise UsageError(
                f"--out {out} already holds {name}, which is not this run's; name another folder"
            )


def _refuse_other_config(out: Path, record: dict[str, Any], kind: str, config: TrainConfig) -> None:
    if record["kind"] != kind:
        raise UsageError(f"--resume: {out} holds a run of `train {record['kind']}`, not `train {kind}`")
    before, now = record["config"], config.model_dump()
    for key, field in type(config).model_fields.items():
        had = before.get(key, field.default)  # a key that is younger than the run
        if key not in FREE_KEYS and had != now[key]:
            raise UsageError(
                f"--resume: {key} is {now[key]!r} but the run in {out} has {had!r}; "
                f"use the same config, or another --out"
            )


def _digest(rows: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line that a kill cut short


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _rng_state() -> dict[str, Any]:
    numpy: Any = np.random.get_state(legacy=False)  # a dict
    return {
        "python": random.getstate(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_rng_state(state: dict[str, Any]) -> None:
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    twister = state["numpy"]["state"]
    key = np.array(twister["key"], dtype=np.uint32)
    np.random.set_state({**state["numpy"], "state": {**twister, "key": key}})
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
