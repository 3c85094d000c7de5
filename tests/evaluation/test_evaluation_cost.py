"""What a dry run says a policy's tasks cost, against what a run then does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignbench.cli.main import main
from alignbench.engines import open_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.vllm_engine import versions
from alignbench.evaluation import cost, evaluate_policy, requests_of
from alignbench.ledger import Ledger
from alignbench.tasks.registry import find_tasks

POLICY = parse_policy("pocket")


def estimated(ledger: Ledger | None = None, n: int = 6) -> cost.PolicyCost:
    tasks = find_tasks(["pocket_truth", "pocket_truth_choice"])
    return cost.policy_cost(POLICY, [(task, task.load()[:n]) for task in tasks], ledger, batch_tokens=256)


def test_tokens_are_those_that_reach_the_model() -> None:
    generated, scored = estimated().tasks
    (truth,) = find_tasks(["pocket_truth"])
    requests = [request for document in truth.load()[:6] for request in requests_of(truth, document)]
    answers = [a for batch in open_engine(POLICY).generate(requests) for _, a in batch]  # type: ignore[arg-type]
    assert generated.input_tokens == sum(len(a.prompt_ids) for a in answers)
    assert generated.output_tokens == 6 * 24 >= sum(len(a.token_ids) for a in answers)
    assert generated.computed_tokens <= generated.input_tokens
    assert (generated.documents, generated.requests, generated.held) == (6, 6, 0)
    assert generated.example == truth.load()[0].prompt
    assert scored.output_tokens == 0
    assert scored.computed_tokens < scored.input_tokens, "choices share their question"


def test_what_the_ledger_holds_costs_nothing(tmp_path: Path) -> None:
    (task,) = find_tasks(["pocket_truth"])
    with Ledger.open(tmp_path) as ledger:
        before = estimated(ledger)
        assert [row.held for row in before.tasks] == [0, 0]
        evaluate_policy(POLICY, open_engine(POLICY), task, task.load()[:4], ledger)
        after = estimated(ledger)
    assert [row.held for row in after.tasks] == [4, 0]
    assert after.tasks[0].unanswered == 2
    assert after.tasks[0].output_tokens == 2 * 24
    assert after.tasks[1].input_tokens == before.tasks[1].input_tokens


def test_many_documents_are_counted_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = estimated(n=100).tasks
    monkeypatch.setattr(cost, "EXACT", 2_000)
    for exact, row in zip(whole, estimated(n=100).tasks, strict=True):
        assert exact.counted == exact.unanswered == 100
        assert row.counted < row.unanswered == 100
        assert row.requests == exact.requests
        assert row.input_tokens == pytest.approx(exact.input_tokens, rel=0.25)
        assert row.computed_tokens == pytest.approx(exact.computed_tokens, rel=0.35)


def test_more_work_takes_longer_and_more_memory() -> None:
    little, much = estimated(n=2), estimated(n=60)
    assert 0 < little.seconds < much.seconds
    assert little.peak_bytes <= much.peak_bytes
    assert much.parameters == 984_192
    assert much.seconds == pytest.approx(sum(row.seconds for row in much.tasks))


def test_the_command_says_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dry(*words: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(["eval", "pocket", "--tasks", "pocket_truth", "--limit", "5", "--dry-run", *words])
        assert not stopped.value.code
        return capsys.readouterr().out

    workspace = ("--workspace", str(tmp_path / "w"))
    said = dry(*workspace)
    assert "5 requests a policy, 5 in all, of which the ledger holds 0" in said
    assert "984,192 parameters in float32" in said
    assert "pocket_truth: a prompt as pocket gets it" in said
    assert not (tmp_path / "w").exists(), "a dry run makes no ledger"
    told: dict[str, Any] = json.loads(dry("--json", *workspace))["costs"][0]
    assert told["problem"] is None
    assert told["tasks"][0]["output_tokens"] == 5 * 24
    assert told["rates"]["flops"] > 0
    assert "as the engine hf would" not in said
    monkeypatch.setattr(versions, "installed", lambda: True)
    assert "as the engine hf would, as vllm's own rates are not known" in dry("--engine", "vllm", *workspace)
