# Two commands do all the set-up: `make train` and `make test`.
ALGO ?= rlx2td3
ENV ?= HalfCheetah-v5
STEPS ?= 1000000
PYTHON ?= python3

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: train test lint bench docs torture

train: .venv/installed
	$(BIN)/rlx2 train --algo $(ALGO) --env $(ENV) --n-timesteps $(STEPS) --progress

# What CI runs, but for tests that need what is not there (Chromium, PostgreSQL), which CI installs. CI=true also installs the
# wheel with all its dependencies into an empty environment.
test: lint
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# Kills, full disks, damaged and made-up files, environments that break, by the thousand: a day. It goes on where it was ended.
torture: .venv/installed-dev
	$(BIN)/python -W ignore -m benchmarks.torture run
	$(BIN)/python -W ignore -m benchmarks.torture report

# Speed against stock SB3 and SBX, on a machine that does nothing else.
bench: .venv/installed-dev .venv-sbx/tried
	$(BIN)/python -m benchmarks.speed run
	$(BIN)/python -m benchmarks.speed report

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The site, into build/docs/index.html; a warning, such as of a link that leads nowhere, is an error.
docs: .venv/installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[all,dev,docs]'
	touch $@ .venv/installed .venv/installed-docs

.venv/installed-docs: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[docs]'
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv

# SBX has an environment of its own. Where it cannot be installed, its columns say so.
.venv-sbx/tried:
	$(PYTHON) -m venv .venv-sbx
	-.venv-sbx/bin/python -m pip install --quiet --constraint constraints.txt sbx-rl jax 'gymnasium[mujoco]'
	touch $@
