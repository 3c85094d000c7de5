"""What tasks would cost one policy: tokens by its own tokenizer, what the ledger holds, time and memory. Its
weights are not loaded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from alignbench.engines import known_identity
from alignbench.engines.estimate import Rates, Work, extrapolate, peak_bytes, seconds
from alignbench.engines.inputs import Inputs, Tokens, open_inputs
from alignbench.engines.policy import Policy
from alignbench.engines.types import Generate, Request
from alignbench.evaluation.plan import request_text
from alignbench.evaluation.run import VERBS, requests_of
from alignbench.ledger import Ledger, content_key
from alignbench.tasks.types import Document, Task

if TYPE_CHECKING:
    from alignbench.engines.machine import Setting

EXACT = 1_000_000
"""Characters of text up to which all tokens are counted; of more, those of a seeded sample of documents."""


@dataclass(frozen=True)
class TaskCost:
    """What one task asks of one policy, beside what the ledger ``held``. ``input_tokens``: of all texts;
    ``computed_tokens``: those that are left where texts share their beginning; ``output_tokens``: the most
    that can be generated; ``cut``: texts that lose tokens on their left. ``unanswered``: documents that
    are left to ask; ``counted``: those of them whose tokens were counted, a sample where they are fewer.
    ``seconds``: estimated, of computing alone. ``example``: the first document's prompt as the policy gets
    it."""

    policy: str
    task: str
    documents: int
    requests: int
    held: int
    unanswered: int
    counted: int
    input_tokens: int
    computed_tokens: int
    output_tokens: int
    cut: int
    seconds: float
    example: str


@dataclass(frozen=True)
class PolicyCost:
    """One policy's ``tasks``, and what the estimates rest on: its parameters and their dtype, the device, the
    tokens of a forward pass, and the machine's rates, measured for this model's widths. ``peak_bytes``: of
    the memory of all devices together. ``engine``: what will run it; time and memory are those of ``hf``."""

    policy: str
    engine: str
    parameters: int
    dtype: str
    device: str
    batch_tokens: int
    rates: Rates
    peak_bytes: float
    seconds: float
    tasks: list[TaskCost]


def policy_cost(
    policy: Policy,
    tasks: Sequence[tuple[Task, Sequence[Document]]],
    ledger: Ledger | None,
    *,
    seed: int = 0,
    batch_tokens: int | None = None,
    engine: str = "hf",
) -> PolicyCost:
    """Count and estimate; nothing is asked of the model.

    Args:
        tasks: with the documents that are asked.
        ledger: answers that it holds cost nothing; None: everything is computed.
        seed: of the run, and of the sample of documents where there are many.
        batch_tokens: of a forward pass; the engine's own choice by default.
        engine: whose answers are looked for; time and memory are estimated as the engine ``hf`` takes them.

    Raises:
        UsageError: the policy's config or tokenizer cannot be read.
    """
    from alignbench.engines.machine import measure, plan_setting

    inputs, config = open_inputs(policy)
    setting = plan_setting(policy, config, batch_tokens)
    rates = measure(setting)
    identity = None if ledger is None else known_identity(policy, engine)
    rows, longest = [], 0
    for task, documents in tasks:
        asked = [requests_of(task, document, seed) for document in documents]
        left = asked if identity is None or ledger is None else _not_held(ledger, identity, task, asked)
        found = _count(inputs, _sample(left, seed), len(left), setting.batch_tokens)
        longest = max(longest, found.longest if found.work.rows else 0)
        rows.append(
            TaskCost(
                policy=policy.name,
                task=task.name,
                documents=len(documents),
                requests=sum(map(len, asked)),
                held=sum(map(len, asked)) - sum(map(len, left)),
                unanswered=len(left),
                counted=found.counted,
                input_tokens=round(found.work.total),
                computed_tokens=round(found.work.tokens),
                output_tokens=found.work.new_tokens,
                cut=found.cut,
                seconds=_seconds(found, setting, rates),
                example=inputs.render(documents[0].prompt) if documents else "",
            )
        )
    together = max((row.computed_tokens for row in rows), default=0)
    return PolicyCost(
        policy=policy.name,
        engine=engine,
        parameters=setting.size.parameters,
        dtype=str(setting.dtype).removeprefix("torch."),
        device=policy.options.get("device") or str(setting.device),
        batch_tokens=setting.batch_tokens,
        rates=rates,
        peak_bytes=_peak_bytes(setting, together, longest),
        seconds=sum(row.seconds for row in rows),
        tasks=rows,
    )


@dataclass(frozen=True)
class _Counted:
    """``work`` of all documents, from ``counted`` of them; ``longest``: tokens that one row can have."""

    work: Work
    counted: int
    cut: int
    longest: int


def _seconds(found: _Counted, setting: Setting, rates: Rates) -> float:
    in_flight = max(1, min(setting.rows, setting.kv_tokens // max(1, found.longest)))
    needed = seconds(found.work, setting.size, rates, batch_tokens=setting.batch_tokens, in_flight=in_flight)
    return needed / (setting.copies if setting.device.type != "cpu" else 1)  # several CPUs are one CPU


def _peak_bytes(setting: Setting, together: int, longest: int) -> float:
    """``together``: tokens that could share a pass; ``longest``: of a completion and its prompt, or 0."""
    each = peak_bytes(
        setting.size,
        batch_tokens=min(setting.batch_tokens, together),
        kv_tokens=min(setting.kv_tokens, setting.rows * longest),
        on_cpu=setting.device.type == "cpu",
    )
    return setting.copies * each


def _not_held(
    ledger: Ledger, identity: dict[str, Any], task: Task, asked: list[list[Request]]
) -> list[list[Request]]:
    """The requests that the ledger has no answer to, by document; documents with none are left out."""
    keys = [
        [content_key(identity=identity, request=asdict(request)) for request in requests]
        for requests in asked
    ]
    found = ledger.get(VERBS[task.kind], [key for each in keys for key in each])
    rest = [
        [request for request, key in zip(requests, each) if key not in found]
        for requests, each in zip(asked, keys)
    ]
    return [requests for requests in rest if requests]


def _sample(asked: list[list[Request]], seed: int) -> list[list[Request]]:
    """In an order drawn with ``seed``, as many documents as have ``EXACT`` characters, or all."""
    order = random.Random(seed).sample(asked, len(asked))
    total, n = 0, 0
    while n < len(order) and total < EXACT:
        total += sum(len(request_text(request)) for request in order[n])
        n += 1
    return order[:n]


def _count(inputs: Inputs, sample: list[list[Request]], documents: int, budget: int) -> _Counted:
    """Tokens of the sample, scaled to all ``documents``."""
    from alignbench.engines.trie import UNIT

    n = len(sample)
    flat = [request for requests in sample for request in requests]
    tokens = inputs.encode(flat)
    lengths = [*map(len, tokens.sequences)]
    half = sum(map(len, sample[: n // 2]))
    first = Tokens(tokens.sequences[:half], tokens.starts[:half], tokens.cuts[:half])
    up = documents / n if n else 1.0
    new = [request.sampling.max_tokens for request in flat if isinstance(request, Generate)]
    work = Work(
        total=sum(lengths) * up,
        tokens=extrapolate(_shared(inputs, first, budget), _shared(inputs, tokens, budget), n, documents),
        length=sum(x * x for x in lengths) / max(1, sum(lengths)),  # where the mean token stands
        unit=UNIT,
        read=(sum(lengths) - sum(tokens.starts)) * up,
        rows=round(len(new) * up),
        new_tokens=round(sum(new) * up),
    )
    longest = max(lengths, default=0) + max(new, default=0)
    return _Counted(work, n, round(sum(map(bool, tokens.cuts)) * up), longest)


def _shared(inputs: Inputs, tokens: Tokens, budget: int) -> int:
    """Tokens that are computed, those that texts begin with once (an encoder reads both sides, so that only
    whole contexts are shared). A target that is last is only predicted."""
    from alignbench.engines.seq2seq_inputs import Seq2SeqInputs
    from alignbench.engines.trie import Trie

    if isinstance(inputs, Seq2SeqInputs):
        contexts = {tuple(ids[:start]) for ids, start in zip(tokens.sequences, tokens.starts)}
        predicted = sum(map(len, tokens.sequences)) - sum(tokens.starts)
        return sum(map(len, contexts)) + predicted
    read = [
        ids[: max(1, len(ids) - 1)] if start < len(ids) else ids
        for ids, start in zip(tokens.sequences, tokens.starts)
    ]
    needed = [min(start - 1, len(ids)) for ids, start in zip(read, tokens.starts)]
    return Trie(read, needed, budget=budget).computed_tokens if read else 0
