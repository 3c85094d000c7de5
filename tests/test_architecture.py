"""The house holds: who imports whom, and what `alignbench --help` costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "alignbench"
ANYWHERE = {"errors", "progress", "environment", "processes", "sources", "workspace"}
# room → rooms that it may import; docs/architecture.md says the same in words
MAY_IMPORT: dict[str, set[str]] = {
    "stats": set(),
    "metrics": set(),
    "engines": {"pocket"},  # the name of the shipped base model
    "ledger": set(),
    "pocket": set(),
    "tasks": {"metrics", "engines"},
    "evaluation": {"tasks", "engines", "metrics", "ledger"},
    "judges": {"engines", "ledger", "evaluation", "tasks", "pocket", "stats"},
    "compare": {"evaluation", "judges", "stats", "ledger", "engines", "tasks", "report", "pocket"},
    "report": {"compare"},
    "train": {"engines", "stats", "pocket"},
    "recipes": {"train", "compare", "evaluation", "report", "ledger", "stats", "pocket", "engines"},
}
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "pandas",
    "plotly",
    "scipy",
    "sklearn",
    "numpy",
    "pyarrow",
    "httpx2",
}


def rooms_imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [f"{node.module}.{alias.name}" for alias in node.names]
            if isinstance(node, ast.ImportFrom) and node.module
            else []
        )
        found |= {name.split(".")[1] for name in names if name.startswith("alignbench.")}
    return found


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    for file in sorted((PACKAGE / room).rglob("*.py")):
        foreign = rooms_imported(file) - MAY_IMPORT[room] - ANYWHERE - {room, "__version__"}
        assert not foreign, f"{file.relative_to(PACKAGE)} imports {sorted(foreign)}"


def test_every_room_is_listed() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"cli", "sources"}
    assert rooms == set(MAY_IMPORT)


def test_no_module_shadows_a_package_that_we_use() -> None:
    names = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if path.is_dir()
    }
    assert names.isdisjoint({"datasets", "evaluate", "torch", "transformers", "pandas", "plotly", "vllm"})


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["quickstart"],
        ["evidence"],
        ["train"],
        ["train", "ppo"],
        ["compare"],
        ["eval"],
        ["winrate"],
        ["tasks"],
        ["tasks", "list"],
        ["report"],
        ["browse"],
        ["doctor"],
    ],
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\n"
        "from alignbench.cli.main import main\n"
        "try:\n"
        f"    main({[*words, '--help']!r})\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print('HEAVY', sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.rstrip().endswith("HEAVY []"), result.stdout[-200:]
    assert "Usage: alignbench" in result.stdout


def test_the_thread_policy_is_set_unless_the_user_has_set_it() -> None:
    code = "import os, alignbench; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {"PATH": "/usr/bin:/bin"}
    for extra, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**environment, **extra}
        )
        assert result.stdout.strip() == expected
