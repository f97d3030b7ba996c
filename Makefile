# Everything starts from a Python of at least 3.11; the rest is installed
# into .venv the first time and whenever the requirements change.
.DEFAULT_GOAL := help
.PHONY: help demo experiments test test-interop test-t5x lint format clean

MIN_PYTHON := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
  $$p -c '$(MIN_PYTHON)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed
TORCH_INSTALLED := .venv/.torch_installed
EXPERIMENTS := $(basename $(notdir \
  $(wildcard xprompt_jax/gin/experiments/*.gin)))
# Without what it asks for: nightly builds of seqio and TFDS would overwrite the
# pinned ones.
T5 := t5==0.9.4
SOURCES := xprompt_jax tests pretrain docs benchmarks
# Tests of one file share what its fixtures compute, so they stay together.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

help:
	@echo "make demo    tune, score, prune, rewind and search on a bundled task"
	@echo "make experiments  every table and figure of the paper on the bundled"
	@echo "                  models into runs/experiments, and what they say into"
	@echo "                  docs/experiments.md"
	@echo "make test    check format, lint, types and layers, then run the tests"
	@echo "make test-interop  install PyTorch, transformers, peft and t5 as"
	@echo "                   well, and compare with them"
	@echo "make test-t5x  compare with google-research/t5x, which has to be on"
	@echo "               PYTHONPATH: docs/t5x.md"
	@echo "make lint    the checks alone"
	@echo "make format  rewrite the sources in the project's format"
	@echo "make clean   remove .venv and caches, keep runs/"

$(INSTALLED): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: found no Python >= 3.11" \
	  "(expected python3.11 on PATH, or PYTHON=/path/to/python)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(TORCH_INSTALLED): $(INSTALLED) requirements-torch.txt
	$(BIN)/python -m pip install --quiet -r requirements.txt \
	  -r requirements-torch.txt
	$(BIN)/python -m pip install --quiet --no-deps $(T5)
	@touch $@

demo: $(INSTALLED)
	$(BIN)/t5x train --gin_file=xprompt_demo.gin

# A file that stopped goes on; one that is done is left alone.
experiments: $(INSTALLED)
	for name in $(EXPERIMENTS); do \
	  $(BIN)/t5x train --gin_file=experiments/$$name.gin \
	    --workdir=runs/experiments/$$name || exit $$?; done
	$(BIN)/t5x report $(EXPERIMENTS:%=runs/experiments/%) \
	  --output=runs/experiments/report
	$(BIN)/python -m docs.experiments runs/experiments \
	  > runs/experiments/experiments.md
	mv runs/experiments/experiments.md docs/experiments.md

test: lint
	$(PYTEST) -m "not interop"

test-interop: $(TORCH_INSTALLED)
	XPROMPT_OPTIMIZED=1 $(PYTEST) -m interop

# A test that finds no T5X fails instead of being skipped.
test-t5x: $(INSTALLED)
	XPROMPT_OPTIMIZED=1 XPROMPT_REQUIRE_T5X=1 $(PYTEST) -m t5x

lint: $(INSTALLED)
	$(BIN)/pyink --check --quiet --diff $(SOURCES)
	$(BIN)/ruff check --quiet $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED)
	$(BIN)/ruff check --quiet --fix-only $(SOURCES)
	$(BIN)/pyink --quiet $(SOURCES)

clean:
	rm -rf .venv build dist *.egg-info
	rm -rf .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
