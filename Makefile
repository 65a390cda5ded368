# Two commands for a fresh machine: `make demo` and `make test`. On one with an NVIDIA GPU: `make gpu-check`.
# Everything lives in .venv; it is made anew when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test quick gpu-check lint types clean

demo: $(VENV)/.ready
	$(BIN)/tcmoa demo --out demo-out

test: $(VENV)/.ready
	$(BIN)/python -m pytest

quick: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not slow"

gpu-check: $(VENV)/.ready
	$(BIN)/python benchmarks/gpu_check.py --out gpu-report.txt

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-out
