# Short names of the commands that README.md and CONTRIBUTING.md say; a test compares them. Nothing is done here that cannot be typed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: quickstart test slow lint crosscheck robustbench moons digits clean

# Train ACT on digits and print how robust both models are.
quickstart: $(VENV)/installed
	$(BIN)/actkit run gin/act_digits.gin

# Everything that must hold, in four minutes on two cores. A file stays with one worker, so that what its tests share is made once. Slower checks: `make slow`.
test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

slow: $(VENV)/installed
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check actkit tests benchmarks docs plugins
	$(BIN)/mypy

# The same attacks in foolbox, secml-torch and AutoAttack, example by example, in an environment of their own; written to docs/results.
# AUTOATTACK=path/to/a/clone compares with that code instead of the package.
crosscheck:
	$(PYTHON) -m venv .venv-crosscheck
	.venv-crosscheck/bin/python -m pip install --quiet --editable '.[crosscheck]'
	.venv-crosscheck/bin/python -m pytest -q tests/attacks/test_crosscheck.py
	.venv-crosscheck/bin/python benchmarks/crosscheck.py

# RobustBench loads exported models. It is an environment of its own, for RobustBench pins an old timm, which is raised again, and imports what its own
# package does not bring: setuptools' pkg_resources, and AutoAttack from its repository. AUTOATTACK=path/to/a/clone takes that one.
robustbench: $(VENV)/installed
	$(PYTHON) -m venv .venv-robustbench
	.venv-robustbench/bin/python -m pip install --quiet robustbench 'setuptools<81'
	test -n "$(AUTOATTACK)" || .venv-robustbench/bin/python -m pip install --quiet git+https://github.com/fra31/auto-attack
	.venv-robustbench/bin/python -m pip install --quiet --no-deps --upgrade timm
	.venv-robustbench/bin/python -m pip install --quiet --no-deps .
	rm -rf build/robustbench && mkdir -p build/robustbench
	$(BIN)/python benchmarks/robustbench_export.py write build/robustbench
	PYTHONPATH=$(AUTOATTACK) .venv-robustbench/bin/python benchmarks/robustbench_export.py load build/robustbench

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
	rm -rf $(VENV) .venv-crosscheck .venv-robustbench build *.egg-info
