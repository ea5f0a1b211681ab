# make chat    sets everything up, trains the quickstart assistant (some twenty minutes) and serves it
# make chat MODEL=Qwen/Qwen3-0.6B    sets everything up, downloads that model and serves it
# make test    sets everything up and passes the tests
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup chat test test-slow lint format page clean

help:            ## show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

# Torch by its exact version first: a range would take a newer build, with gigabytes of CUDA on some machines.
$(READY): pyproject.toml constraints.txt build_page.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Chatwheel needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

setup: $(READY)  ## the environment in .venv, the page built

page: setup      ## build the page again if its sources changed
	@$(BIN)/python build_page.py

chat: page       ## train the quickstart assistant, or get MODEL=..., serve it and show the URL
ifdef MODEL
	$(BIN)/chatwheel serve --model $(MODEL) $(ARGS)
else
	$(BIN)/chatwheel quickstart $(ARGS)
endif

test: page       ## the tests (those that take minutes: make test-slow)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile $(ARGS)

test-slow: page  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow --timeout 3600 $(ARGS)

lint: setup      ## formatting, types, the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup    ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove the environment and what was built
	rm -rf $(VENV) src/chatwheel/server/static web/node_modules dist
