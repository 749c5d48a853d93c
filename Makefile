# Two commands do all the set-up: `make quickstart` and `make test`.
# Both are idempotent, and need no network once `.venv` is complete.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SGLANG := .sglang

.PHONY: quickstart first-steps sandbox test check clean
.DELETE_ON_ERROR:

quickstart: sandbox
	$(BIN)/python -m experiments.quickstart $(QUICKSTART)

first-steps: $(VENV)/.core
	$(BIN)/python -m experiments.first_steps

# The programs and the base image for untrusted code (root, about two minutes once; the tests do the same by themselves).
sandbox: $(VENV)/.core
	$(BIN)/python -m envs.sandbox.cli sandbox install
	$(BIN)/python -m envs.sandbox.cli sandbox build

test: $(VENV)/.dev $(SGLANG)/.ready
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "ornith-jax needs Python 3.11 or later; name one with: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "cannot make a virtual environment: on Debian, apt-get install python3-venv"; exit 1; }

$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.core

# A real SGLang server for the tests, on the CPU, in an environment of its own: about three minutes, once.
$(SGLANG)/.ready: tests/sglang_cpu/requirements.txt $(wildcard tests/sglang_cpu/plugin/sglang_cpu_torch/*.py)
	@$(PYTHON) -m venv $(SGLANG)
	$(SGLANG)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/sglang_cpu/requirements.txt
	$(SGLANG)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  torchvision==0.28.0 compressed-tensors==0.18.0 sglang==0.5.23 ./tests/sglang_cpu/plugin
	@touch $@

clean:
	rm -rf $(VENV) $(SGLANG) build runs *.egg-info
