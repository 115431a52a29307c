# What a newcomer types, and what CI runs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: quickstart test slow lint crosscheck moons digits clean

# Train ACT on digits and print how robust both models are.
quickstart: $(VENV)/installed
	$(BIN)/actkit run gin/act_digits.gin

# Everything that must hold, in minutes. Slower checks: `make slow`.
test: lint
	$(BIN)/python -m pytest -q -n 2

slow: $(VENV)/installed
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check actkit tests benchmarks docs
	$(BIN)/mypy

# The same attacks in foolbox, secml-torch and AutoAttack, example by example, in an environment of their own; written to docs/results.
# AUTOATTACK=path/to/a/clone compares with that code instead of the package.
crosscheck:
	$(PYTHON) -m venv .venv-crosscheck
	.venv-crosscheck/bin/python -m pip install --quiet --editable '.[crosscheck]'
	.venv-crosscheck/bin/python -m pytest -q tests/test_crosscheck.py
	.venv-crosscheck/bin/python benchmarks/crosscheck.py

# The moving picture of Figure 1b, and the table of digits, as shown in docs/.
moons: $(VENV)/installed
	$(BIN)/python docs/moons.py

digits: $(VENV)/installed
	$(BIN)/python benchmarks/digits.py

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "actkit needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .venv-crosscheck build *.egg-info
