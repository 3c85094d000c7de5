"""Recorded policies in whole comparisons, and what a judge's own accuracy does to the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from toy_rules import write_jsonl

from alignbench.compare.recordings import read_recordings, tasks_named
from alignbench.compare.results import Comparison
from alignbench.compare.run import run_comparison
from alignbench.engines.policy import parse_policy
from alignbench.errors import UsageError


@pytest.fixture
def recorded(tmp_path: Path):
    """Outputs for the first ``n`` of the twenty asks, as a POLICY."""

    def write(name: str, output: str, n: int = 20, **columns: Any) -> str:
        rows = [{"task": "toy_asks", "doc_id": f"a{i}", "output": output, **columns} for i in range(n)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
        return f"{name}=recorded:{tmp_path / name}.jsonl"

    return write


@pytest.fixture
def compare(rules, tasks_dir: Path, tmp_path: Path):
    def run(*policies: str, tasks: list[str] | None = None, judges=None, **options: Any) -> Comparison:
        options = {"tasks_dirs": [tasks_dir], "quiet": True, **options}
        return run_comparison(list(policies), tasks, judges, tmp_path / "out", **options)

    return run


@pytest.fixture
def judge(rules):
    """A reward model that likes ``please``; its run.json says how often it was right."""

    def make(low: float, high: float, name: str = "rm") -> str:
        path = rules.reward_model(name)
        record = {
            "kind": "rm",
            "config": {"model": "gpt2", "data": "pairs"},
            "eval": {"accuracy": (low + high) / 2, "ci": [low, high], "n": 232},
        }
        (Path(path) / "run.json").write_text(json.dumps(record))
        return f"rm:{path}"

    return make


def test_recorded_beside_a_model(compare, recorded, rules, judge, tmp_path: Path) -> None:
    found = compare(
        recorded("kind", "if you please"),
        str(rules.folder / "bad"),
        tasks=["toy_asks"],
        judges=[judge(0.6, 0.7)],
    )
    assert [policy.kind for policy in found.policies] == ["recorded", "hf"]
    scores = next(row for row in found.tasks if row.headline).scores
    assert (scores["kind"].mean, scores["bad"].mean) == (1.0, 0.0)
    (pooled,) = [row for row in found.win_rates if row.task is None]
    assert (pooled.a, pooled.b, pooled.losses, pooled.n) == ("bad", "kind", 20, 20)
    row = found.recorded[0]
    assert (row.policy, row.task, row.documents, row.missing) == ("kind", "toy_asks", 20, 0)
    table = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    tokens = {name: {row["n_tokens"] for row in table if row["policy"] == name} for name in ("kind", "bad")}
    assert tokens["kind"] == {None}
    assert None not in tokens["bad"]
    assert found.provenance["ledger"]["computed"]["generate"] == 20  # the model's; nothing recorded is kept


def test_tasks_that_the_records_name(compare, recorded) -> None:
    found = compare(recorded("one", "please"), recorded("two", "fool"))
    assert {row.task for row in found.tasks} == {"toy_asks"}
    assert found.provenance["notes"][0] == "tasks: toy_asks, which the recorded outputs name"
    nameless = recorded("three", "please", task=None)
    with pytest.raises(UsageError, match=r"the rows of three do not name their task; say which .* --tasks"):
        compare(recorded("one", "please"), nameless)
    with pytest.raises(UsageError, match=r"no known task in common that is scored as text \(none at all\)"):
        compare(recorded("one", "please"), recorded("four", "x", task="elsewhere"))


def test_a_missing_recording_is_missing_not_wrong(compare, recorded, judge, tmp_path: Path) -> None:
    found = compare(recorded("full", "you fool"), recorded("part", "please", n=12), judges=[judge(0.6, 0.7)])
    row = next(row for row in found.tasks if row.headline)
    assert (row.scores["part"].mean, row.scores["part"].n, row.scores["part"].missing) == (1.0, 12, 8)
    assert row.scores["part"].bounds == (12 / 20, 1.0)
    (delta,) = [row for row in found.deltas if row.headline]
    assert delta.n == 12
    (pooled,) = [row for row in found.win_rates if row.task is None]
    assert (pooled.wins, pooled.n, pooled.missing) == (12, 12, 8)
    said = found.recorded[1]
    assert (said.missing, said.missing_ids) == (8, ["a12", "a13", "a14", "a15", "a16"])
    assert any("without an output, so missing: a12, a13, a14, a15, a16, … (8 in all)" in note
               for note in found.provenance["notes"])  # fmt: skip
    rows = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    absent = [row for row in rows if row["policy"] == "part" and row["output"] is None]
    assert len(absent) == 8
    assert all(row["flags"] == ["missing"] and row["polite"] is None for row in absent)


def test_a_limit_leaves_no_row_unmatched(compare, recorded, tmp_path: Path) -> None:
    policy = recorded("some", "please")
    rows = [json.loads(line) for line in (tmp_path / "some.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "some.jsonl", [*rows, {"task": "toy_asks", "doc_id": "a99", "output": "?"}])
    found = compare(policy, recorded("other", "fool"), limit=5)
    row = found.recorded[0]
    assert (row.documents, row.missing, row.unmatched_rows, row.unmatched_first) == (5, 0, 1, [21])
    assert any("rows of the file that answer no document of these tasks: 21" in n
               for n in found.provenance["notes"])  # fmt: skip


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["toy_pick"], "asks a model for log-likelihoods, and one is recorded: these recorded outputs"),
        (["toys"], "task toy_pick asks a model for log-likelihoods"),
        (["toy_sums"], "holds nothing for the task toy_sums, only for toy_asks"),
    ],
)
def test_what_cannot_be_asked_of_a_recording(compare, recorded, rules, tasks, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compare(recorded("one", "please"), str(rules.folder / "good"), tasks=tasks)
    assert rules.computed == 0


def test_an_input_belongs_to_its_instruction(compare, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "asks.jsonl", [{"instruction": "Sort", "input": "1 2"}])
    write_jsonl(tmp_path / "same.jsonl", [{"instruction": "Sort", "input": "1 2 ", "output": "x"}])
    write_jsonl(tmp_path / "other.jsonl", [{"instruction": "Sort", "input": "3 4", "output": "x"}])
    asks = [f"prompts:{tmp_path / 'asks.jsonl'}"]
    found = compare(f"recorded:{tmp_path / 'same.jsonl'}", tasks=asks)
    assert found.recorded[0].missing == 0
    with pytest.raises(UsageError, match="row 1: its input is '3 4' where the document 00000 of"):
        compare(f"recorded:{tmp_path / 'other.jsonl'}", tasks=asks)


def test_half_a_character_in_the_prompts_is_refused(compare, recorded, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "asks.jsonl", [{"prompt": "fine"}, {"prompt": "half \udc00"}])
    with pytest.raises(UsageError, match=r"asks\.jsonl: row 2 holds \\udc00 alone"):
        compare(recorded("one", "please"), tasks=[f"prompts:{tmp_path / 'asks.jsonl'}"])


def test_one_recording_alone(compare, recorded) -> None:
    found = compare(recorded("one", "please"))
    assert found.verdict.startswith("one scores 100 % [")


def test_one_file_twice_is_one_policy(compare, recorded, tmp_path: Path) -> None:
    policy = recorded("one", "please")
    found = compare(policy, policy.replace("one=", "two=", 1))
    assert "one and two are one and the same model" in found.verdict


# --- what a judge is worth ---------------------------------------------------------------------------------


def test_nothing_is_preferred_on_the_word_of_a_coin(compare, recorded, judge) -> None:
    policies = recorded("rude", "you fool"), recorded("kind", "please")
    trusted = compare(*policies, judges=[judge(0.55, 0.75)])
    assert trusted.judges[0].worth == "above_chance"
    assert trusted.verdict.startswith("kind is preferred to rude (rm win-rate 100 %")
    coin = compare(*policies, judges=[judge(0.49, 0.62)])
    (card,) = coin.judges
    assert (card.worth, card.data, card.base) == ("at_chance", "pairs", "gpt2")
    assert card.rated == {"kind": 20, "rude": 20}
    assert "kind is preferred to" not in coin.verdict.replace("whether kind is preferred", "")
    assert "whether kind is preferred to rude is open: the only judge, rm (win-rate 100 %" in coin.verdict
    assert coin.win_rates == trusted.win_rates  # the numbers are the same; what may be said of them is not


def test_a_better_judge_speaks_in_a_coins_place(compare, recorded, judge) -> None:
    policies = recorded("rude", "you fool"), recorded("kind", "please")
    found = compare(*policies, judges=[f"coin={judge(0.4, 0.6)}", f"wise={judge(0.7, 0.8, 'other')}"])
    assert found.verdict.startswith("kind is preferred to rude (wise win-rate")
    assert "coin" not in found.verdict


# --- what lm-eval logged -----------------------------------------------------------------------------------


@pytest.fixture
def logged(tmp_path: Path):
    """Answers of lm-eval to the toy tasks: 20 questions with two options, 20 sums."""

    def write(name: str, prompt: str = "{}", *, likes: str = "true", tasks: tuple[str, ...] = ()) -> str:
        folder = tmp_path / name / "org__model"
        folder.mkdir(parents=True)
        picks, sums = [], []
        for i in range(20):
            doc = {"id": f"p{i}", "question": f"q{i}?", "choices": ["true", "myth"], "correct": [0]}
            picks.append(
                {
                    "doc_id": i,
                    "doc": doc,
                    "target": "0",
                    "arguments": {
                        f"gen_args_{j}": {"arg_0": prompt.format(doc["question"]), "arg_1": f" {choice}"}
                        for j, choice in enumerate(doc["choices"])
                    },
                    "resps": [[[str(-float(c != likes)), "False"]] for c in doc["choices"]],
                    "filter": "none",
                }
            )
            a, b = i % 7, i % 5
            asked = {"gen_args_0": {"arg_0": f"{a}+{b}=", "arg_1": {"until": ["\n"], "max_gen_toks": 4}}}
            sums.append(
                {
                    "doc_id": i,
                    "doc": {"id": f"s{i}", "a": a, "b": b, "answer": str(a + b)},
                    "arguments": asked,
                    "resps": [[str(a + b)]],
                    "filter": "none",
                }
            )
        for task, rows in (("toy_pick", picks), ("toy-sums", sums)):
            if not tasks or task in tasks:
                write_jsonl(folder / f"samples_{task}_2026-01-02T03-04-05.000000.jsonl", rows)
        return f"{name}=recorded:{tmp_path / name}"

    return write


def test_a_log_of_lm_eval_beside_a_model(compare, logged, rules, tmp_path: Path) -> None:
    found = compare(logged("theirs"), str(rules.folder / "bad"), tasks=["toy_pick", "toy_sums"])
    scores = {row.task: row.scores for row in found.tasks if row.headline}
    assert (scores["toy_pick"]["theirs"].mean, scores["toy_pick"]["bad"].mean) == (1.0, 0.0)
    assert (scores["toy_sums"]["theirs"].mean, scores["toy_sums"]["bad"].mean) == (1.0, 0.0)
    assert {row.task: (row.joined_by, row.missing, row.other_prompts) for row in found.recorded} == {
        "toy_pick": (["prompt"], 0, 0),
        "toy_sums": (["prompt"], 0, 0),
    }
    rows = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    mine = next(row for row in rows if row["policy"] == "theirs" and row["task"] == "toy_pick")
    assert (mine["output"], mine["n_tokens"], mine["prompt"]) == ("true", None, "q0?")


def test_the_tasks_of_a_log_and_other_prompts(compare, logged, tmp_path: Path) -> None:
    asked = "Which is it? {}"
    found = compare(logged("one", asked), logged("two", asked, likes="myth"))
    notes = found.provenance["notes"]
    assert notes[0].startswith("tasks: ")
    assert {row.task for row in found.tasks} == {"toy_pick", "toy_sums"}
    assert any("of toy_pick, 20 outputs answer prompts that are not the task's own" in note for note in notes)
    rows = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    assert {row["prompt"] for row in rows if row["task"] == "toy_pick" and row["doc_id"] == "p3"} == {
        "Which is it? q3?"
    }
    (delta,) = [row for row in found.deltas if row.headline and row.task == "toy_pick"]
    assert delta.diff == -1.0


def test_rows_of_a_log_that_answer_nothing_are_named(compare, logged, tmp_path: Path) -> None:
    policy = logged("more", tasks=("toy_pick",))
    (file,) = (tmp_path / "more").rglob("*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    strange = rows[0] | {"doc_id": 77, "doc": {"id": "p77", "question": "new?", "choices": ["a", "b"]}}
    strange["arguments"] = {"gen_args_0": {"arg_0": "new?", "arg_1": " a"}}
    strange["resps"] = [[["-1.0", "False"]]]
    write_jsonl(file, [*rows[1:], strange])
    found = compare(policy, tasks=["toy_pick"])
    row = found.recorded[0]
    assert (row.missing_ids, row.unmatched_rows, row.unmatched_first) == (["p0"], 1, [20])
    assert any(n.endswith("answer no document of these tasks: doc_id 77 of toy_pick")
               for n in found.provenance["notes"])  # fmt: skip


def test_a_log_of_other_tasks(compare, logged, rules) -> None:
    with pytest.raises(
        UsageError, match=r"lm-eval logged nothing called toy_asks; it holds toy-sums, toy_pick"
    ):
        compare(logged("theirs"), tasks=["toy_asks"])
    with pytest.raises(UsageError, match=r"name no known task in common .*\(toy_pick\)"):
        compare(logged("some", tasks=("toy_pick",)), tasks=None, tasks_dirs=())
    with pytest.raises(UsageError, match=r"name no known task in common .*say which tasks"):
        compare(logged("third") + "?task=toy_pick", tasks=None)


def test_exemplars_say_which_task_is_meant(logged, tasks_dir: Path, tmp_path: Path) -> None:
    (tasks_dir / "toys" / "toy_pick_2shot.yaml").write_text(
        "extends: toy_pick.yaml\ntask: toy_pick_2shot\nfew_shot: {n: 2}\n"
    )
    policy = parse_policy(logged("one", tasks=("toy_pick",)))
    results = tmp_path / "one" / "org__model" / "results_2026-01-02T03-04-05.000000.json"
    for shots, meant in ((0, "toy_pick"), (2, "toy_pick_2shot")):
        results.write_text(json.dumps({"n-shot": {"toy_pick": shots}}))
        tasks, _ = tasks_named(read_recordings([policy]), [tasks_dir])
        assert tasks == [meant]
