"""The evidence over seeds: answers on synthetic seeds, the page, and the whole at a toy size."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from alignbench.errors import UsageError, WorkError
from alignbench.recipes.evidence import measures, page, questions, run, seed
from alignbench.stats.seeds import over_seeds
from alignbench.train.config import PPOConfig

ROOT = Path(__file__).resolve().parents[2]
BY_ID = {q.id: q for q in questions.QUESTIONS}


def record(number: int, **changed: dict[str, float | None]) -> dict[str, Any]:
    """A seed in which every arm scores alike, up to a little that differs from seed to seed."""
    noise = 0.01 * (number % 3 - 1)
    arms = dict.fromkeys(seed.ARMS, 0.5 + noise)
    names = {q.measure for q in questions.QUESTIONS} | set(page.ARM_ROWS) | {"pocket_book.exact_match"}
    found: dict[str, dict[str, float | None]] = {name: dict(arms) for name in names}
    found["rm_accuracy"] = {"training": 0.72 + noise, "held_out": 0.69 - noise}
    found["agreement"] = {"training": 0.72 + noise, "held_out": 0.6 + noise, "between": 0.7}
    curve: dict[str, list[float | None]] = {
        "kl": [0.0, 1.0, 2.0, 3.0 + noise],
        "reward": [0.0, 0.5, 0.6, 0.7 + noise],
        "gold": [0.5, 0.7, 0.6 + noise, 0.5],
    }
    curves = dict.fromkeys(measures.TRAINED, curve)
    found |= measures.curve_measures(curves)
    for name, values in changed.items():
        found[name] = {**found.get(name, {}), **values}
    return {"seed": number, "measures": found, "curves": curves}


def answers(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in questions.answer_all(records)}


# --- the questions -----------------------------------------------------------------------------------------


def test_the_documentation_states_the_same_questions() -> None:
    text = (ROOT / "docs/pocket.md").read_text(encoding="utf-8")
    prefixes = {q.id.split("_")[0] for q in questions.QUESTIONS}
    stated = set(re.findall(r"`([a-z]+(?:_[a-z]+)+|overoptimisation)`", text)) - set(PPOConfig.model_fields)
    assert {name for name in stated if name.split("_")[0] in prefixes} == set(BY_ID)


def test_ids_are_unique_and_both_arms_are_known() -> None:
    assert len(BY_ID) == len(questions.QUESTIONS)
    for q in questions.QUESTIONS:
        assert {q.a, q.b} <= {*seed.ARMS, "training", "held_out", None}, q.id


def test_an_answer_by_hand() -> None:
    # PPO-ptx over SFT: +.10, +.12, +.08, +.10 → mean .1, sd √(.0008/3) = .0163299, t = 12.2474 on 3
    gains = (0.10, 0.12, 0.08, 0.10)
    rows = answers([record(i, win_gold={"sft": 0.5, "ppo-ptx": 0.5 + g}) for i, g in enumerate(gains)])
    row = rows["ppo_ptx_over_sft"]
    assert row["per_seed"] == pytest.approx(list(gains))
    assert row["mean"] == pytest.approx(0.1)
    assert row["sd"] == pytest.approx(0.0163299, abs=1e-6)
    assert row["ci"] == pytest.approx([0.1 - 3.182446 * 0.00816497, 0.1 + 3.182446 * 0.00816497], abs=1e-6)
    assert row["p"] == pytest.approx(0.0011717, abs=1e-6)
    assert (row["verdict"], row["found"]) == ("agrees", "up")


def test_the_family_is_corrected_and_only_it() -> None:
    gains = (0.10, 0.12, 0.08, 0.10)
    rows = answers([record(i, win_gold={"sft": 0.5, "ppo-ptx": 0.5 + g}) for i, g in enumerate(gains)])
    family = [row for row in rows.values() if row["primary"] and row["p"] is not None]
    best = min(family, key=lambda row: row["p"])
    assert best["p_adjusted"] == pytest.approx(min(1.0, best["p"] * len(family)))
    assert all(row["p_adjusted"] is None for row in rows.values() if not row["primary"])


def test_a_difference_the_other_way_disagrees() -> None:
    lost = (0.10, 0.12, 0.08, 0.10, 0.11)
    rows = answers([record(i, win_gold={"sft": 0.5, "ppo": 0.5 - x}) for i, x in enumerate(lost)])
    assert (rows["ppo_over_sft"]["verdict"], rows["ppo_over_sft"]["found"]) == ("disagrees", "down")


def test_noise_cannot_be_told_and_says_how_many_seeds_would() -> None:
    gains = (0.10, -0.06, 0.08, -0.04, 0.05)
    row = answers([record(i, win_gold={"sft": 0.5, "ppo": 0.5 + x}) for i, x in enumerate(gains)])[
        "ppo_over_sft"
    ]
    assert row["verdict"] == "cannot tell"
    assert row["seeds_needed"] > 5
    assert f"({row['seeds_needed']} seeds would)" in page.in_words(row)


def test_losses_are_gains_turned_round() -> None:
    # PPO loses 20 points, PPO-ptx 5: the question is asked of the losses, 20 − 5
    rows = answers(
        [record(i, tax={"base": 0.0, "sft": 0.0, "ppo": -0.20, "ppo-ptx": -0.05}) for i in range(3)]
    )
    assert rows["tax_ppo_minus_ppo_ptx"]["mean"] == pytest.approx(0.15)
    assert rows["tax_sft_to_ppo"]["mean"] == pytest.approx(-0.20)


def test_levels_are_put_beside_the_papers_interval() -> None:
    rows = answers([record(i) for i in range(6)])
    assert rows["agreement_training"]["verdict"] == "agrees"  # 72 beside 72.6 ± 1.5
    assert rows["agreement_held_out"]["verdict"] == "disagrees"  # 60 beside 77.3 ± 1.3
    assert rows["agreement_training"]["p"] is None
    assert rows["sft_against_itself"]["p"] == pytest.approx(1.0)
    assert rows["sft_against_itself"]["verdict"] == "agrees"
    wide = over_seeds([0.5, 0.9, 0.7], None)
    assert questions.verdict(BY_ID["agreement_training"], wide, None) == "cannot tell"


def test_no_claim_has_no_verdict() -> None:
    row = answers([record(i) for i in range(4)])["overoptimisation"]
    assert row["verdict"] is None
    assert page.in_words(row) in ("goes up", "goes down", "no direction seen")


def test_a_seed_without_a_value_is_missing_not_zero() -> None:
    records = [record(i, win_gold={"sft": 0.5, "ppo": 0.6 + 0.01 * i}) for i in range(4)]
    records[2]["measures"]["win_gold"]["ppo"] = None
    row = answers(records)["ppo_over_sft"]
    assert (row["n"], row["missing"], row["per_seed"][2]) == (3, 1, None)
    assert row["mean"] == pytest.approx((0.10 + 0.11 + 0.13) / 3)


# --- what a seed's folder says -----------------------------------------------------------------------------


def test_agreement_and_accuracy_by_hand() -> None:
    # three outputs, pairs (0,1) (0,2) (1,2); rankings of two training and two held-out labelers
    ranks = [[1, 2, 3], [1, 3, 2], [1, 2, 3], [3, 2, 1]]
    rows = [{"responses": ["a", "b", "c"], "ranks": ranks}]
    out = seed.judge_fresh(rows, [[2.0, 1.0, 1.0]])
    assert out["agreement"]["training"] == pytest.approx(2 / 3)
    assert out["agreement"]["held_out"] == 0.0
    # t1–h1 3 of 3, t1–h2 0, t2–h1 2, t2–h2 1
    assert out["agreement"]["between"] == pytest.approx(6 / 12)
    # the rewards put 0 before 1 and 2, and 1 level with 2 (½): t1 2.5, t2 2.5 of 3; h1 2.5, h2 0.5
    assert out["rm_accuracy"] == {"training": pytest.approx(5 / 6), "held_out": pytest.approx(3 / 6)}
    assert out["n_pairs"] == {"all": 3}


def test_one_output_alone_makes_no_pair() -> None:
    out = seed.judge_fresh([{"responses": ["a"], "ranks": [[1]] * 4}], [[0.0]])
    assert out["agreement"]["training"] is None
    assert out["rm_accuracy"]["held_out"] is None


def test_bins() -> None:
    assert measures.bins([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]
    assert measures.bins([1.0, 2.0, None, None, 4.0, 6.0], 3) == [1.5, None, 5.0]


def test_overoptimisation_is_seen_in_the_curves() -> None:
    falls = {
        "reward": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        "gold": [0.2, 0.4, 0.8, 0.8, 0.4, 0.2],
        "kl": [0.0] * 6,
    }
    out = measures.curve_measures({"ppo": falls})
    assert out["late_change_gold"]["ppo"] == pytest.approx(0.3 - 0.8)
    assert out["late_change_reward"]["ppo"] == pytest.approx(2.0)
    assert out["gold_below_best"]["ppo"] == pytest.approx(0.3 - 0.8)
    assert out["proxy_gold_spearman"]["ppo"] == pytest.approx(0.0)
    flat = measures.curve_measures({"ppo": {**falls, "gold": [0.5] * 6}})
    assert flat["proxy_gold_pearson"]["ppo"] is None


def test_win_rates_are_turned_towards_the_arm() -> None:
    from alignbench.compare.results import Comparison, WinRate

    def win(a: str, b: str, judge: str, task: str | None, rate: float) -> WinRate:
        return WinRate(a, b, judge, task, 10, 5, 5, 0, 0, rate, None, None, None, None, "inconclusive")

    rows = [
        win("sft", "opponent", "gold", None, 0.6),
        win("opponent", "ppo", "gold", None, 0.2),
        win("ppo", "sft", "gold", None, 0.99),
        win("sft", "opponent", "gold", "pocket_instructions", 0.1),
    ]
    out = measures.result_measures(Comparison([], [], [], rows, [], ""))
    assert out["win_gold"]["sft"] == pytest.approx(0.6)
    assert out["win_gold"]["ppo"] == pytest.approx(0.8)
    assert out["win_gold"]["base"] is None


# --- the page ----------------------------------------------------------------------------------------------


def found(records: list[dict[str, Any]]) -> dict[str, Any]:
    stage = dict.fromkeys(seed.STAGES, 1.0)
    return run.rounded(
        {
            "command": ["alignbench", "evidence"],
            "seeds": [r["seed"] for r in records],
            "world": "0123",
            "settings": {"ppo": {"kl_coef": 0.1}, "compare": {"limit": None}},
            **run.summarise(records, ["pocket_book.exact_match"]),
            "cost": {
                "seconds": 1800.0,
                "sittings": [{"jobs": 2, "seconds": 1800.0, "started": ""}],
                "cpu_seconds": 3000.0,
                "cpu_seconds_per_seed": stage,
                "hardware": {"platform": "Linux", "cpus": 2},
                "versions": {"alignbench": "0.1.0"},
            },
        }
    )


def test_the_page_says_what_was_found() -> None:
    gains = (0.10, 0.12, 0.08, 0.10, 0.11)
    records = [
        record(i, win_gold={"sft": 0.5, "ppo-ptx": 0.5 + g, "ppo": 0.5 - g}) for i, g in enumerate(gains)
    ]
    text = page.markdown(found(records))
    assert text.startswith("# The pocket world over 5 seeds\n")
    assert "It took 30 minutes, 2 seeds at a time" in text
    row = next(line for line in text.splitlines() if "`ppo_ptx_over_sft`" in line)
    assert "| +10.2 [+8.4, +12.0] | +10.0, +12.0, +8.0, +10.0, +11.0 |" in row
    assert row.rstrip().endswith("| agrees |")
    worse = text.split("## Where it disagrees with the paper")[1].split("\n## ")[0]
    assert "Here −10.2 [−12.0, −8.4]; the paper: PPO is preferred to SFT" in worse
    assert "`prompted_over_base`" in text.split("## Where it lacks the power to tell")[1]
    for heading in ("## The arms", "## Skill by skill", "## Proxy and gold over KL", "## How it was made"):
        assert heading in text
    assert not re.search(r"\b(nan|None|null)\b", text)
    for line in text.splitlines():
        if line.startswith("| "):
            assert line.endswith(" |")


def test_every_table_has_as_many_cells_as_its_head() -> None:
    text = page.markdown(found([record(i) for i in range(3)]))
    width = 0
    for before, line in zip(["", *text.splitlines()], text.splitlines()):
        if line.startswith("|"):
            width = width if before.startswith("|") else line.count("|")
            assert line.count("|") == width, line


@pytest.mark.parametrize(
    ("row", "level", "text"),
    [
        ({"mean": 0.7214, "ci": [0.7, 0.74], "n": 8, "missing": 0}, True, "72.1 % [70.0, 74.0]"),
        ({"mean": -0.031, "ci": [-0.05, 0.001], "n": 7, "missing": 1}, False, "−3.1 [−5.0, +0.1] (n = 7)"),
        ({"mean": -0.0001, "ci": None, "n": 8, "missing": 0}, False, "0.0 (all)"),
        ({"mean": None, "ci": None, "n": 0, "missing": 8}, False, "–"),
    ],
)
def test_how_an_estimate_is_written(row: dict[str, Any], level: bool, text: str) -> None:
    assert page.estimate(row, level) == text


# --- the folder --------------------------------------------------------------------------------------------


def test_a_folder_holds_one_seed_with_one_set_of_settings(tmp_path: Path) -> None:
    chosen = seed.settings()
    seed.claim(tmp_path / "0", 0, chosen, "w")
    seed.claim(tmp_path / "0", 0, chosen, "w")  # again: goes on
    with pytest.raises(UsageError, match=r"seed was 0 and is 1 now"):
        seed.claim(tmp_path / "0", 1, chosen, "w")
    with pytest.raises(UsageError, match=r"ppo.kl_coef was .* and is 9.0 now"):
        seed.claim(tmp_path / "0", 0, {**chosen, "ppo": {**chosen["ppo"], "kl_coef": 9.0}}, "w")
    with pytest.raises(UsageError, match="world was 'w'"):
        seed.claim(tmp_path / "0", 0, chosen, "another")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="other files"):
        seed.claim(tmp_path / "1", 1, chosen, "w")


def test_the_settings_are_the_quickstarts() -> None:
    from alignbench.recipes import quickstart

    chosen = seed.settings()
    for name, keys in quickstart.SETTINGS.items():
        assert keys.items() <= chosen[name].items()
    assert set(seed.settings("miniature")) == set(chosen)


def test_the_fingerprint_knows_the_labelers(monkeypatch: pytest.MonkeyPatch) -> None:
    from alignbench.pocket import labelers

    before = seed.world_fingerprint()
    assert seed.world_fingerprint() == before
    monkeypatch.setattr(labelers, "HELD_OUT", labelers.TRAINING)
    assert seed.world_fingerprint() != before


@pytest.mark.parametrize("text", ["{", "[1]", "", '"x"'])
def test_a_broken_note_is_one_sentence(tmp_path: Path, text: str) -> None:
    chosen, world = seed.settings("miniature"), seed.world_fingerprint()
    folder = tmp_path / "seeds/20"
    seed.claim(folder, 20, chosen, world)
    (folder / "stages.json").write_text(text)
    with pytest.raises(UsageError, match=r"stages.json is broken; remove .*20 and run"):
        seed.finished_stages(folder)
    (folder / "seed.json").write_text(text)
    with pytest.raises(UsageError, match=r"seed.json is broken"):
        seed.claim(folder, 20, chosen, world)


def test_the_control_is_not_counted_as_the_papers() -> None:
    rows = answers([record(i, win_gold={"sft": 0.5 + i / 1000}) for i in range(4)])
    assert rows["sft_against_itself"]["control"]
    assert [row["id"] for row in rows.values() if row["control"]] == ["sft_against_itself"]


@pytest.mark.slow
def test_a_seed_that_fails_is_named_and_the_others_finish(tmp_path: Path) -> None:
    out = tmp_path / "e"
    run_one(out, "--only-seed", "1")  # seed 1 is there already
    chosen, world = seed.settings("miniature"), seed.world_fingerprint()
    seed.claim(out / "seeds/0", 0, chosen, world)
    (out / "seeds/0/other").mkdir()
    (out / "seeds/0/other/sft-seed").write_text("a file in the way of a folder")
    with pytest.raises(WorkError, match=r"seed 0 failed: .*sft-seed.*run the same command again"):
        run.evidence(out, n_seeds=2, first_seed=0, scale="miniature", quiet=True)
    assert not (out / run.JSON).exists()


# --- the whole, at a toy size ------------------------------------------------------------------------------


def run_one(out: Path, *words: str) -> None:
    command = [sys.executable, "-m", "alignbench", "evidence", "--out", str(out), "--scale", "miniature"]
    subprocess.run([*command, *words], check=True, stdin=subprocess.DEVNULL)


def generated(home: Path) -> dict[tuple[str, str], str]:
    """What the ledger holds: (kind, key) → payload."""
    with sqlite3.connect(home / "ledger.sqlite3") as ledger:
        return {
            (kind, key): text for kind, key, text in ledger.execute("SELECT kind, key, payload FROM answers")
        }


def count_puts(home: Path) -> None:
    """From now on the ledger itself counts every answer that is put, replacements too."""
    with sqlite3.connect(home / "ledger.sqlite3") as ledger:
        ledger.execute("CREATE TABLE puts (kind TEXT, key TEXT)")
        ledger.execute(
            "CREATE TRIGGER count_puts AFTER INSERT ON answers BEGIN "
            "INSERT INTO puts VALUES (NEW.kind, NEW.key); END"
        )


@pytest.mark.slow
def test_killed_and_run_again_is_the_same_and_pays_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignbench.ledger import Ledger

    out, home = tmp_path / "e", tmp_path / "home"
    monkeypatch.setenv("ALIGNBENCH_HOME", str(home))
    with Ledger.open():
        pass
    count_puts(home)
    command = [sys.executable, "-m", "alignbench", "evidence", "--out", str(out), "--scale", "miniature"]
    command += ["--seeds", "2", "--first-seed", "0", "--jobs", "2"]
    parent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (out / "seeds/0/other/rm/run.json").exists(), parent)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    # the children go with it: the locks of their folders are free, and nothing is written any more
    wait_for(lambda: not workers(out), None)
    kept, done = generated(home), seed.finished_stages(out / "seeds/0")
    assert kept
    assert done
    run_one(out, "--seeds", "2", "--first-seed", "0", "--jobs", "2")
    after = generated(home)
    assert kept.items() <= after.items()
    with sqlite3.connect(home / "ledger.sqlite3") as ledger:
        puts = ledger.execute("SELECT COUNT(*), COUNT(DISTINCT kind || key) FROM puts").fetchone()
    assert puts[0] == puts[1] == len(after)
    # what was finished before the kill was not done again
    assert done.items() <= seed.finished_stages(out / "seeds/0").items()

    whole = tmp_path / "whole"
    monkeypatch.setenv("ALIGNBENCH_HOME", str(tmp_path / "home2"))
    shutil.rmtree(tmp_path / "home2", ignore_errors=True)
    run_one(whole, "--seeds", "2", "--first-seed", "0", "--jobs", "2")
    first, second = (json.loads((folder / run.JSON).read_text()) for folder in (out, whole))
    for one in (first, second):
        del one["cost"], one["command"]
    assert first == second
    assert (out / run.PAGE).read_text().startswith("# The pocket world over 2 seeds")
    assert len(generated(tmp_path / "home2")) == len(after)


def workers(out: Path) -> list[str]:
    """Processes that still work for ``out``."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout.splitlines()
    mine = str(os.getpid())
    return [line for line in listed if f"--out {out}" in line and line.split()[0] != mine]


def wait_for(condition: Any, process: subprocess.Popen[bytes] | None, seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        assert process is None or process.poll() is None, "it ended before it was killed"
        time.sleep(0.1)
