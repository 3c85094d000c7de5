"""The commands ``compare`` and ``eval`` at their edges: help, refusals, the dry run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignbench.cli.main import main
from alignbench.engines.policy import KINDS, OPTIONS

HEAVY = ("torch", "transformers", "datasets", "evaluate", "pandas", "plotly", "scipy", "sklearn", "pyarrow")


def run(*args: Any) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("name", ["compare", "eval"])
def test_help_imports_nothing_heavy(name: str) -> None:
    code = (
        "import sys\n"
        "from alignbench.cli.main import main\n"
        "try:\n"
        f"    main(['{name}', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Examples:" in out
    assert "--limit" in out
    assert all(f"{kind}:" in out for kind in KINDS if kind != "hf")
    keys = out[out.index("Keys: ") : out.index("Options:")]
    assert set(re.findall(r"\b[a-z_]+\b", keys)) >= {key for kind in OPTIONS.values() for key in kind}
    assert out.strip().splitlines()[-1] == "[]"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a model to everything that does not load it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    (tmp_path / "mine.txt").write_text("Say hello.\nSay goodbye.\n")
    return f"prompts:{tmp_path / 'mine.txt'}"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compare", "{model}"], "compare needs two policies or more; for one there is alignbench eval"),
        (
            ["compare", "{model}", "{model}"],
            "two policies are called 'model'; give one another name: NAME=SPEC",
        ),
        (["compare", "{model}", "./nowhere"], "policy './nowhere': no folder ./nowhere; check the path"),
        (["eval", "{model}", "--tasks", "truthfulqa_mc"], "did you mean 'truthfulqa_mc"),
        (["eval", "{model}", "--tasks-dir", "/nowhere"], "/nowhere does not exist"),
        (["compare", "{model}", "vllm:other"], "vLLM is not installed; pip install 'alignbench[vllm]'"),
        (["eval", "{model}", "--engine", "hff"], "there is no engine 'hff' (did you mean 'hf'?)"),
        (["eval", "{model}?dtyp=x"], "unknown option 'dtyp' (did you mean 'dtype'?)"),
        (
            ["compare", "{model}", "b={model}", "--tasks", "{prompts}", "--judge", "god"],
            "did you mean 'gold'",
        ),
        (["eval", "{model}", "--tasks", "{prompts}", "--out", "{model}"], "holds other files"),
        (["eval", "{model}", "--tasks", "{prompts}", "--out", "/dev/null/x"], "cannot be written"),
        (["eval", "{model}", "--limit", "many"], "'many' is not a valid integer"),
    ],
)
def test_refusals_are_one_sentence(
    args: list[str], message: str, model: Path, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(arg.format(model=model, prompts=prompts) for arg in args)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert "Traceback" not in said.err
    assert said.err.strip().splitlines()[-1].startswith("alignbench: ")


def test_a_dry_run_counts_and_asks_nothing(
    model: Path, prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ("compare", model, f"other={model}", "--tasks", prompts, "--dry-run")
    assert run(*args) == 0
    out = capsys.readouterr().out
    assert "2 requests a policy, 4 in all" in out
    assert "Say hello." in out
    assert run(*args, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["policies"]) == ["model", "other"]
    assert found["out"] == "reports/model-vs-other"
    assert found["tasks"][0]["documents"] == 2
    assert not (tmp_path / "reports").exists()
