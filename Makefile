# make quickstart: install into .venv, run the whole main job, write reports/quickstart/report.html
# make test:       install into .venv, run the tests
# make evidence:   install into .venv, run the main job over seeds, write reports/pocket/evidence.md

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help quickstart evidence test lint types wheel clean

help:
	@echo "make quickstart   install, then base → SFT → RM → PPO, PPO-ptx → report (minutes)"
	@echo "make evidence     the same over 12 seeds → reports/pocket/evidence.md (up to an hour)"
	@echo "make test         install, then the tests"
	@echo "make lint types   ruff; mypy --strict"
	@echo "make wheel        dist/alignbench-*.whl"

$(STAMP): pyproject.toml constraints.txt scripts/install.py
	@$(PYTHON) scripts/install.py $(VENV) -e '.[dev]'
	@touch $@

quickstart: $(STAMP)
	@$(BIN)/alignbench quickstart

evidence: $(STAMP)
	@$(BIN)/alignbench evidence

# -n auto: the tests run one thread each
test: $(STAMP)
	@$(BIN)/python -m pytest -n auto --dist loadgroup -m "not story"

lint: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(STAMP)
	@$(BIN)/mypy

wheel: $(STAMP)
	@rm -rf dist
	@$(BIN)/python -m build --wheel --outdir dist . > dist.log 2>&1 || (cat dist.log; exit 1)
	@rm -f dist.log
	@ls dist/*.whl

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
