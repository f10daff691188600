# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,$(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.stamp: requirements-dev.lock
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed, found none: install it, or name one with PYTHON=…" >&2; exit 1; }
	@echo "==> Python environment in $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: venv
venv: $(VENV)/.stamp ## Make the Python environment from the lock file

export PYTHONPATH := operator
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: lock
lock: ## Resolve the dependencies anew into the lock files
	@uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 pyproject.toml -o requirements.lock
	@uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 pyproject.toml --group dev -o requirements-dev.lock

.PHONY: generate
generate: venv ## Write the CRD and its reference from the models, and the chart's README from its values
	@$(PY) -m multiarchbuild.api.crd
	@$(PY) -m hack.chart_readme

.PHONY: lint
lint: venv ## Formatting, lint, types, layers, generated files
	@ruff format --check --quiet . && ruff check --quiet .
	@mypy
	@lint-imports --no-cache | tail -n 4

.PHONY: unit
unit: venv ## Unit tests: no cluster
	@pytest -q tests/unit -n 2

.PHONY: check
check: lint unit ## What a change must pass before it is worth a cluster

.PHONY: cluster
cluster: venv ## Bring up the local cluster, or repair it
	@$(PY) -m tests.cluster up

.PHONY: clean-cluster
clean-cluster: venv ## Take the local cluster down and leave nothing behind
	@$(PY) -m tests.cluster down --all

.PHONY: cluster-status
cluster-status: venv ## Say what runs
	@$(PY) -m tests.cluster status

# With KUBECONFIG the demo and the tests use that cluster; see docs/local-cluster.md for what they need to know of it.
TARGET := $(if $(KUBECONFIG),,cluster)

.PHONY: demo
demo: venv $(TARGET) ## The main job: build examples/node for two platforms and show the digest
	@$(PY) -m hack.demo

.PHONY: install
install: venv $(TARGET) ## Build the operator's image and install it by its chart
	@$(PY) -m hack.install

# What takes long and says so comes first; then each test is a line when it ends.
.PHONY: test
test: check install ## Everything: check, then the tests on a real cluster
	@pytest -v -n 2 --dist=loadgroup --durations=20 --ignore=tests/unit tests

.PHONY: bench
bench: venv $(TARGET) ## Raw pods, the operator and docker buildx side by side (docs/benchmarks.md)
	@$(PY) -m benchmarks --rounds 3
