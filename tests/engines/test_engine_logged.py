"""What lm-eval logs: rows as 0.4.13 writes them, joined by what was asked or by the row of the data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from alignbench.engines.logged import SampleLog, open_log
from alignbench.engines.policy import parse_policy
from alignbench.engines.recorded import Asked, open_recording
from alignbench.engines.types import Scored
from alignbench.errors import UsageError

DATE = "2026-01-02T03-04-05.678901"
CHOICES = (" yes", " no")
DOCUMENTS = [
    Asked(f"d{i}", f"Q: {i}?\nA:", f"Q: {i}?\nA:", "", CHOICES, (f"Q: {i}?", "yes", "no")) for i in range(3)
]


def sample(doc_id: int, doc: Mapping[str, Any], arguments: Sequence[Any], resps: Any, **more: Any) -> Any:
    """A row of samples_TASK_DATE.jsonl: every number in ``resps`` is a text there."""
    return {
        "doc_id": doc_id,
        "doc": doc,
        "target": "0",
        "arguments": {
            f"gen_args_{i}": {f"arg_{j}": value for j, value in enumerate(each)}
            for i, each in enumerate(arguments)
        },
        "resps": resps,
        "filtered_resps": [each[0] for each in resps],
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": "0" * 64,
        "prompt_hash": "0" * 64,
        "target_hash": "0" * 64,
        "acc": 1.0,
        **more,
    }


def choice(i: int, *, prompt: str = "Q: {}?\nA:", options: Sequence[str] = CHOICES, **more: Any) -> Any:
    """A multiple-choice row about document ``i``: its first option is the likelier one."""
    values = [[[str(-1.5 - i - j), str(j == 0)]] for j in range(len(options))]
    return sample(i, {"n": i}, [[prompt.format(i), each] for each in options], values, **more)


def text(i: int, *outputs: str, **more: Any) -> Any:
    how = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
    return sample(i, {"n": i}, [[f"Q: {i}?\nA:", how]], [list(outputs)], **more)


@pytest.fixture
def log(tmp_path: Path):
    """Write rows as lm-eval does, and read them: task → rows."""

    def write(
        tasks: Mapping[str, Sequence[Any]],
        options: str = "",
        *,
        model: str = "org__model",
        date: str = DATE,
        shots: Mapping[str, int] | None = None,
    ) -> SampleLog:
        folder = tmp_path / "out" / model
        folder.mkdir(parents=True, exist_ok=True)
        for task, rows in tasks.items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"samples_{task}_{date}.jsonl").write_text(lines)
        if shots is not None:
            (folder / f"results_{date}.json").write_text(json.dumps({"results": {}, "n-shot": shots}))
        found = open_recording(parse_policy(f"me=recorded:{tmp_path / 'out'}{options}"))
        assert isinstance(found, SampleLog)
        return found

    return write


def asks(doc: Mapping[str, Any]) -> Sequence[str] | None:
    """What the task's own file makes of lm-eval's ``doc``."""
    return (f"Q: {doc['n']}?", "yes", "no") if "n" in doc else None


def join(found: SampleLog, task: str = "t", kind: str = "multiple_choice", *, only: bool = True) -> Any:
    return found.join(task, DOCUMENTS, kind=kind, asks=asks, only=only)


def test_log_likelihoods_of_the_same_prompts(log) -> None:
    found = join(log({"t": [choice(0), choice(2)]}))
    assert found.outputs["d2"] == (Scored(-3.5, 0, True), Scored(-4.5, 0, False))
    assert (found.by, found.missing, found.prompts) == (("prompt",), ("d1",), {})


def test_the_order_of_choices_is_the_documents(log) -> None:
    found = join(log({"t": [choice(0, options=CHOICES[::-1])]}))
    assert [each.logprob for each in found.outputs["d0"]] == [-2.5, -1.5]


def test_other_prompts_join_by_the_row_of_the_data(log) -> None:
    rows = [choice(i, prompt="question {}\nanswer:", options=("yes", "no")) for i in (1, 0)]
    found = join(log({"t": rows}))
    assert (found.by, found.missing) == (("doc",), ("d2",))
    assert found.prompts == {"d1": "question 1\nanswer:", "d0": "question 0\nanswer:"}
    assert found.outputs["d1"][0] == Scored(-2.5, 0, True)


def test_other_choices_are_refused(log) -> None:
    rows = [choice(0, prompt="? {}", options=(" True", " False"))]
    with pytest.raises(
        UsageError, match=r"doc_id 0 of t scored ' True', ' False' where the document d0 of t "
    ):
        join(log({"t": rows}))


def test_what_lm_eval_scores_beside_the_choices(log) -> None:
    """For acc_mutual_info it also scores the choices behind nothing."""
    row = choice(0)
    for i, option in enumerate(CHOICES, start=2):
        row["arguments"][f"gen_args_{i}"] = {"arg_0": "", "arg_1": option}
        row["resps"].append([["-99.0", "False"]])
    assert [each.logprob for each in join(log({"t": [row]})).outputs["d0"]] == [-1.5, -2.5]


def test_a_target_and_a_whole_document(log) -> None:
    target = [sample(0, {}, [["The cat", " sat"]], [[["-0.25", "True"]]])]
    documents = [Asked("a", "The cat", "", "", (" sat",)), Asked("b", "", "", "", ("The cat sat",))]
    found = log({"t": target}).join("t", documents, kind="loglikelihood", asks=None, only=True)
    assert found.outputs == {"a": (Scored(-0.25, 0, True),)}
    rolling = [sample(0, {}, [["The cat sat"]], [["-12.5"]])]
    found = log({"t": rolling}).join("t", documents, kind="loglikelihood", asks=None, only=True)
    assert found.outputs == {"b": (Scored(-12.5, 0, False),)}


def test_texts_are_taken_before_filters_and_once(log) -> None:
    """lm-eval writes a row a filter over the same answers."""
    raw = "2 and 2 is 4. The answer is 4."
    rows = [text(0, raw, filter="strict-match"), text(0, raw, filter="flexible-extract")]
    for row, kept in zip(rows, ("[invalid]", "4")):
        row["filtered_resps"] = [kept]
    found = join(log({"t": rows}), kind="generate")
    assert found.outputs == {"d0": raw}
    assert found.used == {1, 2}


def test_repeated_samples(log) -> None:
    rows = {"t": [text(0, "x", "y"), text(1, "u", "u"), text(2, "z")]}
    with pytest.raises(UsageError, match=r"doc_id 0 of t has 2 outputs.*takes one; .*\?sample=1$"):
        join(log(rows), kind="generate")
    assert join(log(rows, "?sample=1"), kind="generate").outputs == {"d0": "x", "d1": "u", "d2": "z"}
    second = join(log(rows, "?sample=2"), kind="generate")
    assert (second.outputs, second.missing) == ({"d0": "y", "d1": "u"}, ("d2",))
    with pytest.raises(UsageError, match=r"no document of t has more than 2 outputs"):
        join(log(rows, "?sample=3"), kind="generate")


def test_a_row_that_the_data_holds_twice(log) -> None:
    """Each of the two gets its own answer, in order; a third is one too many."""
    documents = [Asked("a", "p", "p", "", ()), Asked("b", "p", "p", "", ())]
    rows = [sample(i, {}, [["p", {"until": []}]], [[f"x{i}"]]) for i in range(3)]
    found = log({"t": rows[:2]}).join("t", documents, kind="generate", asks=None, only=True)
    assert found.outputs == {"a": "x0", "b": "x1"}
    with pytest.raises(
        UsageError, match="doc_id 2 of t and doc_id 0 both answer the document a of t; keep one"
    ):
        log({"t": rows}).join("t", documents, kind="generate", asks=None, only=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "shots"),
    [
        ("sst2", "sst2", None),
        ("lambada", "lambada_openai", None),
        ("real_toxicity_prompts", "realtoxicityprompts", None),
        ("arc_easy", "arc-Easy", None),
        ("lm_eval:sst2", "sst2", None),
        ("hellaswag_5shot", "hellaswag", 5),
        ("lambada_5shot", "lambada_openai", 5),
    ],
)
def test_names_that_differ_by_convention(log, ours: str, theirs: str, shots: int | None) -> None:
    found = log({theirs: [choice(0)]}, shots=None if shots is None else {theirs: shots})
    assert found.of_task(ours) == theirs


def test_other_names(log) -> None:
    found = log({"parity_sst2": [choice(0)], "rte": [choice(0)]}, shots={"rte": 0})
    assert found.of_task("sst2") is None
    assert found.of_task("rte_5shot") is None  # there were none
    with pytest.raises(UsageError, match=r"nothing called sst2; it holds parity_sst2, rte; .*\?task=NAME"):
        join(found, "sst2")
    chosen = log({}, "?task=parity_sst2")
    assert join(chosen, "sst2").outputs.keys() == {"d0"}
    with pytest.raises(UsageError, match="task=parity_sst2 is for one task, and several were asked for"):
        join(chosen, "sst2", only=False)
    with pytest.raises(
        UsageError, match=r"no task 'parity_sst' \(did you mean 'parity_sst2'\?\); the log holds"
    ):
        join(log({}, "?task=parity_sst"), "sst2")


def test_nothing_matches_and_the_wrong_kind(log) -> None:
    row = sample(0, {"other": 1}, [["something else", each] for each in CHOICES], choice(0)["resps"])
    with pytest.raises(
        UsageError, match=r"none of the 1 rows of lm-eval's t matches a document of t; joins are"
    ):
        join(log({"t": [row]}))
    with pytest.raises(UsageError, match="lm-eval's t holds log-likelihoods, and the task t asks for a text"):
        join(log({"t": [choice(0)]}), kind="generate")
    with pytest.raises(UsageError, match="lm-eval's t holds texts, and the task t asks for log-likelihoods"):
        join(log({"t": [text(0, "x")]}))


def test_a_folder_of_very_many_models(log) -> None:
    for i in range(11):
        log({"t": [choice(0)]}, f"?generator=org__{i}", model=f"org__{i}")
    with pytest.raises(UsageError, match=r"org__0, .*, … \(12 in all\); choose one") as said:
        log({"t": [choice(0)]}, model="org__11")
    assert "org__9" not in str(said.value)


def test_a_folder_of_several_models_or_runs(log, tmp_path: Path) -> None:
    log({"t": [choice(0)]}, model="org__a")
    with pytest.raises(
        UsageError, match=r"holds samples of org__a, org__b; choose one with \?generator=NAME"
    ):
        log({"t": [choice(1)]}, model="org__b")
    found = log({}, "?generator=org__b")
    assert join(found).outputs.keys() == {"d1"}
    assert found.identity["generator"] == "org__b"
    with pytest.raises(UsageError, match=r"no model 'org__c' .*; the folder has org__a, org__b"):
        log({}, "?generator=org__c")
    later = "2026-01-03T00-00-00.000001"
    with pytest.raises(UsageError, match=r"two runs of t; name one of the files"):
        log({"t": [choice(2)]}, "?generator=org__b", model="org__b", date=later)
    one = tmp_path / "out" / "org__b" / f"samples_t_{later}.jsonl"
    assert join(open_recording(parse_policy(f"recorded:{one}"))).outputs.keys() == {"d2"}


def test_a_name_with_a_date_within(log) -> None:
    assert log({"my_task_2024-05": [choice(0)]}).named == ["my_task_2024-05"]


@pytest.mark.parametrize(
    "broken",
    [
        {"arguments": {}},
        {"arguments": [["p", " yes"]]},
        {"resps": [[["much", "False"]], [["-1", "False"]]]},
        {"resps": [[["-1.0", "False"]]]},
        {"resps": None},
        {"doc_id": "first"},
    ],
)
def test_rows_that_lm_eval_does_not_write(log, broken: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"samples_t_.*jsonl, doc_id .*: not as lm-eval 0.4 logs a sample"):
        log({"t": [choice(0) | broken]})


def test_a_log_likelihood_that_is_no_number(log) -> None:
    row = choice(0)
    row["resps"] = [[["nan", "False"]], [["-inf", "False"]]]
    found = join(log({"t": [row]})).outputs["d0"]
    assert math.isnan(found[0].logprob)
    assert found[1].logprob == -math.inf


def test_identity_is_the_content_and_the_task(log, tmp_path: Path) -> None:
    one = log({"t": [choice(0)]}).identity
    moved = tmp_path / "elsewhere"
    (tmp_path / "out").rename(moved)
    again = open_log(parse_policy(f"recorded:{moved}"), moved).identity
    assert again == one
    second = open_log(parse_policy(f"recorded:{moved}?sample=2"), moved).identity
    assert second == {**one, "sample": 2}
    assert log({"t": [choice(1)]}, model="org__model").identity != one
