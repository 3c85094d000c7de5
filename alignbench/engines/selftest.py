"""A test of the engines on this machine: the embedded pocket model through each, a few seconds in all beside
vLLM's start.

The reference is transformers' own attention and key-value cache, on padded rows; every engine must give its
log-probabilities and its greedy texts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignbench.engines.policy import parse_policy
from alignbench.engines.types import Completion, Engine, Generate, Sampling, Score, Scored
from alignbench.engines.vllm_engine import versions

MODEL = "pocket?dtype=float32"
REFERENCE = "hf, padded"
TOLERANCE = 1e-4
"""Nats by which a log-probability may differ in float32."""
ROWS, TOKENS = 32, 24
WARM = 8
"""Rows of a first run, in which what is done once is done."""
PLACES = ("garden", "market", "harbour", "school", "forest", "kitchen", "library", "station")
SHARED = "A person who lives in the town tells a friend what happened there on a day in spring. "


@dataclass(frozen=True)
class EngineTest:
    """One engine's result. ``state``: ``ok``, ``absent`` (it is not there, ``note`` says why) or ``broken``.

    ``difference``: the largest between its log-probabilities and the reference's (nats; of scores, and of
    tokens up to where two texts part); ``texts``: greedy texts that are the reference's, of ``ROWS``; tokens
    a second of generation and of scoring; ``start_seconds``: until it had answered a few requests for the
    first time. None where it did not run; the reference has neither of the first two."""

    name: str
    state: Literal["ok", "absent", "broken"]
    note: str = ""
    difference: float | None = None
    texts: int | None = None
    generated_per_second: float | None = None
    scored_per_second: float | None = None
    start_seconds: float | None = None


@dataclass(frozen=True)
class SelfTest:
    """What came of it. ``compiled``: whether the pocket model's steps of decoding are compiled; ``device``:
    where ``hf`` computes; ``seconds``: of all, every start among them."""

    engines: tuple[EngineTest, ...]
    device: str
    compiled: bool
    seconds: float

    @property
    def passed(self) -> bool:
        return all(engine.state != "broken" for engine in self.engines)


@dataclass(frozen=True)
class _Run:
    scores: list[Scored]
    completions: list[Completion]
    generated_per_second: float
    scored_per_second: float
    start_seconds: float


def run_selftest() -> SelfTest:
    """Score and generate with every engine that is here, and compare."""
    started = time.perf_counter()
    reference = _try(REFERENCE, _padded)
    if isinstance(reference, EngineTest):
        return SelfTest((reference,), "unknown", False, time.perf_counter() - started)
    rates = reference.generated_per_second, reference.scored_per_second, reference.start_seconds
    results = [EngineTest(REFERENCE, "ok", "the reference", None, None, *rates)]
    packed = _hf()
    compiled = _compiled(packed)
    makers: dict[str, Callable[[], Engine]] = {"hf": lambda: packed}
    if compiled:
        makers["hf, torch steps"] = _torch_steps
    vllm = versions.installed()
    if vllm:
        makers["vllm"] = _vllm
    for name, make in makers.items():
        run = _try(name, make)
        results.append(run if isinstance(run, EngineTest) else _compared(name, run, reference))
    if not vllm:
        results.append(EngineTest("vllm", "absent", "not installed"))
    return SelfTest(tuple(results), str(packed.device), compiled, time.perf_counter() - started)


def _hf() -> Any:
    from alignbench.engines.weights import load_policy

    return load_policy(parse_policy(MODEL))


def _padded() -> Engine:
    engine: Any = _hf()
    engine.packs = False
    made: Engine = engine
    return made


def _torch_steps() -> Engine:
    engine: Any = _hf()
    engine.compiles = False
    made: Engine = engine
    return made


def _vllm() -> Engine:
    from alignbench.engines import open_engine

    return open_engine(parse_policy(f"vllm:{MODEL}"))


def _compiled(engine: Any) -> bool:
    from alignbench.engines.native import native_for

    return engine.packs and engine.compiles and native_for(engine, 2 * TOKENS) is not None


def _try(name: str, make: Callable[[], Engine]) -> _Run | EngineTest:
    """An engine's answers, or the result that says how it failed: whatever goes wrong in it is what is asked
    for here."""
    try:
        started = time.perf_counter()
        return _run(make(), started)
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        return EngineTest(name, "broken", f"{type(error).__name__}: {words}")


def _run(engine: Engine, begun: float) -> _Run:
    prompts = [
        Generate(f"{SHARED}In the {PLACES[i % len(PLACES)]} there were {i} of them", Sampling(TOKENS))
        for i in range(ROWS)
    ]
    scores = [Score(request.prompt, f" and the {place}.") for request in prompts for place in PLACES[:2]]
    for warm in (engine.generate(prompts[:WARM]), engine.score(scores[:WARM])):
        list(warm)
    started = time.perf_counter()
    completions = _in_order(engine.generate(prompts), len(prompts))
    between = time.perf_counter()
    scored = _in_order(engine.score(scores), len(scores))
    ended = time.perf_counter()
    return _Run(
        scored,
        completions,
        sum(len(completion.token_ids) for completion in completions) / (between - started),
        sum(each.n_tokens for each in scored) / (ended - between),
        started - begun,
    )


def _in_order(batches: Any, n: int) -> list[Any]:
    answers: dict[int, Any] = {}
    for batch in batches:
        answers.update(batch)
    return [answers[i] for i in range(n)]


def _compared(name: str, run: _Run, reference: _Run) -> EngineTest:
    pairs = [(mine.logprob, theirs.logprob) for mine, theirs in zip(run.scores, reference.scores)]
    texts = 0
    for mine, theirs in zip(run.completions, reference.completions):
        # to the first token that differs, whose own log-probabilities are far apart unless it was a near tie
        both = list(zip(mine.token_ids, theirs.token_ids))
        parted = next((at for at, (one, other) in enumerate(both) if one != other), len(both))
        pairs += list(zip(mine.logprobs, theirs.logprobs))[: parted + 1]
        texts += mine.text == theirs.text
    difference = _largest(pairs)
    problems = []
    if not difference <= TOLERANCE:
        problems.append(f"log-probabilities differ by up to {difference:.2g}, more than {TOLERANCE:g}")
    if texts < ROWS:
        problems.append(f"{ROWS - texts} of {ROWS} greedy texts differ")
    return EngineTest(
        name,
        "broken" if problems else "ok",
        "; ".join(problems),
        difference if math.isfinite(difference) else None,
        texts,
        run.generated_per_second,
        run.scored_per_second,
        run.start_seconds,
    )


def _largest(pairs: Sequence[tuple[float, float]]) -> float:
    """The largest difference; infinite where a number is none."""
    differences = [abs(a - b) for a, b in pairs]
    return math.inf if any(map(math.isnan, differences)) else max(differences, default=math.inf)
