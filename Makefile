# Everything a developer or CI needs; a fresh machine needs Python 3.11, make and g++.
PYTHON ?= python3
JOBS   ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# For the tests of its adapter; its own pins (and CUDA) contradict those of constraints.txt.
FINN   := finn-plus==1.6.1
# What `make bench` compares with; neither is needed to compile anything.
PEERS  := PyHessian==0.1 alkaid==0.8.2

.DEFAULT_GOAL := help
.PHONY: help install demo docs test lint long bench clean

help:  ## what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## create .venv with the tested versions

# Runs again only when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'hqc needs Python 3.11 or newer; try: make PYTHON=python3.11'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs,brevitas,plots,datasets,torchao,iree,estimate,rtl]'
	$(BIN)/python -m pip install --quiet --no-deps '$(FINN)' $(PEERS)
	@touch $@

demo: $(STAMP)  ## sensitivities, bit widths, training and both backends on a toy of LHC jets
	@command -v $${CXX:-g++} >/dev/null || { echo 'the emulation needs g++'; exit 4; }
	$(BIN)/python examples/jets/paper.py --small
	$(BIN)/hqc check build/paper/vitis --samples 1000
	$(BIN)/hqc check build/paper/catapult --samples 1000
	@echo
	@echo 'Projects:  build/paper/vitis/project  build/paper/catapult/project'
	@echo 'Try:       $(BIN)/hqc show build/paper/vitis'

docs: $(STAMP)  ## the documentation site, in build/site
	$(BIN)/python tools/link.py
	$(BIN)/python tools/reference.py --check
	$(BIN)/mkdocs build --strict --quiet

lint: $(STAMP)  ## ruff, mypy, and the contracts of imports
	$(BIN)/python tools/link.py
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.typeroot $(BIN)/lint-imports --cache-dir build/import_linter

test: lint  ## lint, then all tests but the long ones
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

long: $(STAMP)  ## the long tests
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal -m long

bench: $(STAMP)  ## comparisons with other tools, into docs/benchmarks.md: 10 to 20 minutes
	$(BIN)/python tools/bench.py

clean:  ## remove everything made here
	rm -rf $(VENV) .typeroot build dist hqc.egg-info .hypothesis .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
