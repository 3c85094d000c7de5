"""What a policy's answers depend on, as far as its files tell. Torch is not imported here, so that a policy
whose answers are all held can be recognised without it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.engines.policy import Policy
from alignbench.errors import UsageError
from alignbench.workspace import default_workspace

NUMERICS = 5
"""Part of every ledger key: raised whenever a change in the engine hf may change an answer."""
TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.jinja",
)
REMEMBERED = 32 * 2**20
"""Bytes from which a file's digest is kept in the workspace; hashing less costs nothing."""


ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Files:
    """The folders of a policy's parts: its ``model`` (config and weights), its ``tokenizer``, and its
    ``adapter``, where it has one. A tokenizer beside an adapter is the one that it was trained with."""

    model: Path
    tokenizer: Path
    adapter: Path | None = None

    @property
    def classifies(self) -> bool:
        """Whether the adapter brings a scalar (or classification) head."""
        return self.adapter is not None and adapter_config(self.adapter).get("task_type") == "SEQ_CLS"


def locate(policy: Policy, what: str | None = None) -> Files:
    """Find a policy's parts. A policy that is an adapter alone stands on the base model that it names.

    Args:
        policy: of kind ``hf``.
        what: the start of an error's sentence; the policy by default.

    Raises:
        UsageError: there is no such model or adapter, or the hub cannot be reached.
    """
    what = what or f"policy {policy.spec!r}"
    named = policy.options.get("adapter")
    if named is None:
        folder = _snapshot(policy.target, policy.revision, what)
        if not _is_adapter(folder):
            return Files(_require_model(folder, policy.target, what), folder)
        model, adapter = _base_model(folder, what), folder
    else:
        model = find_folder(policy.target, policy.revision, what)
        target, _, revision = (named, "", "") if os.path.isdir(named) else named.partition("@")
        adapter = _snapshot(target, revision or None, f"{what}: adapter={named}")
        if not _is_adapter(adapter):
            raise UsageError(f"{what}: no adapter in the folder {named} ({ADAPTER} is missing)")
    has_tokenizer = (adapter / "tokenizer_config.json").is_file()
    return Files(model, adapter if has_tokenizer else model, adapter)


def _base_model(adapter: Path, what: str) -> Path:
    config = adapter_config(adapter)
    name = config.get("base_model_name_or_path")
    if not name:
        raise UsageError(
            f"{what}: {adapter} is an adapter that names no base model; write BASE_MODEL?adapter={adapter}"
        )
    try:
        return find_folder(name, config.get("revision"), what)
    except UsageError as error:
        raise UsageError(
            f"{what}: {adapter} is an adapter of {name}, which is not to be had here; "
            f"write BASE_MODEL?adapter={adapter}"
        ) from error


def adapter_config(folder: Path) -> dict[str, Any]:
    """PEFT's config of the adapter in a folder.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        config = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"adapter {folder}: {ADAPTER} cannot be read; save the adapter again") from error
    return config if isinstance(config, dict) else {}


def _is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def find_folder(target: str, revision: str | None, what: str) -> Path:
    """The folder that holds a model: a local path, the embedded base model, or a snapshot from the hub.

    Args:
        target: a path, ``pocket`` (or ``pocket:base``), or a hub id.
        revision: of the hub id.
        what: the start of the error's sentence.

    Raises:
        UsageError: there is no such model, or the hub cannot be reached.
    """
    return _require_model(_snapshot(target, revision, what), target, what)


def _require_model(folder: Path, target: str, what: str) -> Path:
    if _is_adapter(folder):
        raise UsageError(f"{what}: {target} is an adapter; name its base model here")
    if not (folder / "config.json").is_file():
        raise UsageError(f"{what}: the folder {target} holds no config.json, so it is no Hugging Face model")
    return folder


def _snapshot(target: str, revision: str | None, what: str) -> Path:
    """The folder of a model or an adapter, whatever it holds."""
    if target in ("pocket", "pocket:base"):
        from alignbench.pocket import base_path

        return Path(base_path())
    path = Path(os.path.expanduser(target))
    if os.path.isdir(path):  # unlike Path.is_dir, False where the name can be no path
        return path
    if os.path.isfile(path):
        raise UsageError(f"{what}: {target} is a file; name the folder that holds config.json")
    if path.is_absolute() or target.startswith((".", "~")) or target.count("/") > 1:
        raise UsageError(f"{what}: no folder {target}; check the path")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        snapshot = Path(snapshot_download(target, revision=revision, allow_patterns=patterns))
        if not any(snapshot.glob("*.safetensors")):
            snapshot = Path(snapshot_download(target, revision=revision, allow_patterns=[*patterns, "*.bin"]))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{what}: no folder {target} here, and the hub gave no such model ({type(error).__name__}); "
            "check the path or the hub id, and the network"
        ) from error
    return snapshot


def content_of(files: Files, *, fresh: bool = False) -> dict[str, Any]:
    """The parts of the identity that files alone tell: the engine's numerics, the digests of the model (see
    ``digest_folder``), the tokenizer and the adapter. ``fresh``: no remembered digest is used.

    Raises:
        UsageError: the adapter's config cannot be read.
    """
    model = digest_folder(files.model, fresh=fresh)
    if files.tokenizer != files.model:
        model["tokenizer"] = _digest_tokenizer(files.tokenizer, fresh)
    adapter = None if files.adapter is None else _digest_adapter(files.adapter, fresh)
    return {"engine": "hf", "numerics": NUMERICS, **model, "adapter": adapter}


def accelerators() -> dict[str, Any]:
    """The devices of an accelerator's driver, and which of them the environment lets a process see: what the
    choice of a device depends on, as far as it can be told without torch."""
    drivers = [path for path in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg") if os.path.exists(path)]
    chosen = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    return {"drivers": drivers, **{name: os.environ[name] for name in chosen if name in os.environ}}


def read_prefix(policy: Policy) -> str:
    """The text before every prompt: the file ``?prefix=…``, else nothing.

    Raises:
        UsageError: it cannot be read.
    """
    name = policy.options.get("prefix")
    if name is None:
        return ""
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"policy {policy.spec!r}: the prefix file {name} cannot be read as UTF-8 text"
        ) from error


def _digest_adapter(folder: Path, fresh: bool) -> str:
    """Of an adapter's weights and config, without its notes on where its base model lay."""
    config = adapter_config(folder)
    for note in ("base_model_name_or_path", "revision", "inference_mode", "peft_version"):
        config.pop(note, None)
    weights = sorted(folder.glob("adapter_model*"))
    return digest_text(f"{_digest_files(weights, fresh)} {json.dumps(config, sort_keys=True)}")


def digest_folder(folder: Path, *, fresh: bool = False) -> dict[str, str]:
    """SHA-256 of what a model folder answers with: weights, config (also generation's), tokenizer. No path or
    time is part of it, and neither are the config's notes on where and with what it was saved. ``fresh``: all
    files are read, also those whose digest is remembered."""
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    config = {}
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        config[name] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        for note in ("_name_or_path", "transformers_version"):
            (config[name] or {}).pop(note, None)
    return {
        "weights": _digest_files(weights, fresh),
        "config": digest_text(json.dumps(config, sort_keys=True)),
        "tokenizer": _digest_tokenizer(folder, fresh),
    }


def _digest_tokenizer(folder: Path, fresh: bool) -> str:
    files = {path for pattern in TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()}
    return _digest_files(sorted(files), fresh)


def _digest_files(paths: list[Path], fresh: bool) -> str:
    return digest_text(" ".join(sorted(_digest_file(path, fresh) for path in paths)))


def digest_text(text: str) -> str:
    """SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_file(path: Path, fresh: bool) -> str:
    """SHA-256 of a file; a large one's is remembered by path and status. The time of modification can be set
    (``cp -p``, ``rsync -t``), so the inode and the time of its change, which cannot, are part of it too."""
    status = path.stat()
    if status.st_size < REMEMBERED:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    key = " ".join(map(str, (path.resolve(), *parts)))
    known: str | None = None if fresh else recall("digests").get(key)
    if known is None:
        with path.open("rb") as file:
            known = hashlib.file_digest(file, "sha256").hexdigest()
        remember("digests", key, known)
    return known


def recall(what: str) -> dict[str, Any]:
    """What ``remember`` has kept under this name."""
    try:
        known: dict[str, Any] = json.loads(_store(what).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known


def remember(what: str, key: str, value: Any) -> None:
    """Keep a JSON-able value in the workspace. It is only a memory: where it cannot be written, or another
    process writes at the same time, the value is found out again the next time."""
    store = _store(what)
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        partial = store.with_name(f"{store.name}.{os.getpid()}")
        partial.write_text(json.dumps({**recall(what), key: value}), encoding="utf-8")
        partial.replace(store)
    except OSError:
        return


def _store(what: str) -> Path:
    return default_workspace() / f"{what}.json"
