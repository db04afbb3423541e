# `make run` installs and does the main job; `make test` installs and runs the tests.
# An active virtual environment, or the one that VENV names, is used; otherwise .venv is created.

PYTHON   ?= python3
VENV     ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN       = $(VENV)/bin
FEATURES ?= demo-media
MODALITIES ?=
PYTEST    = $(BIN)/python -m pytest
INSTALLED = $(VENV)/.ada2i-installed
DEVELOP   = $(VENV)/.ada2i-development

.PHONY: run test test-all test-containers unit smoke rest soak lint bench docs up down status install develop

run: install
	@$(BIN)/python -m pipelines "$(FEATURES)" --modalities "$(MODALITIES)"

# At most 10 minutes on two idle cores.
test: lint unit smoke

# Everything: run it before a merge, as `.ci/run` does.
test-all: test rest

rest: develop
	@$(PYTEST) tests/unit tests/rules tests/parity -m slow -n auto
	@$(PYTEST) tests/integration tests/faults -m "not smoke"

unit: develop
	@$(PYTEST) tests/unit tests/rules tests/parity -m "not slow" -n auto

smoke: develop
	@$(PYTEST) tests/integration tests/faults -m smoke

# Long tests: outages, lost nodes, random kills, many processes at once; then 30 nights with a failure each.
soak: develop
	@SOAK_SECONDS=600 $(PYTEST) tests/faults -m soak
	@$(BIN)/python -m tests.faults.nights --nights 30

# The image and the Compose file in real containers: needs root and Debian's container packages, which its message names.
test-containers: develop
	@$(PYTEST) tests/containers

lint: develop
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: develop
	@$(BIN)/python -m tests.benchmarks --out benchmarks

# The documentation as a site, in site/.
docs: develop
	@$(BIN)/python -m mkdocs build --quiet
	@echo "Open site/index.html"

up down status: install
	@$(BIN)/python -m infra.local $@

# What a user needs: the product, its encoders and the local stack.
install: $(INSTALLED)

# In addition what the tests need, among it an encoder that may not be used commercially.
develop: $(DEVELOP)

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or later is needed, but this is {sys.version}"'
	@echo "Installing into $(VENV) (a few minutes the first time)..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[stack,extract]' -e ./pipelines
	@touch $@

$(DEVELOP): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
