# Two commands do everything: `make demo` runs the whole pipeline, `make test` runs the checks. Both make .venv first.
PYTHON ?= python3
UV := .venv/bin/uv
export OMP_NUM_THREADS ?= 1

# uv does not read pip's configuration: a folder of wheels that pip knows is passed on. Without one, uv picks the torch
# build that fits this machine.
export UV_FIND_LINKS ?= $(shell $(PYTHON) -m pip config list 2>/dev/null | sed -n "s/.*find-links='\(.*\)'/\1/p" | head -1 | tr ' ' ',')
TORCH := $(if $(UV_FIND_LINKS),,--torch-backend=auto)

.PHONY: demo test lint pins clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   the whole pipeline on this machine, on a CPU"
	@echo "make test   linters, types, tests"
	@echo "make lint   linters and types only"
	@echo "make pins   compile requirements/*.txt anew"
	@echo "make clean  remove .venv and build/"

.venv/ready: requirements/dev.txt requirements/torch.txt pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv
	$(UV) pip install --quiet --compile-bytecode $(TORCH) -r requirements/dev.txt -r requirements/torch.txt
	$(UV) pip install --quiet --no-deps --editable .
	touch .venv/ready

demo: .venv/ready
	.venv/bin/python -m demo build/demo

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test: lint
	.venv/bin/pytest

COMPILE := $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --overrides requirements/without-torch.txt
pins: .venv/ready
	$(COMPILE) --upgrade --extra judge --extra mine --extra train --extra demo --extra dev -o requirements/dev.txt
	for program in judge mine train; do $(COMPILE) --extra $$program -c requirements/dev.txt -o requirements/$$program.txt; done

clean:
	rm -rf .venv build
