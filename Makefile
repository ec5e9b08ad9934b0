# `make run` starts a control plane, `make test` proves it. Both set up what they need first.
SHELL := /bin/bash
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
FUZZ_SECONDS ?= 300
.DEFAULT_GOAL := help
.PHONY: help run test soak fuzz support-table lint types proto proto-check servers databases docker kube clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: .venv/byre ## run a control plane in the foreground
	@.venv/bin/byre controller --single

test: lint types proto-check servers databases docker kube ## everything a commit has to pass
	$(PYTEST) -n 2 --dist loadgroup -m "not soak"

soak: servers databases docker kube ## what takes too long for every commit
	HYPOTHESIS_PROFILE=soak $(PYTEST) -n 2 --dist loadgroup -m soak --timeout 3600

fuzz: .venv/fuzz ## fuzz what parses octets of clients, guided by coverage, FUZZ_SECONDS each
	for target in frames hpack shapes; do \
		$(PY) -m tests.fuzz.run $$target -max_total_time=$(FUZZ_SECONDS) || exit; \
	done

support-table: servers databases ## run contract/api and write SUPPORT.md from its results
	@mkdir -p build && rm -f build/support.*
	BYRE_TEST_SUPPORT=build/support $(PYTEST) -n 2 --dist loadgroup -m "not soak" tests/contract/api
	$(PY) -m tests.support.support_table build/support.*

lint: .venv/dev ## format, style, import contracts
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/lint-imports

types: .venv/dev ## mypy --strict
	.venv/bin/mypy

proto: .venv/dev ## generate datastore/etcdpb from proto/
	PYTHON=$(PY) proto/generate.sh

proto-check: .venv/dev ## fail when datastore/etcdpb is not what proto/ generates
	rm -rf build/proto && PYTHON=$(PY) proto/generate.sh build/proto
	diff -ru --exclude=__pycache__ --exclude=__init__.py build/proto/datastore/etcdpb datastore/etcdpb

servers: .venv/dev ## build etcd, etcdctl, kine and the checkers for the tests
	$(PY) -m tests.tools.build >/dev/null

databases: .venv/dev ## install the database servers of the tests (as root, on Debian)
	$(PY) -m tests.tools.databases >/dev/null

docker: .venv/dev ## find a Docker engine, or install one for the tests (as root, on Debian)
	$(PY) -m tests.tools.docker >/dev/null

kube: .venv/dev ## obtain the Kubernetes binaries
	$(PY) -m tests.tools.kube

clean: ## remove what the other targets left in the checkout
	rm -rf .venv build dist .hypothesis .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find datastore supervisor tests -name __pycache__ -prune -exec rm -rf {} +

# A new stamp means: the project as pyproject.toml has it is installed.
.venv/byre: pyproject.toml .ci/venv
	@echo "installing byre into .venv (once; a minute or two)"
	@.ci/venv && $(PY) -m pip install -q -e . && touch $@

.venv/dev: .venv/byre
	$(PY) -m pip install -q --group dev && touch $@

.venv/fuzz: .venv/dev
	$(PY) -m pip install -q --group fuzz && touch $@
