# `make run` installs and does the main job; `make test` installs and runs the tests.
# A virtual environment that is active, or named by VENV, is used as it is; otherwise .venv is made.

PYTHON   ?= python3
VENV     ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN       = $(VENV)/bin
FEATURES ?= demo-media
INSTALLED = $(VENV)/.ada2i-installed

.PHONY: run test unit lint bench up down status install

run: install
	@$(BIN)/python -m pipelines "$(FEATURES)"

test: install lint
	@$(BIN)/python -m pytest

unit: install
	@$(BIN)/python -m pytest tests/unit tests/rules

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: install
	@$(BIN)/python -m tests.benchmarks --out benchmarks

up down status: install
	@$(BIN)/python -m infra.local $@

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or later is needed, but this is {sys.version}"'
	@echo "Installing into $(VENV) (a few minutes the first time)..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
