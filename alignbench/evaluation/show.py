"""What a command shows of a task: its metadata, its documents, and what of one reaches a model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from alignbench.engines import ON_WEIGHTS, RECORDED, engine_of
from alignbench.engines.inputs import open_inputs
from alignbench.engines.policy import Policy, parse_policy
from alignbench.engines.types import Generate, Score
from alignbench.errors import UsageError, nearest
from alignbench.evaluation.run import requests_of
from alignbench.evaluation.server_cost import sent
from alignbench.tasks.documents import documents_fingerprint, metrics_with_levels
from alignbench.tasks.types import Document, Task


def describe(task: Task) -> dict[str, Any]:
    """The task's metadata, JSON-able, with the chance and majority levels that follow from its documents.
    ``headlines``: of these metrics the first whose scorers are at hand is the headline; ``requests``: what
    the whole task asks of a policy."""
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
        "requests": sum(len(requests_of(task, document)) for document in documents),
        "headlines": list(task.headlines),
        "metrics": metrics,
        "samples": task.samples,
        "sampling": dict(task.sampling) if task.kind == "generate" else {},
        "suites": list(task.suites),
        "citation": task.citation,
        "licence": task.licence,
        "canary": task.canary,
        "do_not_train": task.do_not_train,
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


def render(
    task: Task, policy: str | None = None, *, doc_id: str | None = None, seed: int = 0
) -> dict[str, Any]:
    """One document's prompt and continuations: the task's own text or, with a policy, everything as it
    reaches that model (``reaches``). No weights are loaded.

    Args:
        doc_id: whose; the first document's by default.
        seed: of sampled completions.

    Raises:
        UsageError: no such document, or the policy's config or tokenizer cannot be read.
    """
    documents = task.load()
    document = documents[0] if doc_id is None else _find(task, documents, doc_id)
    shown = {
        "doc_id": document.doc_id,
        "text": document.prompt,
        "continuations": [
            request.continuation if isinstance(request, Score) else request.response
            for request in requests_of(task, document, seed)
            if not isinstance(request, Generate)
        ],
    }
    return shown if policy is None else shown | reaches(task, document, parse_policy(policy), seed)


def reaches(task: Task, document: Document, policy: Policy, seed: int = 0) -> dict[str, Any]:
    """What a model gets for one document, JSON-able: the text of the prompt (after prefix and template), how
    it came about, and each request's text and token ids, as the engine encodes them. ``start`` is the index
    of the first token of the continuation; ``cut`` counts the tokens that are lost on the left to fit. Of a
    server see ``server_cost.sent``: it has text only.

    Raises:
        UsageError: the policy's config or tokenizer cannot be read, or it has no model.
    """
    if policy.kind == RECORDED:
        raise UsageError(
            f"policy {policy.spec!r}: recorded outputs are read, so no prompt reaches a model; leave "
            "--policy out to see the task's own prompt, or name a model"
        )
    if engine_of(policy) not in ON_WEIGHTS:
        return sent(task, document, policy, seed)
    inputs, _ = open_inputs(policy)
    requests = requests_of(task, document, seed)
    tokens = inputs.encode(requests)
    named = inputs.tokenizer.convert_ids_to_tokens
    first = requests[0]
    return {
        "text": inputs.render(document.prompt),
        "policy": policy.spec,
        "chat_template": {
            "used": inputs.templated,
            "choice": policy.options.get("chat_template", "auto"),
            "has": bool(getattr(inputs.tokenizer, "chat_template", None)),
        },
        "in_front": {"token_ids": inputs.in_front, "tokens": named(inputs.in_front)},
        "prefix": inputs.prefix,
        "context_length": inputs.window,
        "delimiter": document.delimiter if not isinstance(first, Generate) and document.prompt else None,
        "sampling": asdict(first.sampling) if isinstance(first, Generate) else None,
        "requests": [
            {
                "kind": type(request).__name__.lower(),
                "text": inputs.text(request),
                "token_ids": ids,
                "tokens": named(ids),
                "start": start,
                "cut": cut,
            }
            for request, ids, start, cut in zip(requests, tokens.sequences, tokens.starts, tokens.cuts)
        ],
    }


def _find(task: Task, documents: list[Document], doc_id: str) -> Document:
    found = next((document for document in documents if document.doc_id == doc_id), None)
    if found is None:
        near = nearest(doc_id, [document.doc_id for document in documents])
        raise UsageError(f"task {task.name} has no document {doc_id!r}{near}; --docs lists them")
    return found
