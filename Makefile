# Everything a person can do here. `make demo` and `make test` do all the set-up by themselves.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
SUITE ?=
# So many processes run tests; those with guests and those of a whole installation are one each.
PROCESSES ?= 5
RELEASES ?= 100
.PHONY: help setup demo test compose-test check bench torture manual lock licenses sbom audit fuzz clean

help: ## show this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

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

test: ## everything that CI runs but compose-test; SUITE=tests/unit for a part, SUITE=tests/acceptance/real for packages of Debian
	scripts/setup packages environment
	$(PYTHON) -m pytest --numprocesses=$(PROCESSES) $(SUITE)

compose-test: ## docker-compose.yml from an empty engine to an installed package; needs root, and two to five minutes
	scripts/setup packages environment containers
	$(PYTHON) -m pytest -n0 tests/acceptance/compose

bench: setup ## measure: a table on the terminal, JSON in bench.json
	$(PYTHON) tests/bench $(PART)

torture: setup ## kill, starve, pause and cut what runs, and audit what is left; SEED=N again, RELEASES=N fewer than 100
	$(PYTHON) tests/torture --releases $(RELEASES) $(if $(SEED),--seed $(SEED))

manual: ## write manual pages and completion for bash, zsh and fish into build/share
	scripts/setup environment
	$(PYTHON) -m cleanroom_master.cli.manual build/share

LOCKED := --quiet --generate-hashes --python-version 3.11 --no-header --constraint requirements.lock
lock: ## pin all dependencies anew (needs uv)
	uv pip compile --quiet --generate-hashes --python-version 3.11 --no-header --extra development pyproject.toml -o requirements.lock
	uv pip compile $(LOCKED) pyproject.toml -o debian/runtime.lock
	uv pip compile $(LOCKED) --group package -o debian/tools.lock

fuzz: ## feed readers of hostile input for as long as EXAMPLES=30000 takes; a failure names its bytes
	EXAMPLES=$(or $(EXAMPLES),30000) $(PYTHON) -m pytest --hypothesis-profile=fuzz --timeout=0 --numprocesses=$(PROCESSES) tests/unit/fuzz

licenses: ## write LICENSES.md: the licences of all that is locked
	$(PYTHON) scripts/supply_chain.py licenses

sbom: ## write sbom.json, a bill of materials of Cleanroom itself (CycloneDX)
	$(PYTHON) scripts/supply_chain.py sbom sbom.json

audit: ## look for known advisories about what is locked; ADVISORIES=FILE (of OSV) needs no network
	$(PYTHON) scripts/supply_chain.py audit $(if $(ADVISORIES),--advisories $(ADVISORIES))

clean: ## remove the virtual environment and caches (not the state)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
