# Two commands do all the set-up: `make train` and `make test`.
ALGO ?= rlx2td3
ENV ?= HalfCheetah-v5
STEPS ?= 1000000
PYTHON ?= python3

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: train test lint

train: .venv/installed
	$(BIN)/rlx2 train --algo $(ALGO) --env $(ENV) --n-timesteps $(STEPS) --progress

# Everything that CI runs. CI=true also installs the wheel with all its dependencies into an empty environment.
test: lint
	CI=true $(BIN)/python -m pytest --numprocesses auto

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
