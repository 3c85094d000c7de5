"""What a command shows of a task: its metadata, its documents, and one prompt as a model gets it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from alignbench.tasks.documents import documents_fingerprint, metrics_with_levels
from alignbench.tasks.types import Task


def describe(task: Task) -> dict[str, Any]:
    """The task's metadata, JSON-able, with the chance and majority levels that follow from its documents."""
    documents = task.load()
    facts = {
        key: getattr(task, key)
        for key in ("name", "family", "area", "kind", "description", "headline", "judged", "judge", "world")
    }
    metrics = []
    for metric in metrics_with_levels(task, documents):
        shown = asdict(metric)
        del shown["uniform_chance"], shown["built_in"]
        metrics.append(shown)
    return facts | {
        "documents": len(documents),
        "clusters": len({document.cluster for document in documents}),
        "metrics": metrics,
        "sampling": dict(task.sampling) if task.kind == "generate" else {},
        "suites": list(task.suites),
        "citation": task.citation,
        "licence": task.licence,
        "notes": task.notes,
        "path": str(task.path),
        "fingerprint": task.fingerprint,
        "documents_fingerprint": documents_fingerprint(documents),
    }


def documents_as_rows(task: Task) -> list[dict[str, Any]]:
    """Every document as a JSON-able row."""
    return [
        {
            "doc_id": document.doc_id,
            "cluster": document.cluster,
            "prompt": document.prompt,
            "target": document.target,
            "references": list(document.references),
            "choices": [document.delimiter + choice for choice in document.choices],
            "correct": list(document.correct),
        }
        for document in task.load()
    ]


def render(task: Task, policy: str | None) -> dict[str, Any]:
    """The first document's prompt and continuations as a model gets them.

    Without a policy it is the task's own text; with one it has the policy's prefix and chat template, and its
    token ids, special tokens included.

    Raises:
        UsageError: the policy cannot be loaded.
    """
    document = task.load()[0]
    shown: dict[str, Any] = {
        "doc_id": document.doc_id,
        "text": document.prompt,
        "continuations": [document.delimiter + choice for choice in document.choices],
    }
    if policy is None:
        return shown
    from alignbench.engines import open_engine
    from alignbench.engines.encoding import encode_texts
    from alignbench.engines.policy import parse_policy

    engine: Any = open_engine(parse_policy(policy))
    text = engine.render(document.prompt)
    ids = encode_texts(engine.tokenizer, [text], special=not engine.inputs.templated)[0]
    return shown | {"text": text, "token_ids": ids, "tokens": engine.tokenizer.convert_ids_to_tokens(ids)}
