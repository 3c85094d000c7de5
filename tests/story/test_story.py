"""The whole of the main job, through the command line alone, from an installed package.

``.ci/run`` sets ALIGNBENCH_COMMAND to the command of a wheel in an environment of its own; elsewhere it is
the one beside this Python. Nothing here imports alignbench.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.story

COMMAND = os.environ.get("ALIGNBENCH_COMMAND", str(Path(sys.executable).parent / "alignbench"))
ARMS = ("base", "base-prompted", "sft", "ppo", "ppo-ptx")


def alignbench(*words: object, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [COMMAND, *map(str, words)], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert result.returncode == status, (
        f"{words}: status {result.returncode}\n{result.stdout}\n{result.stderr}"
    )
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("story-home")


@pytest.fixture(autouse=True)
def _one_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One ledger for the whole story: later commands must find what earlier ones paid for."""
    monkeypatch.setenv("ALIGNBENCH_HOME", str(home))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("story")


@pytest.fixture(scope="session")
def story(folder: Path, home: Path) -> dict[str, Any]:
    os.environ["ALIGNBENCH_HOME"] = str(home)
    result = alignbench("quickstart", "--out", "quick", "--json", cwd=folder)
    summary: dict[str, Any] = json.loads(result.stdout)
    print(f"\nquickstart: {summary['seconds']}")
    return summary


@pytest.fixture(scope="session")
def results(story: dict[str, Any], folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "quick/results.json").read_text())
    return loaded


def win_rate(results: dict[str, Any], a: str, b: str, judge: str) -> dict[str, Any]:
    """The pooled win-rate of a over b, whichever way round it is written."""
    for row in results["win_rates"]:
        if row["judge"] == judge and row["task"] is None and {row["a"], row["b"]} == {a, b}:
            if row["a"] == a:
                return dict(row)
            lo, hi = row["ci"]
            return {**row, "a": a, "b": b, "win_rate": 1 - row["win_rate"], "ci": [1 - hi, 1 - lo]}
    raise AssertionError(f"no win-rate of {a} over {b} by {judge}")


def score(results: dict[str, Any], task: str, policy: str) -> float:
    row = next(row for row in results["tasks"] if row["task"] == task and row["headline"])
    return float(row["scores"][policy]["mean"])


def gold(results: dict[str, Any]) -> str:
    return next(judge["name"] for judge in results["judges"] if judge["name"].startswith("gold"))


def test_the_report_is_there(story: dict[str, Any], folder: Path) -> None:
    for name in ("report.html", "results.json", "samples.parquet", "preferences.parquet", "run.json"):
        assert (folder / "quick" / name).stat().st_size > 0
    assert len((folder / "quick/report.html").read_bytes()) < 6_000_000


def test_the_story_is_the_papers(results: dict[str, Any]) -> None:
    assert tuple(policy["name"] for policy in results["policies"]) == ARMS
    judge = gold(results)
    # what was gained: preference, truth, manners
    assert win_rate(results, "ppo-ptx", "sft", judge)["ci"][0] > 0.5
    assert win_rate(results, "sft", "base", judge)["ci"][0] > 0.5
    assert score(results, "pocket_truth", "base") < 0.2
    assert score(results, "pocket_truth", "ppo-ptx") > score(results, "pocket_truth", "sft")
    for task in ("pocket_unanswerable", "pocket_toxicity_basic", "pocket_toxicity_respectful"):
        assert score(results, task, "ppo-ptx") < score(results, task, "base")
    assert score(results, "pocket_unanswerable", "ppo-ptx") < score(results, "pocket_unanswerable", "sft")
    # what it cost, and that the pretraining mix pays it back
    tax = {row["policy"]: row for row in results["tax"]}
    assert tax["ppo"]["ci"][1] < 0
    assert tax["ppo"]["mean_gain"] < tax["ppo-ptx"]["mean_gain"]


def test_quickstart_again_keeps_what_is_finished(story: dict[str, Any], folder: Path) -> None:
    before = json.loads((folder / "quick/results.json").read_text())
    again = json.loads(alignbench("quickstart", "--out", "quick", "--json", cwd=folder).stdout)
    assert again["seconds"]["ppo"] < story["seconds"]["ppo"] / 2
    after = json.loads((folder / "quick/results.json").read_text())
    for part in ("tasks", "deltas", "win_rates", "tax", "verdict"):
        assert after[part] == before[part]
    alignbench("quickstart", "--out", "quick", "--seed", "7", cwd=folder, status=2)


def test_compare_with_defaults_and_again(story: dict[str, Any], folder: Path) -> None:
    first = alignbench("compare", "quick/sft", "quick/ppo-ptx", cwd=folder)
    out = folder / "reports/sft-vs-ppo-ptx"
    assert (out / "report.html").exists(), first.stderr
    run = json.loads((out / "run.json").read_text())
    # the quickstart has paid for every one of these answers
    assert run["ledger"]["computed"] == {}
    assert run["ledger"]["held"]["generate"] > 0
    before = (out / "results.json").read_bytes()
    alignbench("report", out, cwd=folder)
    assert (out / "results.json").read_bytes() == before


def test_eval_writes_the_same_files(story: dict[str, Any], folder: Path) -> None:
    words = (
        "eval",
        "quick/sft",
        "--tasks",
        "pocket_truth,pocket_arithmetic",
        "--limit",
        40,
        "--out",
        "e",
        "--json",
    )
    summary = json.loads(alignbench(*words, cwd=folder).stdout)
    assert {row["task"] for row in summary["tasks"]} == {"pocket_truth", "pocket_arithmetic"}
    assert summary["win_rates"] == []
    assert (folder / "e/report.html").exists()


def test_real_tasks_on_trained_policies(story: dict[str, Any], folder: Path, shared_data: Path) -> None:
    tasks = "truthfulqa_mc1,truthfulqa_mc2,sst2,sst2_5shot,rte,hellaswag"
    words = ("compare", "quick/sft", "quick/ppo-ptx", "--tasks", tasks, "--limit", 60)
    alignbench(*words, "--data", shared_data, "--out", "real", cwd=folder)
    loaded = json.loads((folder / "real/results.json").read_text())
    assert {row["task"] for row in loaded["tasks"]} == set(tasks.split(","))
    for row in loaded["tasks"]:
        if row["task"].startswith(("sst2", "rte")):
            assert row["chance"] == 0.5 <= row["majority"] < 0.8
        for value in row["scores"].values():
            assert 0 <= value["ci"][0] <= value["mean"] <= value["ci"][1] <= 1
            assert value["n"] == 60


def test_a_reward_model_on_real_preferences(folder: Path, shared_data: Path) -> None:
    words = (
        "train",
        "rm",
        "model=pocket",
        "data=hh_rlhf",
        "steps=12",
        "max_length=96",
        "--data",
        shared_data,
    )
    alignbench(*words, "--out", "rm-hh", "--json", cwd=folder)
    record = json.loads((folder / "rm-hh/run.json").read_text())
    accuracy = record["eval"]
    assert accuracy["ci"][0] < accuracy["accuracy"] < accuracy["ci"][1]
    assert accuracy["n"] > 100


def test_recorded_outputs_judged_on_real_prompts(
    story: dict[str, Any], folder: Path, shared_data: Path
) -> None:
    recorded = shared_data / "self_instruct"
    outputs = [
        f"{name}=recorded:{recorded / name}_predictions.jsonl.gz" for name in ("davinci", "text-davinci-001")
    ]
    words = ("--tasks", "self_instruct", "--judge", "rm:quick/rm", "--limit", 30, "--data", shared_data)
    said = alignbench("compare", *outputs, *words, "--out", "recorded", cwd=folder)
    loaded = json.loads((folder / "recorded/results.json").read_text())
    assert [policy["kind"] for policy in loaded["policies"]] == ["recorded", "recorded"]
    rate = next(row for row in loaded["win_rates"] if row["task"] is None)
    assert (rate["n"], rate["missing"]) == (30, 0)
    assert rate["ci"][0] < rate["win_rate"] < rate["ci"][1]
    # what the judge is worth stands beside what it says
    assert loaded["judges"][0]["accuracy"]["n"] > 100
    assert "held-out pairs" in said.stdout + said.stderr


def test_prompts_of_ones_own(story: dict[str, Any], folder: Path) -> None:
    prompts = ["what is the flag of Mezur?", "tell me of the people of Halor."]
    lines = [json.dumps({"prompt": f"User: {text}\nAssistant:"}) for text in prompts]
    (folder / "mine.jsonl").write_text("\n".join(lines) + "\n")
    words = ("--tasks", "prompts:mine.jsonl", "--judge", "rm:quick/rm", "--out", "mine")
    alignbench("compare", "quick/sft", "quick/ppo-ptx", *words, cwd=folder)
    loaded = json.loads((folder / "mine/results.json").read_text())
    assert [row["n"] for row in loaded["win_rates"] if row["task"] is None] == [2]


def test_winrate_of_collected_preferences(story: dict[str, Any], folder: Path) -> None:
    rows = [
        {"instruction": str(i), "output_1": "a", "output_2": "b", "preference": 2 if i % 4 else 1}
        for i in range(40)
    ]
    (folder / "annotations.json").write_text(json.dumps(rows))
    summary = json.loads(alignbench("winrate", "annotations.json", "--json", cwd=folder).stdout)
    assert summary["n"] == 40
    assert summary["win_rate"] == pytest.approx(75.0)
    assert summary["wins"] == 30


def test_tasks(folder: Path) -> None:
    listed = json.loads(alignbench("tasks", "list", "--json", cwd=folder).stdout)
    assert {"pocket_truth", "truthfulqa_mc1", "truthfulqa_mc2", "hh_preferences"} <= {
        t["task"] for t in listed
    }
    shown = alignbench("tasks", "show", "pocket_truth", cwd=folder).stdout
    assert "Assistant:" in shown
    assert "fact-0" in alignbench("tasks", "show", "pocket_truth", "--docs", cwd=folder).stdout
    task = folder / "mine.yaml"
    task.write_text("task: mine\narea: nlp\nkind: generate\nbananas: 3\n")
    assert "bananas" in alignbench("tasks", "check", task, cwd=folder, status=2).stdout


def test_a_checkpoint_is_plain_transformers(story: dict[str, Any], folder: Path) -> None:
    """The same greedy text from ``transformers`` alone, in a process that never imports alignbench."""
    import pandas as pd

    samples = pd.read_parquet(folder / "quick/samples.parquet")
    rows = samples[(samples.policy == "ppo-ptx") & (samples.task == "pocket_truth")].head(10)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "quick/ppo-ptx").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "quick/ppo-ptx")
    for row in rows.itertuples():
        ids = tokenizer(row.prompt, return_tensors="pt")
        out = model.generate(**ids, max_new_tokens=24, do_sample=False)
        text = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text.split("\n")[0] == row.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compare", "nowhere/model", "quick/sft"), "nowhere/model"),
        (("compare", "quick/sft", "quick/ppo", "--tasks", "pocket_trut"), "pocket_truth"),
        (("train", "sft", "model=pocket", "data=empty.jsonl", "--out", "x"), "empty.jsonl"),
        (
            ("train", "sft", "model=pocket", "data=pocket:demonstrations", "learning_rat=1", "--out", "x"),
            "learning_rat",
        ),
        (("train", "sft", "model=pocket", "data=pocket:demonstrations", "--out", "file.txt/run"), "file.txt"),
        (("report", "nowhere"), "nowhere"),
        (("comprae",), "compare"),
    ],
)
def test_bad_input_is_one_sentence(
    words: tuple[str, ...], said: str, story: dict[str, Any], folder: Path
) -> None:
    (folder / "empty.jsonl").write_text("")
    (folder / "file.txt").write_text("a file")
    result = alignbench(*words, cwd=folder, status=2)
    lines = [line for line in result.stderr.splitlines() if line.startswith("alignbench:")]
    assert len(lines) == 1
    assert said in lines[0]


def test_a_killed_compare_resumes(
    story: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNBENCH_HOME", str(folder / "fresh-home"))
    words = [COMMAND, "compare", "quick/sft", "quick/ppo", "--tasks", "pocket", "--out", "killed"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ledger = folder / "fresh-home"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(
        p.stat().st_size > 200_000 for p in ledger.glob("**/*") if p.is_file()
    ):
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "killed/results.json").exists()
    alignbench(*words[1:], cwd=folder)
    run = json.loads((folder / "killed/run.json").read_text())
    assert sum(run["ledger"]["held"].values()) > 0
    assert sum(run["ledger"]["computed"].values()) > 0
    alignbench(*words[1:], "--fresh", "--out", "fresh", cwd=folder)
    killed, fresh = (json.loads((folder / name / "results.json").read_text()) for name in ("killed", "fresh"))
    assert killed["tasks"] == fresh["tasks"]


def test_browse_serves_the_runs(story: dict[str, Any], folder: Path) -> None:
    process = subprocess.Popen(
        [COMMAND, "browse", ".", "--port", "8941"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        page = ""
        for _ in range(100):
            try:
                page = urllib.request.urlopen("http://127.0.0.1:8941/", timeout=2).read().decode()
                break
            except OSError:
                time.sleep(0.2)
        assert "quick" in page
    finally:
        process.terminate()
        process.wait()
