# `make demo` and `make test` set everything up themselves; only Python 3.11 or newer, make, git and the package registry are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := uv==0.13.9

ADDRESS ?= 127.0.0.1
PORT ?= 8866
VISITORS ?= 20
SIZE ?= demo

.DEFAULT_GOAL := help
.PHONY: help demo test coverage quick check lab serve docs lock clean

help:
	@echo "make demo   train and compare methods on generated data; ends with runs/demo/report.html"
	@echo "make test   run all tests"
	@echo "make quick  run the fast tests: mathematics, data, evaluation, explanation"
	@echo "make coverage  all tests, with line coverage printed"
	@echo "make check  ruff (format and lint) and types"
	@echo "make lab    open JupyterLab at the tour"
	@echo "make serve  show notebooks/explore.ipynb to a classroom: read-only, with a token, for VISITORS=20 at a time"
	@echo "            (ADDRESS=0.0.0.0 opens it to other machines)"
	@echo "make docs   the notebooks with their outputs, what was measured, every name: build/docs/html/index.html"
	@echo "make lock   renew requirements.lock from pyproject.toml"

demo: $(VENV)/ready
	$(BIN)/fieldmarks run labs/vapnet/table1.yaml labs/fcaenet/table1.yaml labs/pan/table1.yaml labs/pan/table2.yaml \
		--profile demo --workers 2 --out runs/demo --report
	$(BIN)/fieldmarks report runs/demo

# One thread for each of two workers. The order of the files is that of tests/conftest.py: the longest first.
test: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder

coverage: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

quick: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not slow" --numprocesses 2 --dist loadfile

check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# jupyter/ has settings of JupyterLab: a page that is reloaded has what was saved, the bar of a run too.
lab: $(VENV)/ready
	JUPYTER_CONFIG_PATH="$(CURDIR)/jupyter:$$JUPYTER_CONFIG_PATH" $(BIN)/jupyter lab --ip=127.0.0.1 --notebook-dir=notebooks --LabApp.default_url=/lab/tree/tour.ipynb

serve: $(VENV)/ready
	$(BIN)/python -m fieldlab.serve notebooks/explore.ipynb --address $(ADDRESS) --port $(PORT) --visitors $(VISITORS)

# SIZE=smoke is what the tests build; its runs take seconds each.
docs: $(VENV)/ready
	$(BIN)/python docs/build.py --size $(SIZE)

lock: $(VENV)/uv
	$(BIN)/uv pip compile pyproject.toml --extra test --extra docs --universal --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --output-file requirements.lock --quiet

# uv comes from the registry as a Python package, into the environment that it then fills.
$(VENV)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(UV)"
	@touch $@

$(VENV)/ready: requirements.lock pyproject.toml $(VENV)/uv
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV)
