# Every target makes .venv and installs the package on its first use. Needs Python 3.11 or newer, make, g++.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: smoke smollm test test-long lint format

smoke: $(INSTALLED)
	$(BIN)/llamita run configs/smoke/pipeline.yaml

smollm: $(INSTALLED)
	$(BIN)/python launch/fetch_smollm.py models/SmolLM2-135M-Instruct

test: $(INSTALLED)
	$(BIN)/pytest -m "not long"

test-long: $(INSTALLED)
	$(BIN)/pytest -m long

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	touch $@
