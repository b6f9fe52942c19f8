# One command for each thing that a newcomer, a developer or CI does; `make` alone lists them.
# Paths are relative, so that a folder with spaces in its name is fine; nothing needs to be activated.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# An environment that is there keeps its kind until another is asked for.
TORCH ?= $(if $(wildcard .venv/.ready-cuda-*),cuda,cpu)
ifeq ($(filter $(TORCH),cpu cuda),)
$(error TORCH=$(TORCH) is unknown; give TORCH=cpu or TORCH=cuda)
endif
# Recipes that call make use this name: with $(MAKE) in it, `make -n` would run the whole recipe.
SELF := $(MAKE)
BIN := .venv/bin
PY := $(BIN)/python
# Where the demo and its report run: a folder of profiles/, or a profile of yours, made by `biom3d remote add`.
PROFILE ?= local
SNAKEMAKE := $(PY) -m snakemake $(if $(wildcard profiles/$(PROFILE)),--workflow-profile profiles/$(PROFILE),--profile $(PROFILE))
# The name holds the lock's hash: another lock, another stamp, a new environment.
STAMP := .venv/.ready-$(TORCH)-$(shell sha256sum < requirements/$(TORCH).lock | cut -c1-16)

# The rules call `python -m biom3d.<step>`: the python of .venv.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup slurm demo run report test test-upstream lint soak bench bench-peers bench-remote lock clean

help:  ## list what can be made
	echo "make TARGET [TORCH=cpu|cuda] [PYTHON=python3.12] [PROFILE=local|docker|YOURS]"
	sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' Makefile | expand -t 18

setup: .venv/.installed  ## make the environment .venv from the lock file; TORCH=cuda for NVIDIA GPUs

$(STAMP):
	PYTHON="$(PYTHON)" bash requirements/setup.sh $(TORCH) $(STAMP)

.venv/.installed: $(STAMP) pyproject.toml
	$(PY) -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps --editable .
	$(PY) -m pip --disable-pip-version-check check
	touch $@

slurm: setup  ## add what profile slurm needs to .venv; not by default: it makes every start of Snakemake 0.4 s longer
	$(PY) -m pip install -qq --disable-pip-version-check --require-hashes --no-deps --requirement requirements/slurm.lock
	$(PY) -m pip --disable-pip-version-check check

demo:  ## segment real nuclei: set up, fetch, train, predict, evaluate, report; again: nothing to do
	start=$$SECONDS
	$(SELF) setup
	$(PY) -m biom3d.demo data/demo
	if [ "$(PROFILE)" != local ]; then $(PY) -m biom3d images build cpu; fi
	if [ ! -d "profiles/$(PROFILE)" ]; then $(PY) -m biom3d remote send-image "$(PROFILE)" cpu; fi
	$(SNAKEMAKE)
	$(SELF) report
	echo
	$(PY) -m biom3d.demo data/demo --show results
	printf '%s\n' "Look at: results/ (tables, pictures, label volumes), report.html (open it in a browser)" \
	  "Total wall time: $$(( (SECONDS - start) / 60 )) min $$(( (SECONDS - start) % 60 )) s"

run: setup  ## segment what config/ lists, with a forecast first: PROFILE=local|docker|YOURS
	$(PY) -m biom3d run --profile "$(PROFILE)"

report: setup  ## write report.html: scores, failures, curves, pictures of what is there
	$(PY) -m biom3d.report page

test: lint  ## run all checks and all tests, as CI does; what needs root is left out for others, and named
	if [ "$$(id -u)" = 0 ]; then bash requirements/system.sh; else echo "not root: tests that need it are left out; sudo make test runs all"; fi
	$(PY) -m pytest

test-upstream: setup  ## exchange models and data with the real Biom3d 0.1.2, both ways, and print the agreement
	$(PY) tests/upstream_exchange/exchange.py

lint: setup  ## check style, types and the workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=workflow/lib:workflow/plugins $(BIN)/mypy --package biom3d_workflow --package snakemake_executor_plugin_host \
	  --package snakemake_logger_plugin_biom3d
	MYPYPATH=containers/upstream $(BIN)/mypy --package biom3d_upstream
	$(BIN)/snakefmt --check workflow
	$(PY) -m snakemake --lint
	$(PY) tests/upstream_exchange/table.py --check

soak: setup  ## three people, two servers, 60 jobs, 30 faults of 12 kinds in half an hour; as root; SEED=N MINUTES=N
	$(PY) -m tests.remote.soak --minutes "$(or $(MINUTES),30)" --seed "$(or $(SEED),1)"

bench: setup  ## measure time and memory of every step; prints a table and puts it into bench/README.md
	$(PY) bench/steps.py --keep

bench-peers: setup  ## measure our steps beside the real Biom3d 0.1.2; puts the table into bench/peers.md
	$(PY) bench/peers.py

bench-remote: setup  ## measure staging against rsync on emulated lines; as root; EMULATOR=PROGRAM, see bench/transport.md
	$(PY) bench/transport.py --emulator "$(EMULATOR)"
	$(PY) bench/jobs.py --emulator "$(EMULATOR)"
	$(PY) bench/gate.py
	$(PY) bench/many.py

lock: setup  ## write requirements/*.lock anew after a change in pyproject.toml; UPGRADE=1 for new versions
	bash requirements/lock.sh

clean:  ## remove the environment and caches; your data, logs and results stay
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
