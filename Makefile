# Everything from a fresh clone, with Python 3.11, 3.12 or 3.13 and make: each target sets up .venv first, if need be.
# Settings: PYTHON=/path/to/python3   ARGS="more arguments for the command"   UPGRADE=--upgrade (for lock)

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

# The first of these that the tests have seen (as requires-python says); only looked for when .venv has to be made.
PYTHON ?=
CANDIDATES := python3 python3.13 python3.12 python3.11
SUITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
RUN := .venv/bin/python
# Recordings of the real OpenAI with their harness; they are not part of this project.
REPLAY ?= ../shared/replay
# Nothing of ours may depend on the virtual environment or the folders that somebody else's Python uses.
unexport PYTHONHOME
unexport VIRTUAL_ENV
# Tests and benches start hundreds of processes: each would compile the whole gateway anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo up test test-faults test-books chaos attack test-clients replay check check-deploy bench bench-scale bench-drain bench-outbox bench-year package lock sbom audit-deps clean

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: .venv/.ready ## one run through everything on the sandbox: calls, ledger rows, cost, Stripe events
	@$(RUN) -m gateway demo $(ARGS)

up: .venv/.ready ## the gateway with its own PostgreSQL and Valkey, and stand-ins for the vendors; Ctrl-C stops it
	@$(RUN) -m gateway up $(ARGS)

test: .venv/.ready ## every test but the long ones and the rules of this repository, which are part of check
	@$(RUN) -m pytest -n 3 --dist loadfile -m "not long" --ignore=tests/house_rules $(ARGS)

test-faults: .venv/.ready ## the long ones: whole gateways that lose a process, a disk, a host, a store
	@$(RUN) -m pytest -n 2 -m long $(ARGS)

test-books: .venv/.ready ## ninety days of usage, payers, outages and Stripe's months, from many seeds: make test-books SEEDS=300
	@BOOKS_SEEDS=$(or $(SEEDS),300) $(RUN) -m pytest -q -n 2 -m long tests/billing/test_books_model.py $(ARGS)

chaos: .venv/.ready ## live load while a seeded killer takes processes and stores away: make chaos SEED=1 FOR=300 HOSTS=2
	@$(RUN) -m tests.chaos $(if $(SEED),--seed $(SEED)) --for $(or $(FOR),60) --hosts $(or $(HOSTS),1) $(ARGS)

attack: .venv/.ready ## every known attack against a running gateway, a line each: what it tries and what keeps it out
	@$(RUN) -m tests.attack $(ARGS)

test-clients: .venv/.ready ## the clients of docs/clients.md against the gateway (needs npm; ARGS="--only langchain")
	@$(RUN) -m tests.clients $(ARGS)

replay: .venv/.ready ## recorded calls of the real OpenAI through the gateway: make replay REPLAY=/folder/of/recordings ARGS=--restart
	@$(RUN) -m tests.replay "$(REPLAY)" $(ARGS)

check: .venv/.ready ## lint, format, types, imports and the rules of this repository
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(RUN) .venv/bin/lint-imports
	@$(RUN) -m pytest -q -n 2 tests/house_rules

check-deploy: .venv/.ready ## deploy/ before helm, Kubernetes' schema, promtool, nginx, Caddy, systemd (fetches what it can)
	@$(RUN) -m tests.deploy $(ARGS)

bench: .venv/.ready ## the gateway against a bare forwarder: CPU per call and the ratios
	@$(RUN) -m bench $(ARGS)

bench-scale: .venv/.ready ## calls per second with two proxies against one
	@$(RUN) -m bench.scale $(ARGS)

bench-drain: .venv/.ready ## how fast a backlog becomes rows, after an outage of Redis or PostgreSQL
	@$(RUN) -m bench.drain $(ARGS)

bench-outbox: .venv/.ready ## what 300,000 events for Stripe cost PostgreSQL while they wait, go out, and afterwards
	@$(RUN) -m bench.outbox $(ARGS)

bench-year: .venv/.ready ## what a row costs PostgreSQL with a year of rows in the ledger, against an empty one; ARGS="--rows 500000"
	@$(RUN) -m bench.year $(ARGS)

package: .venv/.ready ## build the wheel, install it into an empty environment outside the clone, run the demo there
	@$(RUN) .ci/package.py

lock: .venv/.ready ## write requirements.lock anew from pyproject.toml (UPGRADE=--upgrade for the newest of everything)
	@$(RUN) -m uv pip compile --quiet --no-config --universal --python-version 3.11 --no-header --no-annotate \
		--generate-hashes --extra embedded --extra otel --extra dev $(UPGRADE) --output-file requirements.lock pyproject.toml

	@$(RUN) -m uv pip compile --quiet --no-config --universal --python-version 3.11 --no-header --no-annotate \
		--generate-hashes $(UPGRADE) --output-file .ci/audit.lock .ci/audit.in

	@$(RUN) -m uv pip compile --quiet --no-config --universal --python-version 3.11 --no-header --no-annotate \
		--generate-hashes $(UPGRADE) --output-file .ci/deploy.lock .ci/deploy.in

sbom: .venv/.ready ## what the lock consists of, as a CycloneDX file: dist/sbom.cdx.json
	@$(RUN) .ci/audit.py sbom

audit-deps: .venv/.ready ## known vulnerabilities of what the lock pins (needs a network)
	@$(RUN) .ci/audit.py deps

clean: ## remove .venv and the caches; the data in .gateway stay
	rm -rf .venv .import_linter_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python that has since been removed leaves a dangling link.
ifeq ($(realpath $(RUN)),)
.PHONY: .venv/.ready
endif
.venv/.ready: requirements.lock .ci/install.py
	@for python in $(or $(PYTHON),$(CANDIDATES)); do \
		if "$$python" -c '$(SUITS)' 2>/dev/null; then exec "$$python" .ci/install.py; fi; \
	done; \
	echo "Python 3.11, 3.12 or 3.13 is needed (not 3.14 yet): none of '$(or $(PYTHON),$(CANDIDATES))' is." >&2; \
	echo "Install one, or name it: make PYTHON=/path/to/python3.13" >&2; exit 1
