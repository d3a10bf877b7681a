# Everything a person can do here. `make demo` and `make test` do all the set-up by themselves.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
SUITE ?=
# So many processes run tests; those with guests and those of a whole installation are one each.
PROCESSES ?= 4
RELEASES ?= 100
.PHONY: help setup demo test check bench torture lock clean

help: ## show this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## install system packages, the virtual environment and the images
	scripts/setup

demo: setup ## watch two products go from a tag to a signed repository and into a fresh guest
	.venv/bin/cleanroom demo

check: ## formatting, linters, types, import contract
	scripts/setup environment
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: ## everything that CI runs; SUITE=tests/unit for a part, SUITE=tests/acceptance/real for packages of Debian
	scripts/setup packages environment
	$(PYTHON) -m pytest --numprocesses=$(PROCESSES) $(SUITE)

bench: setup ## measure: a table on the terminal, JSON in bench.json
	$(PYTHON) tests/bench $(PART)

torture: setup ## kill, starve, pause and cut what runs, and audit what is left; SEED=N again, RELEASES=N fewer than 100
	$(PYTHON) tests/torture --releases $(RELEASES) $(if $(SEED),--seed $(SEED))

lock: ## pin all dependencies anew (needs uv)
	uv pip compile --quiet --generate-hashes --python-version 3.11 --no-header --extra development pyproject.toml -o requirements.lock

clean: ## remove the virtual environment and caches (not the state)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
