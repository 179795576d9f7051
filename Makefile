# make demo   install what is missing and run the main job: raw files to a report
# make test   install what is missing and run what CI runs
.DEFAULT_GOAL := help
SHELL := bash
VENV ?= .venv
PY := $(VENV)/bin/python
DEMO ?= demo-output
JOBS ?= 2
inputs := pyproject.toml constraints.txt tools/bootstrap.sh $(wildcard packages/*/pyproject.toml)

.PHONY: help install dev demo test lint types contracts unit format bench-real bench-memory bench-recon bench-startup bench-store accuracy faults clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(VENV)/.installed: $(inputs)
	VENV=$(VENV) tools/bootstrap.sh
	@touch $@

$(VENV)/.installed-dev: $(inputs)
	VENV=$(VENV) tools/bootstrap.sh --dev
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed  ## create .venv with the five packages
dev: $(VENV)/.installed-dev  ## the same, with the test and lint tools

demo: install  ## the main job: simulate, convert, reconstruct, train, segment, evaluate, report
	$(VENV)/bin/mri-cli demo --out $(DEMO)

test: lint types contracts unit  ## what CI runs

lint: dev  ## ruff: style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: dev  ## mypy
	$(VENV)/bin/mypy

contracts: dev  ## import-linter: the layering of the packages
	$(VENV)/bin/lint-imports

# Threads of several processes on the same cores wait for one another: one each.
unit: dev  ## pytest on two processes; JOBS=0 in one
	$(if $(filter 0 1,$(JOBS)),,OMP_NUM_THREADS=1) GOMP_SPINCOUNT=50000 $(PY) -m pytest -n $(JOBS) --dist loadfile

bench-real: install  ## figures on real input (MRI_TEST_DATA), for docs/results.md
	$(PY) benchmarks/real_data.py

bench-store: install  ## speed of the store beside HDF5 and plain copies, for docs/results.md
	$(PY) benchmarks/store.py

bench-memory: install  ## the most memory that converting a file of 4 GB takes, for docs/preparation.md
	$(PY) benchmarks/memory.py

faults: dev  ## kills, flipped bits, full disks, races and damaged inputs, for docs/results.md; an hour
	GOMP_SPINCOUNT=50000 $(PY) -m tools.faults

# Peers that do not go into this environment are used from a Python that PEER_PYTHON names, BART when it is installed.
bench-recon: dev  ## speed of operators, masks, calibration, reconstruction and metrics beside peers, for docs/results.md
	status=0; for name in physics calibration wavelet grappa metrics masks; do \
	  echo "== $$name"; $(PY) benchmarks/$$name.py || status=1; done; exit $$status

accuracy: install  ## errors of the classical reconstructions beside BART: simulated scans, and real ones (MRI_TEST_DATA)
	$(PY) benchmarks/accuracy.py; $(PY) benchmarks/real_reconstructions.py

bench-startup: install  ## time from the shell to the help of the commands
	$(PY) benchmarks/startup.py

format: dev  ## rewrite the sources in the house format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## remove the environment and caches, keep data
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
