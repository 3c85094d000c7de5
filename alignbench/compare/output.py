"""What ``eval`` and ``compare`` leave in their folder beside ``results.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignbench.errors import WorkError
from alignbench.evaluation.types import Sample
from alignbench.judges.types import Preference

SAMPLES, PREFERENCES, RECORD = "samples.parquet", "preferences.parquet", "run.json"


def write_samples(samples: Sequence[Sample], metrics: Sequence[str], folder: Path) -> Path:
    """One row a sample: policy, task, doc_id, cluster, prompt, output, target, a column for each metric (null
    where the task has no such metric, or its measurement failed), n_tokens, flags. Where a task draws several
    outputs for a prompt, ``output`` is the first and the column ``outputs`` holds all; where scorers scored
    outputs, ``scores`` holds scorer → one score an output, as JSON (``recorded:`` reads both back). Columns
    that no sample needs are left out. A statistic of sums (corpus BLEU) has in its column the number that
    stands for the document in it (``metrics.linearise``).

    A metric that is called like another column gets ``metric_`` before its name.
    """
    import pyarrow as pa

    text = ("policy", "task", "doc_id", "cluster", "prompt", "output", "target")
    columns: dict[str, Any] = {
        name: pa.array([getattr(sample, name) for sample in samples], pa.string()) for name in text
    }
    taken = {*text, "n_tokens", "flags", "outputs", "scores"}
    for metric in metrics:
        name = f"metric_{metric}" if metric in taken else metric
        columns[name] = pa.array([sample.values.get(metric) for sample in samples], pa.float64())
    columns["n_tokens"] = pa.array([sample.n_tokens for sample in samples], pa.int64())
    columns["flags"] = pa.array([list(sample.flags) for sample in samples], pa.list_(pa.string()))
    if any(sample.outputs for sample in samples):
        columns["outputs"] = pa.array([list(s.outputs) or None for s in samples], pa.list_(pa.string()))
    if any(sample.scores for sample in samples):
        told = [json.dumps(dict(sample.scores)) if sample.scores else None for sample in samples]
        columns["scores"] = pa.array(told, pa.string())
    return _write_table(pa.table(columns), folder / SAMPLES)


def write_preferences(preferences: Sequence[Preference], folder: Path) -> Path:
    """One row a judgement, with the fields of ``Preference``."""
    import pyarrow as pa

    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("judge", "task", "doc_id", "a", "b")),
            *((name, pa.float64()) for name in ("preference", "score_a", "score_b")),
            *((name, pa.int64()) for name in ("length_a", "length_b")),
            ("cluster", pa.string()),
        ]
    )
    return _write_table(
        pa.Table.from_pylist([asdict(row) for row in preferences], schema=schema), folder / PREFERENCES
    )


def _write_table(table: Any, path: Path) -> Path:
    import pyarrow.parquet as pq

    part = path.with_name(f"{path.name}.part")
    try:
        pq.write_table(table, part, compression="zstd")
        os.replace(part, path)
    except OSError as error:
        raise WorkError(f"{path} cannot be written ({error})") from None
    return path


def write_record(record: Mapping[str, Any], folder: Path) -> Path:
    """Write run.json in one step."""
    path = folder / RECORD
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(
            json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )
        os.replace(part, path)
    except OSError as error:
        raise WorkError(f"{path} cannot be written ({error.strerror})") from None
    return path
