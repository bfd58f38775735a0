# `make demo` and `make test` need Python >= 3.11 and nothing else; both make .venv first.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Compiled bytecode halves the start of TensorFlow: an inherited "don't write it" is undone here.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: .venv/.installed ## make .venv with the locked dependencies

.venv/.installed: requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "downtick needs Python 3.11, 3.12 or 3.13; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements-uv.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --require-hashes --strict requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## Kafka, Redis, the service and a replay of real prices, in one terminal
	@$(BIN)/downtick demo

test: setup ## every test: some fifteen minutes on two cores
	$(BIN)/python -m pytest

check: setup ## format, lint, strict types, borders between packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy consumer model state
	$(BIN)/lint-imports

format: setup ## put every file into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## speed against a bare loop and the naive ones, latency, memory: about half an hour, nothing beside it
	$(BIN)/python -m bench.throughput

quality: quality-acl18 quality-regime quality-forecast quality-synthetic ## how good the model is, and rivals: about an hour

quality-%: setup
	$(BIN)/python -m bench.quality $*

streaming: setup ## training on more windows than memory holds: about ten minutes
	$(BIN)/python -m bench.streaming

swaps: setup ## fifty model changes under load: memory, and the stream beside them; 13 minutes, nothing beside it; needs java and mvn
	$(BIN)/python -m bench.swaps

kills: setup ## a hundred random kills on Apache Kafka under load: about 16 minutes; needs java and mvn
	$(BIN)/python -m tests.faults.campaign --kills 100

bundle: setup ## train the bundle that ships, from the prices in bench/data
	$(BIN)/downtick train bench/data/acl18/prices.csv.gz --label regime --validation-from 2015-01-01 \
	  --test-from 2016-01-01 --out model/bundles/default

dashboards: setup ## write deploy/grafana/dashboards/*.json
	$(BIN)/python -m deploy.grafana.dashboards

metrics: setup ## write docs/metrics.md from what consumer/metrics.py declares
	$(BIN)/python -m deploy.metrics_reference

lock: ## renew the locked dependencies, hashes included
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' \
	  --extra sandbox --extra training --group dev --group deploy --group build --upgrade pyproject.toml --output-file requirements.lock
	echo uv | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' \
	  --upgrade - --output-file requirements-uv.lock
	@# Of the image: the same versions without extras, and without what TensorFlow asks for to be built upon.
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' \
	  --constraint requirements.lock --no-emit-package libclang --no-emit-package setuptools --no-emit-package wheel pyproject.toml --output-file deploy/requirements.lock

image-test: setup ## build deploy/Dockerfile on a bare Debian and run the service in it: root, podman, debootstrap; five minutes
	$(BIN)/python -m pytest tests/integration/test_image.py --image --capture=no -v

.PHONY: help setup demo test check format bench quality streaming swaps kills bundle dashboards metrics lock image-test
