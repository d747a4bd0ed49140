.PHONY: demo test test-all lint clean
.DELETE_ON_ERROR:

PYTHON ?= python3.11
BIN := .venv/bin

# The lock names every package with its hash; --no-deps, because two packages pin their neighbours wrongly (pyproject.toml).
.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: .venv/.installed
	$(BIN)/enclap pipeline experiments/demo.yaml

test: .venv/.installed
	$(BIN)/python -m pytest -m "not slow"

test-all: .venv/.installed
	$(BIN)/python -m pytest

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs data
