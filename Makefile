# Everything that a fresh machine needs is set up by the targets themselves, below .venv and .run.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
UV := .run/uv/bin/uv
VENV := .venv
MLSERVER := .run/venvs/mlserver
MLSERVER_MORE := .run/venvs/mlserver-more
BENCH := .run/venvs/bench
FUZZ := .run/venvs/fuzz
BIN := $(VENV)/bin
COVER := --cov=mesh --cov=router --cov-branch --cov-report=
PB := mesh/wire/pb

# Where `make run` keeps what survives a restart.
STATE ?= .run/state

.PHONY: help setup run test bench fuzz simulate soak bench-scale bench-sizes test-model-types lint proto proto-check lock clean kube-packages kube-tools kube-up kube-down test-kube test-real

help:  ## Show what can be made.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

$(UV):
	$(PYTHON) -m venv .run/uv
	.run/uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'

$(VENV)/.done: $(UV) requirements/dev.lock pyproject.toml
	test -x $(BIN)/python || $(UV) venv --quiet --python '>=3.11,<3.14' $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python requirements/dev.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

$(MLSERVER)/.done: $(UV) requirements/mlserver.lock
	test -x $(MLSERVER)/bin/python || $(UV) venv --quiet --python '>=3.11,<3.13' $(MLSERVER)
	$(UV) pip sync --quiet --python $(MLSERVER)/bin/python requirements/mlserver.lock
	touch $@

setup: $(VENV)/.done $(MLSERVER)/.done  ## Install the environments of wml-serving and of MLServer.

run: setup  ## Serve the walk-through on this machine: inference on port 8033.
	exec $(BIN)/wml-serving quickstart --runtime-bin $(MLSERVER)/bin --state $(STATE) -f deploy/example-predictors

lint: $(VENV)/.done proto-check  ## Run the linters, the type check and the import contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint deploy/images/Dockerfile deploy/images/Dockerfile.mlserver

# Tests on Kubernetes mostly wait, so they run beside the others; what they said comes after.
test: setup lint kube-packages kube-tools  ## Set up, lint, and run every test.
	mkdir -p build; rm -f .coverage .coverage.* build/test-*.log
	COVERAGE_FILE=.coverage.kube WML_KUBE=wanted nice -n 5 $(BIN)/pytest tests/kube $(COVER) >build/test-kube.log 2>&1 & kube=$$!; \
	trap 'kill $$kube 2>/dev/null || true' EXIT; status=0; \
	COVERAGE_FILE=.coverage.others $(BIN)/pytest --ignore=tests/kube $(COVER) || status=$$?; \
	wait $$kube || status=$$?; cat build/test-kube.log; exit $$status
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --fail-under=90
	$(BIN)/coverage report --skip-covered --include='mesh/core/*,mesh/wire/*' --fail-under=100

# Twelve minutes on two cores, once; where nothing can be built, it says so and goes on.
kube-tools: $(VENV)/.done  ## Build Kubernetes, etcd and CoreDNS into a cache.
	$(BIN)/python -m tests.support.kube_tools

# containerd, runc and what else a node needs, by apt-get; where that cannot be, it says so and goes on.
kube-packages: $(VENV)/.done  ## Install what a node needs of the system (as root).
	$(BIN)/python -m tests.support.kube_packages

kube-up: setup kube-packages kube-tools  ## Start a cluster in a box on this machine, with the images of this checkout.
	$(BIN)/python -m tests.support.kube_cluster up

kube-down: $(VENV)/.done  ## End the cluster in a box, and take away all of it.
	$(BIN)/python -m tests.support.kube_cluster down

test-kube: export WML_KUBE = required
test-kube: setup kube-packages kube-tools  ## Run the tests on Kubernetes; they fail where it cannot be had.
	$(BIN)/pytest tests/kube

$(MLSERVER_MORE)/.done: $(UV) requirements/mlserver-more.lock
	test -x $(MLSERVER_MORE)/bin/python || $(UV) venv --quiet --python '>=3.11,<3.13' $(MLSERVER_MORE)
	$(UV) pip sync --quiet --python $(MLSERVER_MORE)/bin/python requirements/mlserver-more.lock
	touch $@

test-model-types: $(VENV)/.done $(MLSERVER_MORE)/.done  ## Test every model type, with MLflow and CatBoost, which the shipped runtime is without.
	$(BIN)/pytest tests/contract/test_mlserver_types.py

# Half an hour, and longer where the machine has much else to do.
test-real: setup  ## Run the scenarios of a mesh with real MLServers beside the nodes.
	$(BIN)/pytest tests/e2e/test_mesh_*.py --real --timeout 600 -rs

bench-sizes: $(VENV)/.done $(MLSERVER_MORE)/.done  ## Measure what models take of memory against the estimate: build/sizes.json.
	$(BIN)/python -m tests.bench.sizes --venv $(MLSERVER_MORE)

$(BENCH)/.done: $(UV) tests/bench/requirements.txt
	test -x $(BENCH)/bin/python || $(UV) venv --quiet --python '>=3.11,<3.14' $(BENCH)
	$(UV) pip sync --quiet --python $(BENCH)/bin/python tests/bench/requirements.txt
	touch $@

fuzz: $(VENV)/.done $(UV)  ## Fuzz what reads the bytes of requests for SECONDS seconds (180).
	test -x $(FUZZ)/bin/python || $(UV) venv --quiet --python '>=3.11,<3.13' $(FUZZ)
	$(UV) pip install --quiet --python $(FUZZ)/bin/python 'atheris>=3.0' 'protobuf>=7.35'
	mkdir -p .run/fuzz
	PYTHONPATH=. $(FUZZ)/bin/python -m tests.bench.fuzz_infer .run/fuzz -max_total_time=$(or $(SECONDS),180) -max_len=300

# QUICK=1: less than a minute, and rougher.
bench: $(VENV)/.done $(BENCH)/.done  ## Measure against direct calls, Envoy and a bare proxy: build/bench.json.
	$(BIN)/python -m tests.bench $(if $(QUICK),--quick)

# COMPARE=1: what each rule and threshold is worth, on a smaller mesh. ARGS: see --help.
simulate: $(VENV)/.done  ## Simulate a day of a mesh of 1,000 nodes and 1,000,000 models.
	$(BIN)/python -m tests.bench.$(if $(COMPARE),simulate_compare,simulate) $(ARGS)

# The same seed, the same faults; SECONDS may be hours.
SECONDS ?= 60
SEED ?= 1
soak: $(VENV)/.done  ## Break a mesh under traffic in every way, SECONDS=60 long, as SEED=1 says.
	$(BIN)/python -m tests.bench.soak --seconds $(SECONDS) --seed $(SEED)

bench-scale: $(VENV)/.done  ## Measure a node over 100,000 Predictors in etcd: start, memory, changes.
	$(BIN)/python -m tests.bench.scale

proto: $(VENV)/.done  ## Generate mesh/wire/pb from proto/.
	$(BIN)/python -m tests.support.protogen $(PB)

proto-check: $(VENV)/.done
	$(BIN)/python -m tests.support.protogen --check $(PB)

lock: $(UV)  ## Resolve the requirements anew.
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras --group dev --group local \
	  --output-file requirements/dev.lock pyproject.toml
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras \
	  --constraint requirements/dev.lock --output-file requirements/main.lock pyproject.toml
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --override requirements/mlserver-overrides.txt --output-file requirements/mlserver.lock requirements/mlserver.in
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --override requirements/mlserver-overrides.txt --constraint requirements/mlserver.lock \
	  --output-file requirements/mlserver-more.lock requirements/mlserver-more.in

clean:  ## Remove what was built and installed here.
	rm -rf .run .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
