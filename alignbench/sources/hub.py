"""Rows from the Hugging Face hub or its cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from alignbench.errors import UsageError
from alignbench.sources.files import Row, read_rows

_UNREACHABLE: list[str] = []
"""The name for which there was no connection; it is not waited for again in this process."""


def hub_rows(
    name: str, split: str | None, config: str | None, revision: str | None, files: Sequence[str]
) -> list[Row]:
    """All rows of one split; the arguments are those of ``alignbench.sources.load_rows``.

    Raises:
        LookupError: not to be had, with the hub's reason in one line.
        UsageError: no such split.
    """
    import datasets

    patterns: Sequence[str | None] = [None] if config or not files else list(files)
    why: Exception | None = None
    with _offline_if_unreachable(name) as reachable:
        for pattern in patterns:
            try:
                loaded = datasets.load_dataset(name, config, data_files=pattern, revision=revision)
                return _rows_of_split(loaded, split if pattern is None else None, name)
            except UsageError:
                raise
            except Exception as error:  # the hub client raises a dozen kinds; each means "not from there"
                if pattern is not None and (rows := _plain_files(name, pattern, revision, error)):
                    return rows
                why = why or error
    reason = " ".join(str(why).split())[:200] if reachable else "no connection, and not in its cache"
    raise LookupError(reason) from why


def _plain_files(name: str, pattern: str, revision: str | None, error: Exception) -> list[Row]:
    """The rows of the files that match, where the data set has a loading script beside them: ``datasets``
    does not run scripts any more, nor load any file of a data set that has one. Empty for another
    ``error``."""
    import huggingface_hub

    if "scripts are no longer supported" not in str(error):
        return []
    api = huggingface_hub.HfApi()
    try:
        held = api.list_repo_files(name, repo_type="dataset", revision=revision)
        wanted = [file for file in sorted(held) if PurePosixPath("/", file).match(f"/{pattern}")]
        got = [api.hf_hub_download(name, file, repo_type="dataset", revision=revision) for file in wanted]
    except Exception:  # as above
        return []
    return [row for path in got for row in read_rows(Path(path))]


@contextmanager
def _offline_if_unreachable(name: str) -> Iterator[bool]:
    """Without a connection use the hub's cache at once, instead of after half a minute of noisy retries."""
    import datasets
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    reachable = not _UNREACHABLE
    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    try:
        if reachable:
            huggingface_hub.HfApi().dataset_info(name, timeout=10)
    except Exception as error:  # an answer, if only a refusal, or a malformed name; or no connection at all
        if not isinstance(error, HfHubHTTPError | ValueError):
            reachable = False
            _UNREACHABLE.append(name)
    if not reachable:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield reachable
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _rows_of_split(loaded: Any, split: str | None, name: str) -> list[Row]:
    known = sorted(loaded)
    if split is None:
        split = known[0] if len(known) == 1 else "train"
    if split not in known:
        raise UsageError(f"data {name!r} has no split {split!r}; it has {', '.join(known)}")
    rows: list[Row] = loaded[split].to_list()
    return rows
