# The two commands a newcomer needs, and the ones that a developer repeats.
PYTHON ?= python3
VENV := .venv
BOT := $(VENV)/bin/bot
STAMP := $(VENV)/.installed

.PHONY: help run fresh test test-slow test-foundation campaign lint format typecheck check docs bench clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(STAMP)    ## set up, then paper trading on the embedded simulated market
	$(BOT) paper || test $$? -eq 130  # Ctrl-C is no failure

fresh: $(STAMP)  ## a new run instead of going on with the stored one
	$(BOT) paper --fresh || test $$? -eq 130

test: $(STAMP)   ## set up, then the test suite (under 10 minutes on 2 cores)
	$(VENV)/bin/python -m pytest -n auto --dist loadfile

test-slow: $(STAMP) ## the marked slow tests
	$(VENV)/bin/python -m pytest -n auto --dist loadfile -m slow

test-foundation: $(STAMP) ## the tests of pretrained forecasters, with their extra (150 MB more)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,foundation]'
	$(VENV)/bin/python -m pytest tests/test_foundation.py tests/test_study.py -k 'foundation or forecaster'

campaign: $(STAMP) ## the long campaigns: faults, rehearsals, real listings (over an hour)
	$(VENV)/bin/python -m pytest -n auto --dist loadfile -m campaign

lint: $(STAMP)   ## ruff: rules and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(STAMP) ## let ruff rewrite
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

typecheck: $(STAMP) ## mypy --strict on our packages and the benchmarks
	$(VENV)/bin/mypy

check: lint typecheck test ## everything that CI asks

docs: $(STAMP)   ## docs/features.md, from the specification of the features
	$(VENV)/bin/python -m strategies.features.document > docs/features.md

bench: $(STAMP)  ## hot paths, as ratios; PEERS="nautilus=/path/to/python ..." adds other engines
	$(VENV)/bin/python -m benchmarks $(foreach peer,$(PEERS),--peer $(peer))

clean:           ## forget the environment, caches and stored runs
	rm -rf $(VENV) var .mypy_cache .ruff_cache .pytest_cache .hypothesis
