"""``prompts:FILE``: open-ended prompts of one's own, a text file with one a line, or rows with ``prompt``."""

from __future__ import annotations

import hashlib
from pathlib import Path

from alignbench.errors import UsageError
from alignbench.sources import read_rows
from alignbench.tasks.types import Document, Task

PROMPTS = "prompts:"


def prompts_task(path: Path) -> Task:
    """The task of a file of prompts.

    Raises:
        UsageError: no such file, it is not UTF-8, or a row has no prompt.
    """
    if not path.is_file():
        raise UsageError(
            f"{PROMPTS}{path}: no file {path}; give one prompt a line (.txt) or rows with 'prompt' (.jsonl)"
        )
    documents = _prompts(path)
    return Task(
        name=PROMPTS + path.name.split(".", 1)[0],
        family="prompts",
        area="helpfulness",
        kind="generate",
        description=f"Open-ended prompts from {path.name}.",
        path=path,
        metrics=(),
        headline=None,
        score=lambda document, answer: {},
        load=lambda: list(documents),
        sampling={"max_tokens": 256},
        judged=True,
        fingerprint=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _prompts(path: Path) -> list[Document]:
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read ({error}); save it as UTF-8") from None
        rows = [{"prompt": line.strip()} for line in lines if line.strip()]
    else:
        rows = read_rows(path)
    if not rows:
        raise UsageError(f"{path} holds no prompts; write one a line")
    documents: dict[str, Document] = {}
    for number, row in enumerate(rows):
        prompt = row.get("prompt", row.get("instruction"))
        if not isinstance(prompt, str) or not prompt.strip():
            raise UsageError(
                f"{path}: row {number + 1} has no text in 'prompt'; its columns are {', '.join(row)}"
            )
        doc_id = str(row.get("doc_id", f"{number:05d}"))
        if doc_id in documents:
            raise UsageError(f"{path}: two prompts have the doc_id {doc_id!r}; make it unique")
        documents[doc_id] = Document(doc_id, row, prompt, cluster=doc_id)
    return list(documents.values())
