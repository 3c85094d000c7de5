"""Defaults and refusals, before anything is paid for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from toy_rules import SUMS, write_jsonl

from alignbench.compare.plan import MAX_SLUG, Settings, make_plan, slug
from alignbench.errors import UsageError


@pytest.fixture
def plan(rules, tasks_dir: Path):
    def make(policies=("good", "bad"), tasks=("toys",), judges=None, **options):
        specs = [name if "/" in name else str(rules.folder / name) for name in policies]
        kept = {key: options.pop(key) for key in ("reference", "win_reference", "out") if key in options}
        settings = Settings(tasks_dirs=(tasks_dir,), **options)
        return make_plan(specs, tasks, judges, settings=settings, **kept)

    return make


def test_a_plan_opens_no_model(plan, rules) -> None:
    made = plan()
    assert made.names == ["good", "bad"]
    assert [task.name for task in made.tasks] == ["toy_asks", "toy_pick", "toy_sums"]
    assert made.out == Path("reports/good-vs-bad")
    assert (made.reference, made.win_reference) == ("good", "good")
    assert rules.engines == []


def test_chance_follows_from_the_documents(plan) -> None:
    pick = next(task for task in plan().tasks if task.name == "toy_pick")
    assert pick.metrics[0].chance == 0.5


def test_a_limit_draws_the_same_documents_every_time(plan) -> None:
    one, two, other = plan(limit=5), plan(limit=5), plan(limit=5, seed=1)
    ids = [[doc.doc_id for doc in made.documents["toy_sums"]] for made in (one, two, other)]
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 5
    assert one.available["toy_sums"] == 20


def test_default_tasks_are_those_of_the_default_suite_with_data(plan, tasks_dir: Path) -> None:
    made = plan(tasks=None)
    assert [task.name for task in made.tasks] == ["toy_asks", "toy_sums"]
    (tasks_dir / "toys" / "sums.jsonl").unlink()
    made = plan(tasks=None)
    assert [task.name for task in made.tasks] == ["toy_asks"]
    assert re.search("without data: .*toy_sums", made.notes[0])  # beside the shipped tasks
    (tasks_dir / "toys" / "asks.jsonl").unlink()
    with pytest.raises(UsageError, match="the data of no general task were found"):
        plan(tasks=None)


def test_default_tasks_of_the_pocket_world(rules, plan, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        rules.policy(name, rules.makers["good"], alignbench_world="pocket")
    made = plan(["one", "two"], tasks=None, limit=3)
    assert made.tasks
    assert {task.world for task in made.tasks} == {"pocket"}
    assert "as every policy is of the pocket world" in made.notes[0]
    assert [spec.name for spec in made.judges] == ["gold"]
    served = plan(["one", "served=openai:one@http://127.0.0.1:9/v1"], tasks=None, limit=3)
    assert [task.name for task in served.tasks] == [task.name for task in made.tasks]
    assert "as every policy that is weights is of the pocket world" in served.notes[0]
    mixed = plan(["one", "good"], tasks=None, limit=3)
    assert all(task.world is None for task in mixed.tasks)


def test_a_reward_model_beside_a_policy_judges(rules, plan) -> None:
    assert plan().judges == ()
    assert "no policy has a reward model beside it" in plan().notes[-1]
    rules.policy("rm", rules.makers["good"])  # a folder of that name, but no scalar head
    assert plan().judges == ()
    rules.reward_model()
    (spec,) = plan().judges
    assert (spec.name, spec.kind, spec.note) == ("rm", "rm", "")


def test_the_reward_model_of_a_run_is_a_proxy_and_says_so(rules, plan) -> None:
    rules.reward_model()
    trained = Path(rules.policy("ppo", rules.makers["good"]))
    other = rules.reward_model("other-rm")
    record = {"kind": "ppo", "config": {"reward_model": other}, "finished": "yes"}
    (trained / "run.json").write_text(json.dumps(record))
    made = plan(["ppo", "bad"])
    (spec,) = made.judges
    assert spec.policy is not None
    assert spec.policy.target == other
    assert spec.note == "ppo optimised this reward: a proxy there, not a neutral judge"
    assert any("not used" in note and note.endswith("models/rm") for note in made.notes)
    # a path that was relative to another folder: found beside the policy
    record["config"]["reward_model"] = "elsewhere/other-rm"
    (trained / "run.json").write_text(json.dumps(record))
    assert plan(["ppo", "bad"]).judges[0].policy.target == other
    assert plan(["ppo", "bad"], judges=[f"mine=rm:{other}"]).judges[0].note == spec.note


def test_judges_that_are_named(rules, plan) -> None:
    path = rules.reward_model()
    assert [spec.name for spec in plan(judges=[f"x=rm:{path},y=rm:{path}"]).judges] == ["x", "y"]
    assert plan(judges=["none"]).judges == ()
    assert plan(judges=[]).judges == ()


def test_one_policy_has_no_judges(rules, plan) -> None:
    rules.reward_model()
    assert plan(["good"]).judges == ()
    assert plan(["good"]).kind == "eval"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policies": ["good", "good"]}, "two policies are called 'good'; give one another name: NAME=SPEC"),
        ({"policies": ["good", "./nowhere"]}, "policy './nowhere': no folder ./nowhere"),
        ({"tasks": ["toy_sum"]}, r"'toy_sum' \(did you mean 'toy_sums'\?\)"),
        ({"reference": "goood"}, r"--reference 'goood' is none of the policies \(did you mean 'good'\?\)"),
        ({"win_reference": "x"}, "--win-reference 'x' is none of the policies"),
        ({"limit": 0}, "--limit 0: write a number of documents, at least 1"),
        ({"judges": ["gould"]}, r"no judge 'gould' \(did you mean 'gold'\?\)"),
        ({"judges": ["gold"]}, "--judge gold knows the pocket world only"),
        ({"judges": ["rm:./nowhere"]}, "judge rm:./nowhere: no folder ./nowhere"),
        ({"judges": ["gold"], "tasks": ["toy_sums"]}, "none of the tasks has open-ended outputs to judge"),
    ],
)
def test_refusals(plan, change, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(**change)


def test_an_adapter_that_brings_a_scalar_head_judges(plan, rules, tmp_path: Path) -> None:
    for kind in ("SEQ_CLS", "CAUSAL_LM"):
        (tmp_path / kind).mkdir()
        config = {
            "peft_type": "LORA",
            "task_type": kind,
            "base_model_name_or_path": str(rules.folder / "good"),
        }
        (tmp_path / kind / "adapter_config.json").write_text(json.dumps(config))
    assert [spec.name for spec in plan(judges=[f"rm:{tmp_path}/SEQ_CLS"]).judges] == ["SEQ_CLS"]
    with pytest.raises(UsageError, match="the model has no scalar head"):
        plan(judges=[f"rm:{tmp_path}/CAUSAL_LM"])


def test_a_judge_without_a_scalar_head_is_refused(rules, plan) -> None:
    with pytest.raises(UsageError, match="the model has no scalar head"):
        plan(judges=[f"rm:{rules.folder / 'good'}"])


def test_missing_and_empty_data_are_refused(plan, tasks_dir: Path) -> None:
    data = tasks_dir / "toys" / "sums.jsonl"
    data.write_text("")
    with pytest.raises(UsageError, match="sums"):
        plan(tasks=["toy_sums"])
    data.unlink()
    with pytest.raises(UsageError, match="sums"):
        plan(tasks=["toy_sums"])


def test_prompts_of_ones_own(rules, plan, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "mine.jsonl", [{"prompt": "hello"}, {"prompt": "bye"}])
    rules.reward_model()
    made = plan(tasks=[f"prompts:{tmp_path / 'mine.jsonl'}"])
    assert made.tasks[0].judged
    assert [spec.name for spec in made.judges] == ["rm"]


def test_slugs() -> None:
    assert slug(["a", "b"]) == "a-vs-b"
    assert slug(["../x y", "é/ü"]) == "x-y-vs-é-ü"
    assert slug(["..."]) == "policy"
    long, other = slug([f"policy-{i}" for i in range(40)]), slug([f"policy-{i}" for i in range(41)])
    assert long != other
    assert len(long) <= MAX_SLUG
    assert long.startswith("policy-0-vs-policy-1-vs-")


SUITE = "suite: wide\ndescription: Toys.\ntasks: [toy_sums, toy_absent, toy_scored]\n"


@pytest.fixture
def wide(tasks_dir: Path) -> Path:
    """A suite with a task whose data are nowhere, and one that only a scorer scores."""
    (tasks_dir / "toys" / "suites" / "wide.yaml").write_text(SUITE)
    absent = SUMS.replace("toy_sums", "toy_absent").replace("sums.jsonl", "nobody/has_it")
    (tasks_dir / "toys" / "toy_absent.yaml").write_text(absent)
    metric = "metrics: [{name: truth, scorer: truth}]\nheadline: truth\n"
    scored = SUMS.replace("toy_sums", "toy_scored").split("metrics:")[0] + metric
    (tasks_dir / "toys" / "toy_scored.yaml").write_text(scored)
    return tasks_dir


def test_of_a_suite_what_is_not_at_hand_is_left_out_and_said(plan, wide: Path) -> None:
    made = plan(tasks=("wide",))
    assert [task.name for task in made.tasks] == ["toy_sums"]
    assert made.scorers == ()
    assert "left out, as their data are not at hand: toy_absent" in made.notes
    assert "left out, for want of --scorer NAME=SPEC: truth (scorer truth) of toy_scored" in made.notes


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (("wide", "toy_absent"), r"data 'nobody/has_it' not found"),
        (("wide,toy_scored",), r"task toy_scored is scored by truth, which has no default"),
        (("toy_absent*",), r"data 'nobody/has_it' not found"),
    ],
)
def test_what_is_named_by_itself_must_be_at_hand(plan, wide: Path, tasks, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(tasks=tasks)


def test_a_mistake_in_a_suite_is_no_absence(plan, wide: Path) -> None:
    (wide / "toys" / "toy_absent.yaml").write_text(
        SUMS.replace("toy_sums", "toy_absent").replace("{{ a }}", "{{ c }}")
    )
    with pytest.raises(UsageError, match="'c' is undefined"):
        plan(tasks=("wide",))
