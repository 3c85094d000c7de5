"""Requests out, answers back through the ledger, samples; on an engine that answers from the text it gets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.engines.plan import Work
from alignbench.engines.policy import Policy
from alignbench.engines.types import Completion, Generate, Reward, Rewarded, Score, Scored
from alignbench.errors import WorkError
from alignbench.evaluation import dry_run, evaluate_policy, requests_of, select_documents
from alignbench.ledger import Ledger
from alignbench.metrics import exact_match
from alignbench.tasks.types import Document, Metric, Task

POLICY = Policy("p", "p", "hf", "p")


class EchoEngine:
    """Says the prompt back; a continuation's log-likelihood is minus its length; a reward is its length."""

    def __init__(
        self, *, finish: str = "eos", stop_after: int | None = None, cut: int = 0, **identity: Any
    ) -> None:
        self.identity: Mapping[str, Any] = {"engine": "echo", **identity}
        self.cut = cut
        self.finish, self.stop_after = finish, stop_after
        self.computed: list[Any] = []
        self.work = Work()

    def _run(
        self, requests: Sequence[Any], held: Collection[int], make: Any
    ) -> Iterator[list[tuple[int, Any]]]:
        for index, request in enumerate(requests):
            if index in held:
                continue
            if self.stop_after is not None and len(self.computed) >= self.stop_after:
                raise KeyboardInterrupt
            self.computed.append(request)
            yield [(index, make(request))]

    def generate(
        self, requests: Sequence[Generate], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        def make(request: Generate) -> Completion:
            return Completion(request.prompt, (9,), (1, 2), (-0.1, -0.2), (0.0, 0.0), self.finish, self.cut)  # type: ignore[arg-type]

        return self._run(requests, held, make)

    def score(
        self, requests: Sequence[Score], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Scored]]]:
        return self._run(
            requests,
            held,
            # only the longer continuation did not fit
            lambda r: Scored(
                -float(len(r.continuation)), len(r.continuation), False, self.cut * (len(r.continuation) > 2)
            ),
        )

    def reward(
        self, requests: Sequence[Reward], *, held: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Rewarded]]]:
        return self._run(requests, held, lambda r: Rewarded(float(len(r.response)), len(r.response)))


def make_task(kind: Any = "generate", n: int = 4, **changes: Any) -> Task:
    choices = () if kind == "generate" else ("a", "bbb")
    documents = [
        Document(
            f"d{i}", {"i": i}, f"prompt {i}", f"prompt {i}", choices, f"c{i % 2}", (0,), " ", (f"prompt {i}",)
        )
        for i in range(n)
    ]

    def score(document: Document, answer: Any) -> dict[str, float | None]:
        if kind == "generate":
            return {"m": exact_match(answer.text, document.references)}
        return {"m": float(getattr(answer[0], "logprob", 0.0) > getattr(answer[1], "logprob", 0.0))}

    task = Task(
        name="t",
        family="f",
        area="nlp",
        kind=kind,
        description="",
        path=Path("t.yaml"),
        metrics=(Metric("m"),),
        headline="m",
        score=score,
        load=lambda: list(documents),
        sampling={"max_tokens": 5, "temperature": 0.0, "stop": ["\n"]},
    )
    return replace(task, **changes)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path) as opened:
        yield opened


def run(engine: EchoEngine, task: Task, ledger: Ledger, **kwargs: Any) -> list[Any]:
    return evaluate_policy(POLICY, engine, task, task.load(), ledger, **kwargs)  # type: ignore[arg-type]


def test_a_generated_sample(ledger: Ledger) -> None:
    sample = run(EchoEngine(), make_task(), ledger)[1]
    assert (sample.policy, sample.task, sample.doc_id, sample.cluster) == ("p", "t", "d1", "c1")
    assert (sample.prompt, sample.output, sample.target) == ("prompt 1", "prompt 1", "prompt 1")
    assert (sample.values, sample.n_tokens, sample.flags) == ({"m": 1.0}, 2, ())


def test_a_multiple_choice_sample_shows_the_likeliest_choice(ledger: Ledger) -> None:
    engine = EchoEngine()
    samples = run(engine, make_task("multiple_choice"), ledger)
    assert engine.computed[0] == Score("prompt 0", " a")  # delimiter and choice
    assert (samples[0].output, samples[0].n_tokens, samples[0].values) == ("a", 2, {"m": 1.0})


@pytest.mark.parametrize("kind", ["generate", "multiple_choice"])
def test_a_prompt_that_was_cut_is_flagged_also_from_the_ledger(kind: str, ledger: Ledger) -> None:
    task = make_task(kind)
    assert run(EchoEngine(model="long"), task, ledger)[0].flags == ()
    for _ in range(2):  # computed, then held
        assert run(EchoEngine(model="short", cut=3), task, ledger)[0].flags == ("prompt_cut",)


def test_a_preference_sample_shows_what_the_reward_model_prefers(ledger: Ledger) -> None:
    sample = run(EchoEngine(), make_task("preference"), ledger)[0]
    assert sample.output == "bbb"  # the longer one, though "a" was chosen


@pytest.mark.parametrize(
    ("finish", "prompt", "flags"),
    [
        ("eos", "x", ()),
        ("length", "x", ("truncated",)),
        ("eos", " ", ("empty",)),
        ("length", "", ("truncated", "empty")),
    ],
)
def test_flags(ledger: Ledger, finish: str, prompt: str, flags: tuple[str, ...]) -> None:
    document = Document("d", {}, prompt, cluster="d", references=("right",))
    task = make_task(load=lambda: [document])
    (sample,) = run(EchoEngine(finish=finish), task, ledger)
    assert sample.flags == flags
    assert sample.values == {"m": 0.0}  # the model failed: wrong, not missing


def test_unparsed_is_a_flag_and_no_metric(ledger: Ledger) -> None:
    task = make_task(score=lambda document, answer: {"m": 0.0, "unparsed": 1.0})
    sample = run(EchoEngine(), task, ledger)[0]
    assert (sample.values, sample.flags) == ({"m": 0.0}, ("unparsed",))


def test_a_second_run_asks_nothing_and_gives_the_same(ledger: Ledger) -> None:
    first, second = EchoEngine(), EchoEngine()
    for kind in ("generate", "multiple_choice", "preference"):
        task = make_task(kind)
        assert run(first, task, ledger) == run(second, task, ledger)
    assert len(first.computed) == 4 + 8 + 8
    assert second.computed == []


@pytest.mark.parametrize(
    ("identity", "temperature", "options"),
    [({"weights": "other"}, 0.0, {}), ({}, 1.0, {"seed": 1}), ({}, 0.0, {"fresh": True})],
    ids=["other weights", "another seed", "fresh"],
)
def test_what_is_asked_anew(
    ledger: Ledger, identity: dict[str, str], temperature: float, options: dict[str, Any]
) -> None:
    task = make_task(sampling={"temperature": temperature})
    run(EchoEngine(), task, ledger)
    again = EchoEngine(**identity)
    run(again, task, ledger, **options)
    assert len(again.computed) == 4


def test_a_seed_does_not_change_greedy_decoding(ledger: Ledger) -> None:
    run(EchoEngine(), make_task(), ledger, seed=0)
    again = EchoEngine()
    run(again, make_task(), ledger, seed=1)
    assert again.computed == []


def test_what_was_answered_before_a_kill_is_not_asked_again(ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(EchoEngine(stop_after=3), make_task(n=5), ledger)
    again = EchoEngine()
    assert len(run(again, make_task(n=5), ledger)) == 5
    assert [request.prompt for request in again.computed] == ["prompt 3", "prompt 4"]


def test_a_live_module_bypasses_the_ledger(ledger: Ledger) -> None:
    engine = EchoEngine(live=True)
    run(engine, make_task(), ledger)
    run(engine, make_task(), ledger)
    assert len(engine.computed) == 8


def test_progress_counts_requests(ledger: Ledger) -> None:
    done: list[int] = []
    run(EchoEngine(), make_task("multiple_choice"), ledger, on_done=lambda n=1, note="": done.append(n))
    assert sum(done) == 8


def test_a_scorer_that_fails_on_one_document_is_a_missing_measurement(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    def score(document: Document, answer: Any) -> dict[str, float | None]:
        return {"m": 1 / document.fields["i"]}

    samples = run(EchoEngine(), make_task(score=score), ledger)
    assert [sample.values["m"] for sample in samples] == [None, 1.0, 0.5, pytest.approx(1 / 3)]
    assert "scoring failed on 1 of 4 documents" in capsys.readouterr().err


def test_a_scorer_that_always_fails_is_an_error(ledger: Ledger) -> None:
    def score(document: Document, answer: Any) -> dict[str, float | None]:
        raise ValueError("no")

    with pytest.raises(WorkError, match=r"scoring fails on every document \(d0: ValueError: no\)"):
        run(EchoEngine(), make_task(score=score), ledger)


def test_an_engine_that_cannot_is_one_sentence_about_the_task(ledger: Ledger) -> None:
    class NoHead(EchoEngine):
        def reward(self, requests: Any, *, held: Any = ()) -> Any:
            raise WorkError("this model has no reward head")

    with pytest.raises(WorkError, match="this model has no reward head"):
        run(NoHead(), make_task("preference"), ledger)


def test_an_engine_that_leaves_a_request_unanswered(ledger: Ledger) -> None:
    class Lazy(EchoEngine):
        def generate(self, requests: Any, *, held: Any = ()) -> Any:
            return iter(())

    for live in (False, True):
        with pytest.raises(WorkError, match="4 of 4 requests"):
            run(Lazy(live=live), make_task(), ledger)


@given(limit=st.integers(1, 30), seed=st.integers(0, 5))
def test_a_subset_is_seeded_and_keeps_the_order(limit: int, seed: int) -> None:
    task = make_task(n=20)
    ids = [document.doc_id for document in select_documents(task, limit, seed)]
    assert len(ids) == min(limit, 20)
    assert ids == [d.doc_id for d in select_documents(make_task(n=20), limit, seed)]
    assert ids == [d.doc_id for d in task.load() if d.doc_id in ids]


def test_subsets_differ_by_seed() -> None:
    task = make_task(n=50)
    subsets = {tuple(d.doc_id for d in select_documents(task, 5, seed)) for seed in range(5)}
    assert len(subsets) == 5


def test_a_sampled_request_has_the_same_seed_in_any_subset() -> None:
    task = make_task(n=20, sampling={"temperature": 0.7})
    whole = {d.doc_id: requests_of(task, d, 3) for d in task.load()}
    part = {d.doc_id: requests_of(task, d, 3) for d in select_documents(task, 5, 1)}
    assert all(whole[doc_id] == requests for doc_id, requests in part.items())
    seeds = {requests[0].seed for requests in whole.values()}  # type: ignore[union-attr]
    assert len(seeds) == 20


def test_dry_run_counts_and_asks_nothing() -> None:
    plans = dry_run([make_task(n=10), make_task("multiple_choice", n=10)], limit=4)
    generated, choices = plans
    assert (generated.documents, generated.requests, generated.output_tokens) == (4, 4, 20)
    assert (choices.documents, choices.requests, choices.output_tokens) == (4, 8, 0)
    assert generated.input_tokens == 8  # four times "prompt i", 32 characters
    assert generated.example.startswith("prompt ")
    assert dry_run([make_task(n=10)], count_tokens=len)[0].input_tokens == 80


def test_several_outputs_of_a_prompt(ledger: Ledger) -> None:
    """Each has a seed of its own, the first that of a single output; metrics are means over them."""
    sampling = {"max_tokens": 5, "temperature": 1.0}
    one, three = make_task(sampling=sampling), make_task(sampling=sampling, samples=3)
    document = three.load()[0]
    seeds = [request.seed for request in requests_of(three, document)]  # type: ignore[union-attr]
    assert len(set(seeds)) == 3
    assert seeds[0] == requests_of(one, document)[0].seed  # type: ignore[union-attr]
    values = iter([1.0, 0.0, 0.5] * 2 + [1.0, None, 1.0] + [1.0] * 3)
    samples = run(EchoEngine(), replace(three, score=lambda d, a: {"m": next(values)}), ledger)
    assert [sample.values["m"] for sample in samples] == [0.5, 0.5, None, 1.0]
    assert samples[0].outputs == ("prompt 0",) * 3
    assert samples[0].output == "prompt 0"
    assert samples[0].n_tokens == 6


class Lengths:
    """Scores an output by its last digit over ten; of document d2 it fails."""

    name = "digit"

    def score(
        self, task: Task, documents: Sequence[Document], outputs: Sequence[str], on_done: Any = None
    ) -> list[float | None]:
        return [
            None if d.doc_id == "d2" else int(o[-1]) / 10 for d, o in zip(documents, outputs, strict=True)
        ]


def test_what_scorers_say_goes_to_the_metrics_that_ask(ledger: Ledger) -> None:
    task = make_task(
        metrics=(Metric("m"), Metric("r", scorers=("digit",))),
        rate=lambda document, outputs, scores: {"r": scores["digit"][0]},
    )
    samples = run(EchoEngine(), task, ledger, scorers=[Lengths()])
    assert [sample.values for sample in samples] == [
        {"m": 1.0, "r": 0.0},
        {"m": 1.0, "r": 0.1},
        {"m": 1.0, "r": None},  # the scorer failed: missing, not 0
        {"m": 1.0, "r": 0.3},
    ]
    assert samples[3].scores == {"digit": [0.3]}


def test_a_scorer_that_no_metric_asks_for_is_not_asked(ledger: Ledger) -> None:
    samples = run(EchoEngine(), make_task(), ledger, scorers=[Lengths()])
    assert all(sample.scores == {} for sample in samples)


def test_a_statistic_of_sums_has_its_value_as_the_mean(ledger: Ledger) -> None:
    """A ratio: Σi / Σ(i+1) over i = 0…3 is 6 / 10."""
    task = make_task(
        score=lambda document, answer: {"m": (float(document.fields["i"]), document.fields["i"] + 1.0)},
        combine={"m": lambda sums: sums[0] / sums[1]},
    )
    values = [sample.values["m"] for sample in run(EchoEngine(), task, ledger)]
    assert sum(values) / 4 == pytest.approx(0.6)
    assert len(set(values)) == 4


@pytest.mark.parametrize(
    ("numbers", "combine", "why"),
    [
        (lambda i: (1.0, 0.0), lambda sums: sums[0] / sums[1], "ZeroDivisionError: float division by zero"),
        (lambda i: (1.0,) * (1 + i % 2), lambda sums: sums[0], "ValueError"),
        (lambda i: (1.0,), lambda sums: "much", "TypeError"),
        (lambda i: (1e306,), lambda sums: sums[0], "OverflowError"),
    ],
)
def test_a_statistic_of_sums_that_fails_is_missing_and_costs_no_other_metric(
    numbers: Any, combine: Any, why: str, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    task = make_task(
        score=lambda document, answer: {"m": numbers(document.fields["i"]), "other": 1.0},
        metrics=(Metric("m"), Metric("other")),
        combine={"m": combine},
    )
    assert [sample.values for sample in run(EchoEngine(), task, ledger)] == [{"m": None, "other": 1.0}] * 4
    said = capsys.readouterr().err
    assert "the metric 'm' has no value" in said
    assert why in said
    assert said.count("\n") == 1


def test_a_function_that_would_end_the_process_is_one_that_failed(ledger: Ledger) -> None:
    def score(document: Document, answer: Any) -> dict[str, float | None]:
        raise SystemExit(0)

    with pytest.raises(WorkError, match="scoring fails on every document"):
        run(EchoEngine(), make_task(score=score), ledger)


def test_another_metric_asks_the_model_nothing_again(ledger: Ledger) -> None:
    engine = EchoEngine()
    run(engine, make_task(), ledger)
    before = len(engine.computed)
    assert before == 4
    other = make_task(score=lambda document, answer: {"m": float(len(answer.text))})
    assert [sample.values["m"] for sample in run(engine, other, ledger)] == [8.0] * 4
    assert len(engine.computed) == before
