# `make` lists what there is. Everything happens in .venv, .cache and .aiki of this folder.
.DEFAULT_GOAL := help
.PHONY: fuzz help setup demo test check static format simulate chaos soak overload bench bench-figures bench-compare bench-beside bench-check up down topology clean

PYTHON ?= python3
# Two test processes: more would starve the servers that they share.
WORKERS ?= 2

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready .cache/servers/.ready  ## Create .venv and find or install RabbitMQ and MongoDB

.venv/.ready: pyproject.toml scripts/create-venv
	PYTHON=$(PYTHON) scripts/create-venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.cache/servers/.ready: .venv/.ready
	.venv/bin/python -m aiki.testing.servers install
	@mkdir -p $(@D) && touch $@

demo: .venv/.ready  ## Watch a workflow survive the loss of its worker (needs no servers)
	.venv/bin/python examples/demo.py

test: setup  ## Run the whole suite, on real servers
	.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal

check: static  ## Check format, lint, types and layers, and run the tests that need no servers
	.venv/bin/python -m pytest -q -m "not servers" -n $(WORKERS)

static: .venv/.ready  ## Check format, lint, types and layers
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: .venv/.ready  ## Format the code and mend what the linter can
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

simulate: .venv/.ready  ## Break everything, in virtual time (SEEDS=0..10000, SEEDS=fresh:500, RECORD=file FRESH=1)
	.venv/bin/python -m aiki.testing.simulation $(or $(SEEDS),fresh:500) $(if $(RECORD),--record $(RECORD)) $(if $(FRESH),--fresh)

chaos: setup  ## Break real clusters (SEED= FAULTS= RUNS= MINUTES=, or ARGS="--only broker store")
	.venv/bin/python -m aiki.testing.chaos $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) \
		$(if $(RUNS),--runs $(RUNS)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

soak: setup  ## Look for what grows, under load and faults (MINUTES=60 RATE=20 SEED=1), and draw it
	.venv/bin/python -m bench.soak --minutes $(or $(MINUTES),60) --rate $(or $(RATE),20) --seed $(or $(SEED),1) --picture .aiki/soak.png

overload: setup  ## Enqueue far more than one slow worker can do (RUNS=100000)
	.venv/bin/python -m bench.overload --runs $(or $(RUNS),100000)

fuzz: setup  ## Fuzz the decoders, led by coverage, and look closer at all else that comes in (SECONDS=60)
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	.venv/bin/python -m tests.fuzz.guided $(or $(SECONDS),60)
	FUZZ_EXAMPLES=$(or $(EXAMPLES),500) .venv/bin/python -m pytest -q tests/fuzz --timeout 1200

bench: setup  ## Measure how fast it is, on servers of its own (ROWS="throughput latency" for some)
	.venv/bin/python -m bench $(ROWS)

bench-figures: setup  ## Take the figures and pictures of docs/performance.md again (a quiet machine, 20 minutes)
	.venv/bin/python -m bench --rounds 3 --scale $(or $(SCALE),0.4) --json docs/performance/figures.json
	.venv/bin/python -m bench.plots docs/performance --scale $(or $(SCALE),0.4)
	.venv/bin/python -m bench.report docs/performance/figures.json docs/performance.md

bench-compare: setup  ## Measure another revision and this folder in turn (BASE=HEAD~1 ROWS="throughput" ROUNDS=4)
	.venv/bin/python -m bench.compare --rounds $(or $(ROUNDS),4) $(or $(BASE),HEAD) $(ROWS)

bench-beside: setup  ## Measure Aiki and Restate in turn; bench/README.md has what to install (ROWS=latency ROUNDS=5 SERVER=)
	.venv/bin/python -m bench.beside --rounds $(or $(ROUNDS),5) $(if $(SERVER),--server $(SERVER)) $(ROWS)

bench-check: setup  ## Count what a run costs in messages, writes and reads
	.venv/bin/python -m pytest -q tests/bench

up: setup  ## Start a RabbitMQ and a MongoDB to develop with
	@.venv/bin/python -m aiki.testing.servers up

down: .venv/.ready  ## Stop them; their data stays in .aiki/servers
	@.venv/bin/python -m aiki.testing.servers down

topology: .venv/.ready  ## Write broker_topology/definitions.json anew
	.venv/bin/aiki topology export --partitions 8 --output broker_topology/definitions.json

clean:  ## Remove .venv, caches, and the servers with their data
	@if [ -x .venv/bin/python ]; then .venv/bin/python -m aiki.testing.servers down; fi
	rm -rf .venv .cache .aiki .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
