# Everything runs from a fresh machine with Python 3.11+: the environment is made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DIR ?= .demo
DEMO_PRESET ?= starter
# pip, or uv, which pip then puts into .venv
INSTALLER ?= pip
# package index that holds the torch build you want, CPU or CUDA; empty: the default index
TORCH_INDEX ?=

# --no-compile: Python compiles what is imported; all 28,000 files would take 1.5 of the 5 CPU minutes
INSTALL_pip = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
INSTALL_uv = $(BIN)/uv pip install --quiet --python $(BIN)/python
INSTALL = $(or $(INSTALL_$(INSTALLER)),$(error INSTALLER=$(INSTALLER) is not known; use pip or uv))

# without compiled files each of the many processes of a demo or a test run compiles its libraries anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint unit integration test-long reliability docs fuzz fuzz-cli gpu-check setup clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## Make .venv with the locked packages; INSTALLER=uv, TORCH_INDEX=URL for another build of torch

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, {v[0]}.{v[1]} found; use make PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(filter uv,$(INSTALLER)),$(INSTALL_pip) uv)
	@# torch alone comes from that index: what it needs is locked and comes from the default one
	$(if $(TORCH_INDEX),$(INSTALL) --no-deps --index-url $(TORCH_INDEX) 'torch==2.13.0')
	$(INSTALL) -c constraints.txt 'torch==2.13.0' -e '.[dev,deepspeed,ray,starter]'
	@touch $@

demo: setup  ## Synthetic clips -> approved pair -> decisions on unseen clips; DEMO_PRESET=tiny for the wiring only
	$(BIN)/coefvq demo --workspace $(DEMO_DIR) --recipe $(DEMO_PRESET)

# two test processes on two cores: more threads each would wait for one another
test test-long reliability unit integration: export OMP_NUM_THREADS ?= 1

test: lint  ## All checks and tests that CI runs
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m "not long"

test-long: setup  ## The others: kill -9, hostile input, and what takes its time; before a release
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m long

reliability: setup  ## The VMP on real servers: kill -9 of workers on Kafka with SQLite, PostgreSQL, Redis; needs KAFKA_HOME
	RELIABILITY_EVENTS=$(or $(RELIABILITY_EVENTS),20000) RELIABILITY_KILLS=$(or $(RELIABILITY_KILLS),50) \
		$(BIN)/python -m pytest -q -s tests/reliability/test_kafka_kill.py tests/reliability/test_kafka_broker.py \
		tests/reliability/test_kafka_faults.py tests/reliability/test_vmp_kill.py \
		tests/reliability/test_mirror_kill.py tests/reliability/test_network_link.py

lint: setup  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup  ## Fast tests
	$(BIN)/python -m pytest tests/unit tests/property -n 2 -q

integration: setup  ## Real parts: DVC, MLflow, Prefect
	$(BIN)/python -m pytest tests/integration -n 2 --dist loadfile -q

docs: setup  ## Key tables into docs/settings.md, API reference into build/api; no network
	$(BIN)/python docs/settings.py
	$(BIN)/python -m pdoc --docformat google --no-show-source --output-directory build/api coefvq tasks flows

fuzz: setup  ## Hostile media files; FUZZ_FILES= and FUZZ_SEED= for more or others
	$(BIN)/python -m tests.fuzz --files $(or $(FUZZ_FILES),1000) --seed $(or $(FUZZ_SEED),7)

fuzz-cli: setup  ## Damaged files and odd arguments through every command; FUZZ_CASES= and FUZZ_SEED= likewise
	$(BIN)/python -m tests.fuzz_cli --cases $(or $(FUZZ_CASES),1200) --seed $(or $(FUZZ_SEED),7)

gpu-check: setup  ## Whether a hub recipe works on this machine's card: a table for an issue; GPU_CHECK="--device cpu"
	$(BIN)/python benchmarks/gpu_check.py $(GPU_CHECK)

clean:  ## Remove the demo workspace and caches (not .venv)
	rm -rf $(DEMO_DIR) build/api .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
