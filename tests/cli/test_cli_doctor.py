"""``alignbench doctor``, through the command's own entry."""

from __future__ import annotations

import json
import re
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from alignbench import doctor
from alignbench.cli.main import main
from alignbench.engines import native, selftest
from alignbench.engines.vllm_engine import versions as vllm_versions

ROOT = Path(__file__).resolve().parents[2]
VERSION = doctor._version


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", *map(str, args)])
    return int(stopped.value.code or 0), capsys.readouterr().out


def asked(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, Any]]:
    status, out = run(capsys, *args, "--json")
    return status, json.loads(out)


def finding(found: dict[str, Any], name: str) -> tuple[str, str]:
    (row,) = [row for row in found["findings"] if row["name"] == name]
    return row["state"], row["value"]


@pytest.fixture(autouse=True)
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it is not installed, whatever the tests run in."""
    versions = doctor._version
    monkeypatch.setattr(vllm_versions, "installed", lambda: False)
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "vllm" else versions(name))


def test_a_machine_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = asked(capsys)
    assert (status, found["ready"], found["problems"]) == (0, True, [])
    assert found.keys() == {"ready", "verdict", "problems", "findings", "selftest"}
    assert all(row.keys() == {"area", "name", "state", "value"} for row in found["findings"])
    assert {row["area"] for row in found["findings"]} == {"software", "engine", "machine", "workspace"}
    assert {row["state"] for row in found["findings"]} <= {"ok", "absent"}
    assert finding(found, "vllm") == ("absent", "not installed; pip install 'alignbench[vllm]' brings it")
    assert finding(found, "hub")[1].startswith("offline mode")
    test = found["selftest"]
    assert test["passed"]
    by_name = {engine["name"]: engine for engine in test["engines"]}
    assert by_name["hf, padded"]["difference"] is None
    assert by_name["hf"]["difference"] <= selftest.TOLERANCE
    assert by_name["hf"]["texts"] == selftest.ROWS
    assert ("hf, torch steps" in by_name) == test["compiled"]
    assert all(engine["generated_per_second"] > 0 for name, engine in by_name.items() if name != "vllm")
    assert by_name["vllm"]["state"] == "absent"
    assert found["verdict"].startswith("ready: hf on ")


def test_what_people_see(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, "--no-test")
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == "software"
    assert lines[-1].startswith("ready: hf on ")
    assert "self-test" not in out
    marked = [line for line in lines if line.startswith("  ")]
    assert {line[2] for line in marked} == {"✓", "–"}
    starts = {len(line[4:]) - len(line[4:].partition("  ")[2].lstrip()) for line in marked}
    assert len(starts) == 1, "values are one below the other"


def test_an_engine_that_computes_something_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planted: one layer's weights are a little off in all but the reference."""
    load, loaded = selftest._hf, []

    def planted() -> Any:
        engine = load()
        if loaded:
            engine.module.model.layers[0].mlp.down_proj.weight.data *= 1.05
        loaded.append(engine)
        return engine

    monkeypatch.setattr(selftest, "_hf", planted)
    status, out = run(capsys)
    assert status == 1
    (line,) = [line for line in out.splitlines() if line.startswith("  ✗ hf ")]
    assert "log-probabilities differ by up to" in line
    assert "greedy texts differ" in line
    assert out.splitlines()[-1].startswith("not ready: self-test of hf: log-probabilities differ")


def test_a_log_probability_that_is_no_number_is_a_difference() -> None:
    assert selftest._largest([(0.0, 0.0), (float("nan"), 0.0)]) == float("inf")
    assert selftest._largest([(-1.0, -1.5), (0.0, 0.0)]) == 0.5


def test_vllm_that_is_there_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Any:
        raise RuntimeError("no kernel\nfor this processor")

    monkeypatch.setattr(vllm_versions, "installed", lambda: True)
    monkeypatch.setattr(selftest, "_vllm", fails)
    status, found = asked(capsys)
    assert status == 1
    assert found["problems"] == ["self-test of vllm: RuntimeError: no kernel for this processor"]


def test_vllm_is_compared_and_its_start_is_counted_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As vLLM's stands the engine itself in, which starts slowly."""

    def slow() -> Any:
        time.sleep(1.5)
        return selftest._hf()

    monkeypatch.setattr(vllm_versions, "installed", lambda: True)
    monkeypatch.setattr(selftest, "_vllm", slow)
    status, out = run(capsys)
    assert status == 0
    took = re.search(r"^self-test \((\d+\.\d) s, and (\d+\.\d) s until vllm had started\)$", out, re.M)
    assert took is not None
    assert float(took[2]) >= 1.5
    (line,) = [line for line in out.splitlines() if line.startswith("  ✓ vllm") and "log-prob" in line]
    assert "same texts; tokens/s: " in line
    if out.splitlines()[-1].startswith("ready: hf on cpu"):
        assert out.splitlines()[-1].endswith("; vllm gives the same numbers")


def test_without_torch_or_transformers_nothing_is_computed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "NEEDED", (*doctor.NEEDED, "no_such_package"))
    status, found = asked(capsys)
    assert status == 1
    assert found["selftest"] is None
    assert found["verdict"] == (
        "not ready: no_such_package: not installed; install alignbench again: pip install alignbench"
    )


@pytest.mark.parametrize(
    ("environ", "compiler", "reason"),
    [
        ({"PATH": "{tmp}"}, "absent", "no C compiler (cc, gcc, clang) is installed"),
        ({"CC": "false"}, "ok", "false does not compile it: status 1; torch decodes"),
        ({"CC": "/no/such/cc"}, "ok", "/no/such/cc"),
        ({"ALIGNBENCH_NATIVE": "0"}, "ok", "turned off by ALIGNBENCH_NATIVE=0"),
    ],
)
def test_why_decoding_is_not_compiled(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    environ: dict[str, str],
    compiler: str,
    reason: str,
) -> None:
    monkeypatch.setenv("ALIGNBENCH_NATIVE", str(tmp_path / "kept"))
    monkeypatch.setenv("CC", "cc")
    if "PATH" in environ:
        monkeypatch.delenv("CC")
    for name, value in environ.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    status, found = asked(capsys, "--no-test")
    assert status == 0  # torch decodes
    assert finding(found, "C compiler")[0] == compiler
    state, value = finding(found, "compiled decoding")
    assert state == "absent"
    assert reason in value
    assert value.endswith("; torch decodes instead")
    assert "torch's decoding" in found["verdict"]


def test_without_compiled_steps_there_is_one_engine_less(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    status, found = asked(capsys)
    assert status == 0
    assert [engine["name"] for engine in found["selftest"]["engines"]] == ["hf, padded", "hf", "vllm"]
    assert "torch's decoding" in found["verdict"]


def test_a_ledger_that_cannot_be_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    status, found = asked(capsys, "--no-test", "--workspace", tmp_path / "file" / "below")
    assert (status, finding(found, "ledger")[0]) == (1, "broken")
    monkeypatch.setattr("alignbench.ledger.store.network_filesystem", lambda folder: "nfs4")
    status, found = asked(capsys, "--no-test")
    assert status == 1
    assert "is on a network file system (nfs4)" in found["verdict"]


def test_the_hub_is_asked_only_if_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    calls = []

    def answers(self: Any, name: str, **options: Any) -> None:
        calls.append(name)

    def silent(self: Any, name: str, **options: Any) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answers)
    assert doctor.hub(False, {}).value == "huggingface.co, not asked (--hub asks)"
    assert doctor.hub(True, {"HF_HUB_OFFLINE": "1"}).value.startswith("offline mode")
    assert calls == []
    assert (
        doctor.hub(True, {"HF_ENDPOINT": "https://mirror.example"}).value == "https://mirror.example answers"
    )
    assert len(calls) == 1
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", silent)
    assert doctor.hub(True, {}).state == "absent"


def test_threads_that_spin_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS is 3, OMP_WAIT_POLICY is ACTIVE (threads that spin" in doctor._threads(3)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert "set by alignbench unless you set it" in doctor._threads(3)


def test_an_extra_that_is_half_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record without its modules, its modules without a record, or a folder that only has its name."""

    def vllm(folder: Path) -> tuple[str, str]:
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            (found,) = [each for each in doctor.software() if each.name == "vllm"]
        return found.state, found.value

    monkeypatch.setattr(doctor, "_version", VERSION)
    monkeypatch.setattr(doctor, "DISTRIBUTIONS", {})
    recorded = tmp_path / "recorded" / "vllm-99.0.dist-info"
    recorded.mkdir(parents=True)
    (recorded / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 99.0\n")
    for name in ("bare", "named"):
        (tmp_path / name / "vllm").mkdir(parents=True)
    (tmp_path / "bare" / "vllm" / "__init__.py").touch()
    assert vllm(tmp_path / "recorded")[0] == "absent"
    assert "99.0 without its modules; install it again" in vllm(tmp_path / "recorded")[1]
    if find_spec("vllm") is None:
        assert vllm(tmp_path / "bare") == ("ok", "of unknown version")
        assert vllm(tmp_path / "named")[0] == "absent"


@pytest.mark.parametrize(
    ("cuda", "for_cuda", "installed", "said"),
    [
        (False, False, False, "there is no CUDA GPU"),
        (False, False, True, "no CUDA GPU; vllm:… runs a policy with vllm"),
        (True, False, False, "vllm is not installed"),
        (True, False, True, "the vllm here computes on CPUs"),
        (
            True,
            True,
            True,
            "but vllm, which is installed, where all policies are decoder-only models of 2 GiB",
        ),
    ],
)
def test_which_engine_and_why(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, for_cuda: bool, installed: bool, said: str
) -> None:
    monkeypatch.setattr(vllm_versions, "for_cuda", lambda: for_cuda)
    monkeypatch.setattr(vllm_versions, "installed", lambda: installed)
    assert said in doctor._reason(cuda)


def test_the_extras_are_those_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for module, extra in doctor.EXTRAS.items():
        assert any(need.startswith(module) for need in declared[extra]), (module, extra)
