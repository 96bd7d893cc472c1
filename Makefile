# Everything runs from .venv, which every target sets up by itself from the locked, hashed requirements.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
WHAT   ?= initial
SEED   ?= 1
KILLS  ?= 300
WORKERS ?= 2
SOAKED := $(addprefix ccs_dacs_pipeline_tests/end_to_end/test_,soak.py kill.py crash_points.py faults.py fencing.py interleavings.py clocks.py server_restart.py daemons.py)
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade --quiet \
           --no-emit-index-url --no-emit-find-links --no-annotate --no-header

.PHONY: help demo dev test test-long soak chaos mutants bench lint lock clean
.DEFAULT_GOAL := help

help:  ## lists the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY)  ## the whole story on a temporary sandbox, ending in the reconciliation table
	$(BIN)/ccs-dacs demo

dev: $(READY)  ## sandbox, inbox, Dagster UI and daemon with the sensors on
	$(BIN)/ccs-dacs dev

test: $(READY)  ## the default test suite
	$(BIN)/pytest -n auto --dist loadfile -m "not long" $(PYTEST_FLAGS)

test-long: $(READY)  ## the rest of it: kills, fencing, chaos, memory, the services in the browser
	$(BIN)/pytest -n auto --dist loadfile -m long $(PYTEST_FLAGS)

soak: $(READY)  ## many random kills, every crash point, many interleavings: SEED=1 KILLS=300
	CCS_DACS_TEST_ALL=1 CCS_DACS_TEST_SEED=$(SEED) CCS_DACS_TEST_STEP_KILLS=$(KILLS) CCS_DACS_TEST_KILLS=10 \
	CCS_DACS_TEST_SECONDS=1800 CCS_DACS_TEST_INTERLEAVINGS=1000 \
	$(BIN)/pytest -o addopts="-q --strict-markers --strict-config" $(SOAKED)

chaos: $(READY)  ## 100,000 acknowledgements in disorder while CCS comes and goes
	CCS_DACS_TEST_CHAOS_ANSWERS=$${CCS_DACS_TEST_CHAOS_ANSWERS:-100000} \
	    $(BIN)/pytest ccs_dacs_pipeline_tests/end_to_end/test_chaos.py $(PYTEST_FLAGS)

mutants: $(VENV)/.mutants  ## changes single places of the code that decides, and counts what the tests notice (docs/mutants.md)
	rm -rf mutants
	CCS_DACS_TEST_ORACLE_RECORDS=400 $(BIN)/mutmut run --max-children $(WORKERS)
	$(BIN)/python -m ccs_dacs_pipeline_tests.mutants

$(VENV)/.mutants: $(READY) requirements/mutants.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/mutants.txt
	touch $@

bench: $(READY)  ## a benchmark: WHAT=initial|memory|latency|delta|acknowledgements|folders (benchmarks/README.md)
	$(BIN)/python -m benchmarks $(WHAT) $(BENCH_FLAGS)

lint: $(READY)  ## style, types, definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/dg check defs

lock:  ## compiles requirements/*.txt anew (needs uv)
	$(COMPILE) --all-extras pyproject.toml -o requirements/runtime.txt
	$(COMPILE) --all-extras pyproject.toml requirements/dev.in -o requirements/dev.txt
	$(COMPILE) requirements/browser.in -o requirements/browser.txt
	$(COMPILE) --constraint requirements/dev.txt requirements/mutants.in -o requirements/mutants.txt
	$(COMPILE) benchmarks/peers.in -o benchmarks/peers.txt

clean:  ## removes what the targets made, but for data
	rm -rf $(VENV) benchmarks/.venv-peers mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis
