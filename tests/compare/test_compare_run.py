"""Whole comparisons on toy tasks with policies that answer by rule."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from toy_rules import RuleEngine, add

from alignbench.compare.assemble import win_pairs
from alignbench.compare.results import Comparison, read_results
from alignbench.compare.run import run_comparison
from alignbench.errors import UsageError, WorkError
from alignbench.processes import LOCK

TOYS = ["toy_sums,toy_asks", "toy_pick"]


@pytest.fixture
def compare(rules, tasks_dir: Path, tmp_path: Path):
    def run(
        policies: list[str] | None = None, tasks: list[str] | None = None, judges=None, **options
    ) -> Comparison:
        names = policies or ["bad", "good"]
        specs = [name if "/" in name else str(rules.folder / name) for name in names]
        out = options.pop("out", tmp_path / "out")
        options = {"tasks_dirs": [tasks_dir], "quiet": True, **options}
        return run_comparison(specs, tasks or TOYS, judges, out, **options)

    return run


def test_a_comparison_says_who_won_what(compare, rules, tmp_path: Path) -> None:
    rules.reward_model()
    found = compare(judges=[f"rm:{rules.folder / 'rm'}"])
    scores = {(row.task, row.metric): row for row in found.tasks}
    assert scores["toy_sums", "exact_match"].scores["good"].mean == 1.0
    assert scores["toy_sums", "exact_match"].scores["bad"].mean == 0.0
    assert scores["toy_pick", "accuracy"].chance == 0.5
    assert scores["toy_sums", "exact_match"].scores["good"].ci[0] < 1.0  # 20 of 20 is not certainty
    assert {row.metric: row.headline for row in found.tasks if row.task == "toy_asks"} == {
        "polite": True,
        "rude": False,
    }

    deltas = {(row.task, row.metric): row for row in found.deltas}
    assert all((row.policy, row.reference, row.n) == ("good", "bad", 20) for row in found.deltas)
    polite, rude = deltas["toy_asks", "polite"], deltas["toy_asks", "rude"]
    assert (polite.diff, polite.gain, polite.verdict) == (1.0, 1.0, "better")
    assert (rude.diff, rude.gain, rude.verdict) == (-1.0, 1.0, "better")
    assert rude.ci[1] <= 0 <= rude.gain_ci[0]
    assert rude.gain_ci == (-rude.ci[1], -rude.ci[0])
    assert rude.p_adjusted is None
    assert rude.ci_simultaneous is None
    assert polite.p_adjusted >= polite.p
    assert polite.ci_simultaneous[0] <= polite.ci[0]

    pooled, single = found.win_rates
    assert (pooled.task, single.task) == (None, "toy_asks")
    assert (pooled.a, pooled.b, pooled.judge) == ("good", "bad", "rm")
    assert (pooled.n, pooled.wins, pooled.losses, pooled.ties, pooled.win_rate) == (20, 20, 0, 0, 1.0)
    assert pooled.verdict == "better"
    assert single.p_adjusted is None
    assert found.tax[0].tasks == ["toy_sums"]
    assert found.tax[0].mean_gain == 1.0
    assert found.tax[0].regressed == []
    assert found.verdict.startswith("good is preferred to bad (rm win-rate 100 % [")
    assert "n = 20" in found.verdict
    assert "more truthful" in found.verdict
    assert read_results(tmp_path / "out") == found


def test_what_reached_each_model_is_in_the_results(compare, rules) -> None:
    def short_of_context():
        engine = RuleEngine("short", add)
        engine.cut = 3
        return engine

    spec = rules.policy("short", short_of_context)
    good, short = compare(["good", spec + "?chat_template=off"], ["toy_sums,toy_pick"]).policies
    assert (good.inputs.dtype, good.inputs.in_front, good.inputs.context_length) == ("float32", "<s>", 64)
    assert (good.inputs.template_choice, short.inputs.template_choice) == ("auto", "off")
    assert (good.cut, short.cut) == ({}, {"toy_sums": 20})


def test_the_folder(compare, rules, tmp_path: Path) -> None:
    rules.reward_model()
    compare(limit=5, seed=3, command=["alignbench", "compare"])
    out = tmp_path / "out"
    names = {"results.json", "samples.parquet", "preferences.parquet", "run.json", "report.html"}
    assert {path.name for path in out.iterdir()} == names
    samples = pq.read_table(out / "samples.parquet").to_pylist()
    assert len(samples) == 2 * 3 * 5
    row = next(row for row in samples if row["task"] == "toy_sums" and row["policy"] == "good")
    assert row["exact_match"] == 1.0
    assert row["polite"] is None
    assert row["flags"] == []
    assert row["output"] == row["target"]
    preferences = pq.read_table(out / "preferences.parquet").to_pylist()
    assert {(row["a"], row["b"], row["preference"]) for row in preferences} == {("good", "bad", 1.0)}
    record = json.loads((out / "run.json").read_text())
    assert record["kind"] == "compare"
    assert record["config"]["limit"] == 5
    assert record["config"]["seed"] == 3
    assert len(record["documents"]["toy_sums"]) == 5  # the drawn ids are recorded
    assert {row["doc_id"] for row in samples if row["task"] == "toy_sums"} == set(
        record["documents"]["toy_sums"]
    )
    assert set(record["fingerprints"]) == {"good", "bad"}
    assert record["ledger"]["computed"] == {"generate": 20, "score": 20, "reward": 10}
    assert "NaN" not in (out / "results.json").read_text()


def test_a_second_comparison_computes_nothing(compare, rules, tmp_path: Path) -> None:
    rules.reward_model()
    first = compare()
    paid = rules.computed
    assert paid == 2 * (20 + 20 + 40) + 40
    again = compare(out=tmp_path / "again")
    assert rules.computed == paid
    assert again.tasks == first.tasks
    assert again.win_rates == first.win_rates
    assert again.deltas == first.deltas
    assert again.provenance["ledger"]["computed"] == {}
    compare(fresh=True)
    assert rules.computed == 2 * paid


def test_fresh_opens_policies_and_judges_afresh(compare, rules, monkeypatch: pytest.MonkeyPatch) -> None:
    rules.reward_model()
    asked: list[bool] = []

    def opened(policy, *, fresh: bool = False, **options):
        asked.append(fresh)
        return rules.open(policy, **options)

    monkeypatch.setattr("alignbench.engines.open_engine", opened)
    compare()
    assert not any(asked)
    often = len(asked)
    assert often >= 3  # two policies and the reward model
    compare(fresh=True)
    assert asked[often:].count(True) >= 3


def test_a_new_policy_pays_for_itself_alone(compare, rules) -> None:
    compare()
    paid = rules.computed
    rules.policy("third", lambda: RuleEngine("third", lambda prompt: "3", prefers=1.0))
    found = compare(["bad", "good", "third"])
    assert rules.computed == paid + 80
    assert {row.policy for row in found.deltas} == {"good", "third"}


def test_a_stopped_comparison_goes_on(compare, rules, tmp_path: Path) -> None:
    make = rules.makers["good"]

    def stopped():
        engine = make()
        engine.fail_after = 30
        return engine

    rules.makers["good"] = stopped
    with pytest.raises(KeyboardInterrupt):
        compare()
    assert not (tmp_path / "out" / "results.json").exists()
    assert rules.computed == 80 + 30
    rules.makers["good"] = make
    compare()
    assert rules.computed == 160


def test_what_fails_is_named_and_costs_nothing_else(compare, rules) -> None:
    def broken():
        engine = rules.makers["good"]()
        engine.identity = {"engine": "rule", "name": "half"}
        engine.score = lambda requests, held=(): (_ for _ in ()).throw(RuntimeError("no logits"))
        return engine

    rules.policy("half", broken)
    found = compare(["bad", "good", "half"])
    assert [(f.policy, f.task) for f in found.failures] == [("half", "toy_pick")]
    assert "no logits" in found.failures[0].error
    row = next(row for row in found.tasks if row.task == "toy_pick")
    assert set(row.scores) == {"bad", "good"}
    assert found.verdict.endswith("1 part failed and is left out.")


def test_a_policy_that_does_not_open_is_left_out(compare, rules) -> None:
    def broken():
        raise RuntimeError("out of memory")

    rules.policy("huge", broken)
    found = compare(["bad", "good", "huge"])
    assert [(f.policy, f.task, f.error) for f in found.failures] == [
        ("huge", None, "RuntimeError: out of memory")
    ]
    assert {row.policy for row in found.deltas} == {"good"}
    assert found.policies[2].fingerprint is None
    with pytest.raises(WorkError, match="nothing could be evaluated: RuntimeError: out of memory"):
        compare(["huge"])


def test_a_judge_that_fails_is_left_out(compare, rules) -> None:
    rules.reward_model()
    rules.makers["rm"] = lambda: (_ for _ in ()).throw(RuntimeError("no head"))
    found = compare()
    assert [(f.judge, f.error) for f in found.failures] == [("rm", "RuntimeError: no head")]
    assert found.win_rates == []
    assert found.deltas


def test_one_policy_is_an_evaluation(compare) -> None:
    found = compare(["good"])
    assert found.kind == "eval"
    assert found.deltas == []
    assert found.win_rates == []
    assert found.tax == []
    assert found.verdict.startswith("good scores 100 % [")
    assert "majority 100 %" in found.verdict  # of two choices one is always right in this toy
    assert "chance 0 %" in found.verdict


def test_one_policy_twice_ties(compare, rules) -> None:
    rules.reward_model()
    good = rules.folder / "good"
    found = compare([f"one={good}", f"two={good}"])
    pooled = found.win_rates[0]
    assert (pooled.wins, pooled.losses, pooled.ties, pooled.win_rate) == (0, 0, 20, 0.5)
    assert all(row.diff == 0 and row.verdict in ("equivalent", "inconclusive") for row in found.deltas)
    # twenty ties show no difference, but do not prove that there is none
    assert found.deltas[0].ci[0] < 0 < found.deltas[0].ci[1]
    assert rules.computed == 80 + 20


def test_the_folder_of_something_else_is_refused(compare, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds other files"):
        compare()
    compare(shared_out=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        compare(out=tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be written"):
        compare(out=tmp_path / "file" / "below")


def test_pairs() -> None:
    assert win_pairs(["a", "b"], "a") == [("b", "a")]
    assert win_pairs(["a", "b", "c"], "b") == [("a", "b"), ("c", "b"), ("c", "a")]
    many = [f"p{i}" for i in range(7)]
    assert win_pairs(many, "p0") == [(name, "p0") for name in many[1:]]
    assert win_pairs(["a", "b"], "lost") == [("b", "a")]


def test_a_folder_that_another_process_works_in_is_refused(compare, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import sys; from pathlib import Path; from alignbench.processes import folder_lock\n"
        "with folder_lock(Path(sys.argv[1]), 'compare'): print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=rf"process {other.pid} \(alignbench compare\) is working there"):
            compare(limit=2)
        other.kill()  # its lock goes, the file with its name stays
    assert [path.name for path in out.iterdir()] == [LOCK]
    compare(limit=2)
    assert (out / "results.json").exists()
    assert not (out / LOCK).exists()
