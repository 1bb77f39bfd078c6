# Every target does the set-up it needs; a set-up that is complete costs a fraction of a second.
#
#   BASE=python3.12    the interpreter from which .venv is made; python3 unless given
#   PYTHON=/path       use this interpreter's own environment instead of .venv: what it has is kept,
#                      what is missing is installed into it
#   ARGS="..."         arguments for pytest, the demo or the benchmark

BASE ?= python3
SETUP = $(if $(PYTHON),$(PYTHON) tools/setup_environment.py here,$(BASE) tools/setup_environment.py)
# Asked for when a recipe runs, after the set-up.
PY = $(or $(PYTHON),$(shell $(BASE) tools/setup_environment.py which))
# This checkout's packages come first, whichever checkout is installed in the environment.
RUN = PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PY)

.PHONY: help setup demo test test-slow test-gpu lint format bench

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: ## make .venv with torch, Detectron2 and this package (minutes, several GB, once)
	@$(SETUP)

demo: setup ## run tools/demo.py
	$(RUN) tools/demo.py $(ARGS)

test: setup ## run the tests, in two processes
	$(RUN) -m pytest -n 2 --dist worksteal $(ARGS)

test-slow: setup ## run the tests that train, kill runs or take timings
	$(RUN) -m pytest -m slow $(ARGS)

test-gpu: setup ## run the tests on a GPU, in tests/gpu
	$(RUN) -m pytest -m gpu tests/gpu $(ARGS)

lint: setup ## check style, formatting and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: setup ## format the code and fix what ruff can fix
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

bench: setup ## run tools/benchmark.py
	$(RUN) tools/benchmark.py $(ARGS)
