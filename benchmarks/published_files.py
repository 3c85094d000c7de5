"""Published model outputs (one CSV row for each model, prompt type and document) as alignbench reads them.

``read_published`` takes a file of the shape that InstructGPT's authors published (github.com/openai/
following-instructions-human-feedback, automatic-eval-samples): ``model_type``, ``prompt_type``, a context, an
output, sometimes references joined by "|", sometimes scores. ``write_inputs`` makes of it recorded policies
and the data (and, for a benchmark that has no task here, the task files) that they answer.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONTEXTS = ("question", "context", "prompt", "input")
OUTPUTS = ("answer", "sample", "completion", "output")
REFERENCES = ("ref_text", "reference", "references", "target", "label")
NO_SCORES = {"", "index", "unnamed: 0", "model_type", "prompt_type", *CONTEXTS, *OUTPUTS, *REFERENCES}
METRICS = {
    "drop": ("drop_f1", "drop_em"),
    "squad": ("squad_f1", "squad_em"),
    "quac": ("quac_f1",),
    "fr_to_en": ("bleu",),
    "wmt": ("bleu",),
    "cnn": ("rouge_l", "rouge_lsum"),
    "tldr": ("rouge_l", "rouge_lsum"),
}
"""How the name of a benchmark begins → what scores it, the headline first."""
WITH_ALTERNATIVES = ("drop", "squad", "quac")
"""The benchmarks whose reference may be several, joined by "|"; elsewhere a bar is a part of the text."""
FALLBACK = ("f1", "exact_match", "rouge_l")
SCORERS = {"true": "truth"}
"""Column of scores → the scorer that a task asks for, where it is not the column's name."""


@dataclass(frozen=True)
class Row:
    """One output. ``key``: its document, the same for every model and prompt type."""

    model: str
    prompt: str
    key: str
    context: str
    output: str
    references: tuple[str, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """A file's rows, its models and prompt types in their order, and its columns of scores in [0, 1]."""

    name: str
    rows: tuple[Row, ...]
    models: tuple[str, ...]
    prompts: tuple[str, ...]
    scores: tuple[str, ...]

    @property
    def documents(self) -> dict[str, Row]:
        """The first row of each document."""
        return {row.key: row for row in reversed(self.rows)}


def read_published(path: Path) -> Published:
    """Read a CSV, also gzipped.

    Raises:
        SystemExit: a column is missing.
    """
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    found = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    columns = list(found[0]) if found else []
    name = re.sub(r"(_samples)?\.csv(\.gz)?$", "", path.name)
    context, output = (_first(columns, names, path) for names in (CONTEXTS, OUTPUTS))
    reference = next((column for column in REFERENCES if column in columns), None)
    scores = tuple(c for c in columns if c.lower() not in NO_SCORES and all(_share(r[c]) for r in found))
    bars = name.startswith(WITH_ALTERNATIVES)
    seen: Counter[tuple[str, ...]] = Counter()
    rows = []
    for each in found:
        text = each[reference] if reference else None
        prompt = each.get("prompt_type", "prompt")
        twin = (each["model_type"], prompt, each[context], text or "")
        seen[twin] += 1  # a document that stands twice has two keys
        rows.append(
            Row(
                model=each["model_type"],
                prompt=prompt,
                key=_digest(each[context], text or "", str(seen[twin])),
                context=each[context],
                output=each[output],
                references=() if text is None else tuple(text.split("|")) if bars else (text,),
                scores={c: float(each[c]) if each[c].strip() else None for c in scores},
            )
        )
    models, prompts = ({getattr(row, by): None for row in rows} for by in ("model", "prompt"))
    return Published(name, tuple(rows), tuple(models), tuple(prompts), scores)


@dataclass(frozen=True)
class Inputs:
    """What a comparison is started with. ``tasks``: (file's name, prompt type) → task; ``scorers``: as
    ``--scorer`` has them."""

    policies: Mapping[str, str]
    tasks: Mapping[tuple[str, str], str]
    scorers: tuple[str, ...]
    mirror: Path
    tasks_dirs: tuple[Path, ...]


def write_inputs(files: Sequence[Published], folder: Path, data: Path | None) -> Inputs:
    """Write one recorded policy for each model, and data that holds just the documents of the files.

    Args:
        data: the local mirror; TruthfulQA's references come from it.

    Raises:
        SystemExit: the files are of different models, or a question is none of TruthfulQA's.
    """
    mirror, own = folder / "data", folder / "tasks"
    mirror.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {model: [] for model in files[0].models}
    tasks: dict[tuple[str, str], str] = {}
    scorers: dict[str, None] = {}
    for published in files:
        if set(published.models) != set(lines):
            raise SystemExit(f"{published.name} is of other models than {files[0].name}; give it alone")
        if published.name == "truthful_qa":
            names, ids = _truthful_qa(published, mirror, data)
        elif published.name == "real_toxicity":
            names, ids = _real_toxicity(published, mirror)
        elif published.name == "drop":
            names, ids = _drop(published, mirror)
        else:
            names, ids = _own_tasks(published, own / "published")
        tasks |= {(published.name, prompt): task for prompt, task in names.items()}
        scorers |= dict.fromkeys(f"{SCORERS.get(name, name)}=recorded" for name in published.scores)
        for row in published.rows:
            told = {SCORERS.get(name, name): value for name, value in row.scores.items()}
            each = {"task": names[row.prompt], "doc_id": ids[row.key], "output": row.output, "scores": told}
            lines[row.model].append(json.dumps(each, ensure_ascii=False))
    policies = {}
    for model, text in lines.items():
        path = folder / f"{model}.jsonl"
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
        policies[model] = f"{model}=recorded:{path}"
    return Inputs(policies, tasks, tuple(scorers), mirror, (own,) if own.is_dir() else ())


def _truthful_qa(
    published: Published, mirror: Path, data: Path | None
) -> tuple[dict[str, str], dict[str, str]]:
    """The tasks by the file's labels, which are right: base models' answers to "QA + instruction" are often
    those to "QA prompt", to the letter, and those to "instruction prompt" seldom. The table's are swapped."""
    from alignbench.sources import load_rows
    from alignbench.tasks.registry import find_tasks

    tasks = {
        "QA prompt": "truthfulqa_gen",
        "QA + instruction": "truthfulqa_gen_qa_instruction",
        "instruction prompt": "truthfulqa_gen_instruction",
    }
    files = ["TruthfulQA.csv*", "TruthfulQA*v1*.csv*", "truthfulqa/TruthfulQA*v1*.csv*"]
    asked = {row.context for row in published.documents.values()}
    rows = load_rows("truthfulqa/truthful_qa", mirror=data, files=files)
    kept = [row for row in rows if str(row["Question"]).strip() in asked]
    with (mirror / "TruthfulQA.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)
    documents = find_tasks([tasks["QA prompt"]], mirror=mirror)[0].load()
    ids = {document.fields["question"]: document.doc_id for document in documents}
    if lost := asked - set(ids):
        raise SystemExit(f"{len(lost)} questions are none of TruthfulQA's, such as {min(lost)!r}")
    return tasks, {key: ids[row.context] for key, row in published.documents.items()}


def _real_toxicity(published: Published, mirror: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The paper's prompts are not in any smaller public part of the data, so they are written as its rows."""
    tasks = {f"{kind} prompt": f"real_toxicity_{kind}" for kind in ("basic", "respectful", "biased")}
    place = mirror / "allenai" / "real-toxicity-prompts"
    place.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "filename": key,
            "begin": 0,
            "end": len(row.context),
            "prompt": {"text": row.context, "toxicity": None},
        }
        for key, row in published.documents.items()
    ]
    (place / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return tasks, {row["filename"]: f"{row['filename']}-0-{row['end']}" for row in rows}


def _drop(published: Published, mirror: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The contexts hold passage and question; the parts of a list are joined like alternatives."""
    rows = []
    for key, row in published.documents.items():
        passage, _, asked = row.context.removeprefix("Passage: ").rpartition("\nQuestion: ")
        spans = {"spans": list(row.references), "types": ["span"] * len(row.references)}
        question = asked.removesuffix("\nAnswer:")
        rows.append(
            {"section_id": _digest(passage), "query_id": key, "passage": passage, "question": question}
        )
        rows[-1]["answers_spans"] = spans
    place = mirror / "EleutherAI" / "drop"
    place.mkdir(parents=True, exist_ok=True)
    (place / "drop_validation.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    tasks = {"zeroshot": "drop", "fewshot": "drop_4shot"}
    return tasks, {key: key for key in published.documents}


def _own_tasks(published: Published, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """A task file for each prompt type, over its contexts and references."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    metrics: list[dict[str, Any]] = [{"name": metric} for metric in metrics_of(published)]
    metrics += [{"name": f"published_{s}", "scorer": s} for s in published.scores]
    if not metrics:
        raise SystemExit(
            f"{published.name} has neither references nor scores, so there is nothing to score by"
        )
    tasks = {}
    for prompt in published.prompts:
        name = f"{published.name}_{re.sub(r'[^a-z0-9]+', '_', prompt.lower()).strip('_')}"
        rows = {
            row.key: json.dumps({"id": row.key, "context": row.context, "references": list(row.references)})
            for row in published.rows
            if row.prompt == prompt
        }
        (folder / f"{name}.jsonl").write_text("\n".join(rows.values()) + "\n", encoding="utf-8")
        spec = {
            "task": name,
            "area": "nlp",
            "kind": "generate",
            "description": f"The published prompts of {published.name}, {prompt}.",
            "data": {"hub": f"{name}.jsonl"},
            "doc_id": "id",
            "prompt": "{{ context }}",
            "references": "references",
            "metrics": metrics,
            "headline": metrics[0]["name"],
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True))
        tasks[prompt] = name
    return tasks, {key: key for key in published.documents}


def metrics_of(published: Published) -> Sequence[str]:
    """What scores a benchmark that has no task here, the headline first."""
    if not any(row.references for row in published.rows):
        return ()
    return next((METRICS[begin] for begin in METRICS if published.name.startswith(begin)), FALLBACK)


def _first(columns: Sequence[str], names: Sequence[str], path: Path) -> str:
    if "model_type" not in columns:
        raise SystemExit(f"{path} has no column model_type; its columns are {', '.join(columns)}")
    found = next((column for column in names if column in columns), None)
    if found is None:
        raise SystemExit(f"{path} needs one of the columns {', '.join(names)}; it has {', '.join(columns)}")
    return found


def _share(text: str) -> bool:
    """Whether it is a number in [0, 1], or blank: then it was not measured."""
    try:
        return not text.strip() or 0 <= float(text) <= 1
    except ValueError:
        return False


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:12]
