# Everything a developer or a CI does here. Paths are relative, so a folder with a space in its name is fine.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check
SOURCES := crm_pipeline crm_pipeline_tests tools benchmarks

# What Python has compiled is kept, whatever the shell says: each of some hundred processes of the tests, and
# each of Dagster's, would compile all of ours anew.
unexport PYTHONDONTWRITEBYTECODE

# What a caller may add, as in: make test ARGS="-k merge"
ARGS ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: $(VENV)/.installed ## Prepare .venv with what the pipeline needs, once

.PHONY: demo
demo: setup ## Try it all on made-up contacts until Ctrl-C; ONCE=1 stops after the summary
	@$(RUN) crm_pipeline.cli.main demo $(if $(filter 1 true yes,$(ONCE)),--once) $(ARGS)

.PHONY: dev
dev: setup ## Run the pipeline and its UI with your own .env
	@$(RUN) crm_pipeline.cli.main dev $(ARGS)

.PHONY: up
up: setup ## Run everything as processes of their own, and start again what dies
	@$(RUN) crm_pipeline.cli.main up $(ARGS)

# Four even on two cores: tests wait for processes of their own, for clocks and for the disk.
.PHONY: test
test: $(VENV)/.installed-dev ## Run the whole test suite, PostgreSQL included; ARGS go to pytest
	@$(RUN) pytest --numprocesses=4 --dist=worksteal $(ARGS)

.PHONY: test-deep
test-deep: $(VENV)/.installed-dev ## The convergence proof at length, and the bugs it must catch (an hour or more)
	@$(RUN) pytest --numprocesses=auto --maxprocesses=4 --timeout=0 -m deep $(ARGS) crm_pipeline_tests
	@$(RUN) pytest --numprocesses=auto --maxprocesses=4 --timeout=0 --hypothesis-profile=deep $(ARGS) \
		crm_pipeline_tests/sync/test_converges.py crm_pipeline_tests/unit

.PHONY: screenshots
screenshots: $(VENV)/.installed-dev ## Take the pictures of the docs anew, from the demo, with Chromium
	@$(VENV)/bin/python tools/screenshots.py $(ARGS)

# Outside .venv and the lock: the tool is needed here only, and not by the gate.
MUTATION := var/mutation/tools

.PHONY: mutation
mutation: $(VENV)/.installed-dev ## Change the merge in every small way: a test must notice each (an hour)
	@$(INSTALL) --no-deps --upgrade --target $(MUTATION) mutmut==3.8.1 libcst==1.9.0
	@PYTHONPATH=$(MUTATION) $(VENV)/bin/python tools/mutate.py $(ARGS)

# dlt and drt, to compare with, in an environment of their own.
PEERS := var/bench/peers

.PHONY: bench
bench: $(VENV)/.installed-dev $(PEERS)/.installed ## Measure against dlt, drt and bare programs (a quarter of an hour)
	@PYTHONPATH=. $(VENV)/bin/python benchmarks/all.py $(ARGS)

$(PEERS)/.installed: benchmarks/peers.txt
	@$(PYTHON) -m venv --clear $(PEERS)
	@$(PEERS)/bin/pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	@touch $@

CHECKS := check-format check-lint check-types check-imports check-dead-code check-dependencies check-lock

.PHONY: check
check: $(VENV)/.installed-dev ## Format, lint, types, imports, dead code, dependencies: all findings at once
	@$(MAKE) --no-print-directory --keep-going $(CHECKS)

.PHONY: $(CHECKS)
check-format:
	@$(RUN) ruff format --check --quiet $(SOURCES) || { echo 'Not formatted: run make format'; exit 1; }
check-lint:
	@$(RUN) ruff check --quiet $(SOURCES)
check-types:
	@$(RUN) mypy --no-error-summary
check-imports:
	@$(VENV)/bin/lint-imports --no-logo
check-dead-code:
	@$(RUN) vulture
check-dependencies:
	@$(RUN) deptry .
check-lock:
	@$(VENV)/bin/python tools/lock.py --check

.PHONY: format
format: $(VENV)/.installed-dev ## Rewrite the code in the one format, with the safe fixes of the linter
	@$(RUN) ruff check --fix --quiet $(SOURCES); $(RUN) ruff format $(SOURCES)

.PHONY: lock
lock: $(VENV)/.installed-dev ## Resolve the dependencies anew and rewrite the lock files; ARGS go to uv
	@$(VENV)/bin/python tools/lock.py $(ARGS)

.PHONY: clean
clean: ## Remove .venv, builds and caches; your data under var/ and your .env stay
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(SOURCES) -type d -name __pycache__ -prune -exec rm -rf {} +

# A stamp is touched only when its step succeeded, so a broken install is repeated and a good one is not.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@echo 'Creating $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The lock comes first and complete; the package itself is built from what the lock installed.
$(VENV)/.installed: $(VENV)/.created requirements.lock pyproject.toml
	@echo 'Installing the locked dependencies'
	@$(INSTALL) --require-hashes --no-deps -r requirements.lock
	@$(INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	@echo 'Installing the locked development tools'
	@$(INSTALL) --require-hashes --no-deps -r requirements-dev.lock
	@touch $@
