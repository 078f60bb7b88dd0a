# Two commands do all the set-up on a fresh machine with Python 3.11 and make: `make sweep` and `make test`.
PYTHON ?= python3.11
ifeq ($(shell command -v $(PYTHON) 2>/dev/null),)
PYTHON := python3
endif
BIN := .venv/bin
IS_311 := 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
STUDY ?= sweeps/phantom.yaml
IMAGES := data/phantom-images
SHARDS := data/phantom

# A worker takes a file at a time; tests/conftest.py says in which order.
BY_FILE := --dist loadfile --no-loadscope-reorder
AGAIN := --last-failed --last-failed-no-failures none --verbose
BENCHES := loader step ranks zero checkpoint start pack trial sweep

.PHONY: install sweep test soak check unit lint docs bench slurm-up slurm-down clean

install: .venv/installed

# torch and torchvision come first and together: what follows must not pull another pair.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c $(IS_311) || { echo "make: Python 3.11 is needed; name it as in: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	{ $(BIN)/python -m pip --version >/dev/null && $(BIN)/python -c $(IS_311); } 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(IMAGES)/manifest.csv: | .venv/installed
	$(BIN)/leukotree phantom $(IMAGES) --size 96 --patients 84 --per-patient 12

$(SHARDS)/dataset.json: | $(IMAGES)/manifest.csv
	$(BIN)/leukotree pack $(IMAGES)/manifest.csv $(SHARDS) --size 96 --folds 4

$(SHARDS)-64/dataset.json: | $(IMAGES)/manifest.csv
	$(BIN)/leukotree pack $(IMAGES)/manifest.csv $(SHARDS)-64 --size 64 --folds 4

## The main job on phantom images, without a cluster: search, folds, report. Run it again to continue it.
sweep: .venv/installed $(SHARDS)/dataset.json
	PATH="$(CURDIR)/$(BIN):$$PATH" bash slurm/sweep.sh $(STUDY)

## All but the longest tests, style and types included; the cluster's tests boot a SLURM of their own.
## Three workers: the cluster's tests, which one of them runs, mostly wait. What fails beside the others is
## named, and runs once more, alone: a test that only waited too long on a busy machine passes then; a defect does not.
test: lint
	$(BIN)/python -m pytest --numprocesses 3 $(BY_FILE) -m "not long" || { [ $$? -eq 1 ] && $(BIN)/python -m pytest $(AGAIN); }

## What `make test` leaves out: tests of minutes that repeat at length what a shorter one tries, as in a container that it builds.
soak: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 $(BY_FILE) -m long

## The quick part, in less than three minutes: style, types, and the tests that are not marked slow.
check: .venv/installed
	$(MAKE) --no-print-directory --jobs 2 lint unit

unit: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 $(BY_FILE) -m "not slow and not long"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## The documents as a web site: open site/index.html. Any warning is an error.
docs: .venv/installed
	$(BIN)/mkdocs build --strict

## Every claim of speed, each as a ratio of two things measured in one run (80 minutes); results/bench/ keeps the table.
bench: .venv/installed
	set -e; for script in $(BENCHES); do $(BIN)/python tests/bench/$$script.py; done
	$(BIN)/python tests/bench/table.py

## A real SLURM with two hosts on this machine, for trying the batch scripts (root only).
slurm-up: .venv/installed
	$(BIN)/python -m tests.helpers.cluster.slurm up

slurm-down: .venv/installed
	$(BIN)/python -m tests.helpers.cluster.slurm down

clean:
	-$(BIN)/python -m tests.helpers.cluster.image clean
	rm -rf .venv site data/phantom data/phantom-64 data/phantom-images .pytest_cache .mypy_cache .ruff_cache
