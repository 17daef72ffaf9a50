# Every target makes .venv when it is missing, or when what it must hold has changed.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

# Threads that wait must sleep: spinning, they slow everything down as soon as another program wants the cores.
export OMP_WAIT_POLICY := PASSIVE

FUZZ_SECONDS ?= 60
SLOW_JOBS    ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint types check format fuzz bench docs clean

help:        ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(STAMP)  ## make .venv with everything for development

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "lossdsl needs Python 3.11 or newer; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(VENV)/bin/lossdsl check stdlib/*.loss stdlib/papers/*.loss
	@touch $@

demo: $(STAMP)     ## train a small transformer on preferences with a compiled objective
	$(PY) examples/preference_text.py $(ARGS)

# Two processes share the cores, so each keeps to one thread.
test: $(STAMP)     ## the tests, without the slow ones
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 -m "not slow" $(ARGS)

test-slow: $(STAMP)  ## the slow tests: examples, packaging, long searches
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(SLOW_JOBS) -m slow $(ARGS)

lint: $(STAMP)     ## style and layout
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(STAMP)    ## strict static types
	$(PY) -m mypy

check: lint types  ## lint and types

format: $(STAMP)   ## rewrite the sources in the canonical layout
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

fuzz: $(STAMP)     ## coverage-guided fuzzing of the parser and checker, for FUZZ_SECONDS
	@test -f tests/fuzz/front.py || { echo "there is no fuzzer yet: tests/fuzz/front.py is missing"; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(PY) tests/fuzz/front.py -max_total_time=$(FUZZ_SECONDS) $(ARGS)

bench: $(STAMP)    ## benchmarks (come later)
	@echo "there are no benchmarks yet; they come with a later release"

docs: $(STAMP)     ## the site (comes later)
	@echo "the documentation is Markdown in docs/; the site comes with a later release"

clean:             ## remove caches and build results, keep .venv
	rm -rf build dist examples/out .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find lossdsl tests examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
