# `make run` installs and does the main job; `make test` installs and runs the tests.
# An active virtual environment, or the one that VENV names, is used; otherwise .venv is created.

PYTHON   ?= python3
VENV     ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN       = $(VENV)/bin
FEATURES ?= demo-media
PYTEST    = $(BIN)/python -m pytest
INSTALLED = $(VENV)/.ada2i-installed

.PHONY: run test test-all unit smoke rest soak lint bench up down status install

run: install
	@$(BIN)/python -m pipelines "$(FEATURES)"

# At most 10 minutes on two idle cores.
test: lint unit smoke

# Everything: run it before a merge, as `.ci/run` does.
test-all: test rest

rest: install
	@$(PYTEST) tests/integration tests/faults -m "not smoke"

unit: install
	@$(PYTEST) tests/unit tests/rules tests/parity -n auto

smoke: install
	@$(PYTEST) tests/integration tests/faults -m smoke

# Long tests: outages, lost nodes, random kills, many processes at once.
soak: install
	@$(PYTEST) tests/faults -m soak

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
