# Everything a newcomer needs: `make demo`, `make test`. Both build .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Open MPI refuses to start for root, and with more ranks than cores, unless told; containers are often both.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe

.PHONY: help setup demo test test-all lint format clean

help:
	@echo "make demo      set up, then prepare data, pretrain on 2 ranks and write runs/demo/report.html (about 4 minutes)"
	@echo "make test      set up, then run the test suite"
	@echo "make test-all  the same with the tests marked slow"
	@echo "make setup     the environment in .venv alone"
	@echo "make lint      ruff, the type checker and shellcheck"
	@echo "make format    let ruff rewrite the sources"

$(STAMP): pyproject.toml matsci_hpc/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "matsci-hpc needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[local,test,dev]"
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	@bash job_templates/demo.sh $(BIN)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"

test-all: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run job_templates/demo.sh

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs datasets
