# Every target makes .venv and installs the package on its first use. Needs Python 3.11 or newer, make, g++.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
OLDEST := .venv-oldest
OLDEST_INSTALLED := $(OLDEST)/.installed

.PHONY: smoke smollm test test-oldest test-long lint format

smoke: $(INSTALLED)
	$(BIN)/llamita run configs/smoke/pipeline.yaml

smollm: $(INSTALLED)
	$(BIN)/python launch/fetch_smollm.py models/SmolLM2-135M-Instruct

test: $(INSTALLED)
	$(BIN)/pytest -m "not long" -n 2

# The fast tests with the lowest versions that pyproject.toml promises, in an environment of their own.
test-oldest: $(OLDEST_INSTALLED)
	$(OLDEST)/bin/pytest -m "not long" -n 2

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

# torch comes from pip, with the GPU libraries that its build needs, or none: the list leaves both out.
$(OLDEST_INSTALLED): pyproject.toml constraints.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install -c constraints.txt torch uv
	grep '^torch==' constraints.txt > $(OLDEST)/torch.txt
	$(OLDEST)/bin/uv pip compile -q --python $(OLDEST) --resolution lowest-direct --extra dev \
		-c $(OLDEST)/torch.txt pyproject.toml -o $(OLDEST)/resolved.txt
	grep -Ev '^(torch|triton|nvidia-.*|cuda-.*)==' $(OLDEST)/resolved.txt > $(OLDEST)/requirements.txt
	$(OLDEST)/bin/uv pip install --python $(OLDEST) --no-deps -r $(OLDEST)/requirements.txt -e .
	touch $@
