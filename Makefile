# Everything a newcomer needs: `make demo`, `make test`. Both build .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
HVENV  := .venv-horovod
HSTAMP := $(HVENV)/.installed
IVENV  := .venv-intel
ISTAMP := $(IVENV)/.installed
MVENV  := .venv-mp
MSTAMP := $(MVENV)/.installed

# Open MPI refuses to start for root, and with more ranks than cores, unless told; containers are often both.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe

# Files of tests run side by side, for most of their time goes into starting ranks.
AT_ONCE ?= -n auto --maxprocesses 4 --dist loadfile

.PHONY: help setup demo test test-slow test-all test-slurm horovod test-horovod intel test-intel test-mp lint format clean

help:
	@echo "make demo        set up, then prepare data, pretrain on 2 ranks and write runs/demo/report.html (about 4 minutes)"
	@echo "make test        set up, then run the test suite"
	@echo "make test-slow   the tests that take longest, about a minute and more"
	@echo "make test-all    both of them"
	@echo "make test-slurm  the tests on a real Slurm of two nodes, started here; needs root, and Debian to install it"
	@echo "make horovod     an environment with Horovod on Intel MPI and oneCCL in $(HVENV); the first build takes some minutes"
	@echo "make test-horovod  the tests of Horovod, in that environment"
	@echo "make intel       an environment with Intel's extension for PyTorch in $(IVENV); about 7 GB"
	@echo "make test-intel  the tests of it, and of Triton's kernels in its interpreter, in that environment"
	@echo "make test-mp     the download recipe with the real client of the Materials Project, in an environment of its own"
	@echo "make setup       the environment in .venv alone"
	@echo "make lint        ruff, the type checker and shellcheck"
	@echo "make format      let ruff rewrite the sources"

$(STAMP): pyproject.toml matsci_hpc/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "matsci-hpc needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[local,test,dev]"
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	@bash job_templates/demo.sh $(BIN)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not slurm" $(AT_ONCE)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m "slow and not slurm"

test-all: $(STAMP)
	$(BIN)/python -m pytest -m "not slurm" $(AT_ONCE)

test-slurm: $(STAMP)
	$(BIN)/python -m pytest tests/slurm

$(HSTAMP): pyproject.toml matsci_hpc/__init__.py matsci_hpc/install/horovod.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "matsci-hpc needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 horovod")'
	$(PYTHON) -m venv $(HVENV)
	$(HVENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	$(HVENV)/bin/python -m matsci_hpc.install.horovod
	@touch $@

horovod: $(HSTAMP)

test-horovod: $(HSTAMP)
	$(HVENV)/bin/python -m pytest -m horovod tests/install tests/parallel tests/training

$(ISTAMP): pyproject.toml matsci_hpc/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "the last IPEX is for Python 3.11 to 3.13; name one with: make PYTHON=/path/to/python3.11 intel")'
	$(PYTHON) -m venv $(IVENV)
	# Triton 3.4, which this torch brings: its interpreter wants a numpy that makes numbers of arrays of one.
	$(IVENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[intel,local,test]" "numpy<2.4"
	@touch $@

intel: $(ISTAMP)

test-intel: $(ISTAMP)
	$(IVENV)/bin/python -m pytest -m "ipex or triton" tests/training tests/models

# The client brings a third of a gigabyte of packages that nothing else here needs, and this test needs nothing else.
$(MSTAMP): pyproject.toml
	$(PYTHON) -m venv $(MVENV)
	$(MVENV)/bin/python -m pip install --quiet --disable-pip-version-check pytest \
	  $$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["mp"])')
	@touch $@

test-mp: $(MSTAMP)
	$(MVENV)/bin/python -m pytest --noconftest tests/data_prep/test_mp_client.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run job_templates/demo.sh tests/slurm/install.sh

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(HVENV) $(IVENV) $(MVENV) runs datasets
