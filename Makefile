# One target for each step of CI; CI only calls make. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TESTS  ?= tests
WORKERS ?= 2
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs bench gpu-check chaos damage slurm-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## install hpc-llm with pinned versions into .venv

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11" % v[:2])'
	@command -v g++ >/dev/null || { echo "needs a C++ compiler: install g++ (Debian: apt-get install g++)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools --constraint constraints.txt
	$(BIN)/python -m pip install --quiet torch numpy --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	$(BIN)/python -P -m hpc_llm.training.prebuild
	@touch $@

demo: setup ## adapt a small model to Russian on this machine's CPU (about four minutes)
	$(BIN)/hpc-llm adapt

test: setup ## run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --durations=20 $(TESTS)

check: setup ## check format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup ## build the documentation in site/
	$(BIN)/python -m pip install --quiet --editable '.[docs]' --constraint constraints.txt
	$(BIN)/mkdocs build --strict

bench: setup ## compare speed and memory with HF Trainer, plain PyTorch and plain DeepSpeed
	$(BIN)/python bench/train.py $(BENCH)

gpu-check: setup ## check a GPU: its tests, then speed and memory of training (15 minutes)
	$(BIN)/python bench/gpu.py $(GPU)

chaos: setup ## kill runs 20 times each at ZeRO 0 to 3 on one and two ranks (about 40 minutes)
	$(BIN)/python tests/chaos/chaos.py $(CHAOS)

damage: setup ## damage every file of a finished run in eight ways and run again (about 15 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python tests/chaos/damage.py $(DAMAGE)

slurm-test: setup ## run the tests that need Slurm (apt-get install slurm-wlm munge slurmdbd mariadb-server)
	HPC_LLM_REQUIRE_SLURM=1 $(BIN)/python -m pytest -m slurm tests/slurm

clean: ## remove .venv, build files, caches, the documentation site and runs/
	rm -rf $(VENV) build site runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
