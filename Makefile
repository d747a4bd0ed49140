.PHONY: demo rehearsal test test-ci test-all test-gpu coverage lint docs wheel sbom clean clean-demo
.DELETE_ON_ERROR:

PYTHON ?= python3.11
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --durations=10
PACKAGES := benchmarks corpora models ray_jobs tests tune_spaces

# The lock names every package with its hash; --no-deps, because two packages pin their neighbours wrongly (pyproject.toml).
.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: .venv/.installed
	$(BIN)/enclap pipeline experiments/demo.yaml

# experiments/dcase2024.yaml at its published sizes, with random weights and a few clips; needs 26 GiB of disk.
rehearsal: .venv/.installed
	$(BIN)/python benchmarks/rehearsal.py

test: .venv/.installed
	$(PYTEST) -m "not slow"

# What .ci/run runs: also lost nodes, time limits, a run in an object store, killed searches.
test-ci: .venv/.installed
	$(PYTEST) -m "not slow or ci"

test-all: .venv/.installed
	$(PYTEST)

# A target of its own: counting lines makes the tests slower.
coverage: .venv/.installed
	$(PYTEST) -m "not slow" --cov

test-gpu: .venv/.installed
	$(BIN)/python -m pytest -m gpu -rA

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.installed
	$(BIN)/mkdocs build --strict

# The inference library: models/ alone, as the package `enclap`. It is laid out anew, so that nothing old is built into it.
wheel: .venv/.installed
	rm -rf build/wheel
	mkdir -p build/wheel
	cp -R deploy/wheel/. build/wheel
	cp LICENSE build/wheel
	cp -R models build/wheel/enclap
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist build/wheel

# A software bill of materials of all packages that are installed, in CycloneDX's JSON.
sbom: .venv/.installed
	$(BIN)/python docs/generate_licences.py --sbom dist/sbom.json

# Only what the targets above made: data/ and runs/ are the user's.
clean:
	rm -rf .venv build dist site htmlcov *.egg-info .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.*
	find $(PACKAGES) -type d -name __pycache__ -prune -exec rm -rf {} +

# The corpus and the run of experiments/demo.yaml.
clean-demo:
	rm -rf data/soundscapes-demo runs/demo
