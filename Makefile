# Two commands do all the set-up: `make train` and `make test`.
ALGO ?= rlx2td3
ENV ?= HalfCheetah-v5
STEPS ?= 1000000
PYTHON ?= python3

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: train test lint bench

train: .venv/installed
	$(BIN)/rlx2 train --algo $(ALGO) --env $(ENV) --n-timesteps $(STEPS) --progress

# What CI runs, but for tests that need what is not there (Chromium, PostgreSQL), which CI installs. CI=true also installs the
# wheel with all its dependencies into an empty environment.
test: lint
	$(BIN)/python -m pytest --numprocesses auto

# Speed against stock SB3 and SBX, on a machine that does nothing else.
bench: .venv/installed-dev .venv-sbx/tried
	$(BIN)/python -m benchmarks.speed run
	$(BIN)/python -m benchmarks.speed report

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[dev]'
	touch $@ .venv/installed

.venv/bin/python:
	$(PYTHON) -m venv .venv

# SBX has an environment of its own. Where it cannot be installed, its columns say so.
.venv-sbx/tried:
	$(PYTHON) -m venv .venv-sbx
	-.venv-sbx/bin/python -m pip install --quiet --constraint constraints.txt sbx-rl jax 'gymnasium[mujoco]'
	touch $@
