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
	@uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 tests/steps/moto-requirements.in -o tests/steps/moto-requirements.lock

.PHONY: generate
generate: venv ## Write the CRD and its reference from the models, the chart's README from its values, GitLab's component, and the page of kubectl mab explain
	@$(PY) -m multiarchbuild.api.crd
	@$(PY) -m hack.chart_readme
	@$(PY) -m hack.gitlab_component
	@cp docs/troubleshooting.md operator/multiarchbuild/cli/troubleshooting.md

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

# What a user installs. DRAFT=1 takes uncommitted changes and the unreleased changes of the changelog; SBOM=0 where the
# generator of SBOMs cannot be pulled; SIGNING_KEY=cosign.key with COSIGN_PASSWORD; REGISTRY_USER and REGISTRY_PASSWORD, or
# REGISTRY_SECRET; DOWNLOADS and OUT: see docs/releases.md.
.PHONY: release
release: venv $(TARGET) ## Images, chart, plugin, wheel: VERSION=0.1.0 REGISTRY=ghcr.io/you (docs/releases.md)
	@test -n "$(VERSION)" -a -n "$(REGISTRY)" || { echo "error: name VERSION=… and REGISTRY=…" >&2; exit 2; }
	@$(PY) -m hack.release --version "$(VERSION)" --registry "$(REGISTRY)" $(if $(OUT),--out "$(OUT)") \
		$(if $(filter 1,$(DRAFT)),--draft) $(if $(filter 0,$(SBOM)),--no-sbom) $(if $(filter 1,$(NO_CACHE)),--no-cache) \
		$(if $(DOWNLOADS),--downloads "$(DOWNLOADS)") \
		$(if $(SIGNING_KEY),--signing-key "$(SIGNING_KEY)") $(if $(REGISTRY_SECRET),--registry-secret "$(REGISTRY_SECRET)")

.PHONY: publish
publish: ## Make the files of a release that `make release` has written downloadable (needs gh): VERSION=0.1.0
	@gh release create "v$(VERSION)" --verify-tag --title "v$(VERSION)" \
		--notes-file "$(or $(OUT),dist/release-$(VERSION))/RELEASE_NOTES.md" "$(or $(OUT),dist/release-$(VERSION))"/*

# Programs that only tests need. Compiled inside of a test, they would count in its time.
TEST_PROGRAMS := actionlint promcheck sigcheck fulcio timestamps kstatus kustomize-controller argocd-lua local-path-provisioner kueue
.PHONY: test-programs
test-programs: venv
	@$(PY) -m tests.cluster build $(addprefix --with ,$(TEST_PROGRAMS))
	@$(PY) -m tests.support.moto
	@$(PY) -m tests.ui.chromium

.PHONY: pictures
pictures: venv ## The pictures in docs/images, made anew by a real browser and a real terminal
	@$(PY) -m tests.ui.terminal docs/images
	@$(PY) -m tests.ui.pictures docs/images

# What takes long and says so comes first; then each test is a line when it ends.
# Whether a change may be merged must not depend on chance: examples are drawn anew by `make check`, here they are the same.
test: export HYPOTHESIS_PROFILE = repeatable
.PHONY: test
test: check install test-programs ## Everything: check, then the tests on a real cluster; RERUNS=0 takes no second try
	@pytest -v -n 2 --dist=loadgroup --durations=20 -raR --reruns 1 --reruns-delay 5 --max-suite-reruns $(or $(RERUNS),4) \
		--rerun-show-tracebacks --ignore=tests/unit tests

# Not part of `make test`: the node is emulated, and takes its time. Whatever happens, it goes at the end, and its logs stay.
# It joins the local cluster: where KUBECONFIG names another, nothing is installed there.
.PHONY: test-apparmor
test-apparmor: venv ## Builds confined by AppArmor, on a virtual node whose kernel has it (docs/local-cluster.md)
	@$(PY) -m tests.cluster.vm check
	@$(MAKE) --no-print-directory cluster install
	@trap '$(PY) -m tests.cluster.vm down' EXIT; \
		$(PY) -m tests.cluster.vm up && pytest -v --timeout=3600 tests/e2e/test_baseline.py

# After a new version of BuildKit: the texts that its failures are recognised by. CASES="name …" records only those.
.PHONY: record-fixtures
record-fixtures: venv ## Record what BuildKit says of builds that fail (tests/steps/record.py)
	@$(PY) -m tests.steps.record $(CASES)

.PHONY: test-shuffled
test-shuffled: check install test-programs ## The tests on a real cluster in random order; ORDER=… repeats one
	@pytest -v -n 2 --dist=loadgroup -p randomly $(if $(ORDER),--randomly-seed=$(ORDER)) --ignore=tests/unit tests

.PHONY: bench
bench: venv $(TARGET) ## Raw pods, the operator and docker buildx side by side (docs/benchmarks.md)
	@$(PY) -m benchmarks --rounds $(or $(ROUNDS),5) --write

# What goes wrong is chosen by SEED; PLAN=<name> replays one plan of a report. The control plane is brought up and taken down.
SEED ?= 1
PLANS ?= 1200
MUTATIONS ?= 10000

.PHONY: load
load: venv ## 1,000 builds at once, 10,000 at rest, large ones, many nodes: what the operator takes (docs/benchmarks.md)
	@$(PY) -m tests.load --write $(if $(BUILDS),--builds $(BUILDS))

.PHONY: faults
faults: venv ## 1,200 runs in which one thing or a few go wrong between the operator and the API server (docs/reliability.md)
	@$(PY) -m tests.faults.rig.campaign --seed $(SEED) --plans $(PLANS) $(if $(PLAN),--plan $(PLAN))

.PHONY: mutate
mutate: venv ## 10,000 wrong, odd and extreme builds (docs/reliability.md)
	@$(PY) -m tests.faults.rig.mutations --seed $(SEED) --count $(MUTATIONS)

.PHONY: soak
soak: install ## Builds on the local cluster while everything around them is killed: BUILDS=200, SEED (docs/reliability.md)
	@$(PY) -m tests.faults.soak --builds $(or $(BUILDS),200) --seed $(SEED) --write
