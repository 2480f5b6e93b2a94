# `make` shows this help. Everything is built inside .venv; nothing outside this directory changes.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Tests start some hundred processes of ours: each would compile our sources anew.
unexport PYTHONDONTWRITEBYTECODE
.DELETE_ON_ERROR:

PYTHON ?= python3
# Tests at once: the end-to-end ones, which answer for deadlines, beside one other on two cores.
WORKERS ?= 2
# A fuzz target runs at least this long; signatures run until 100,000 batches were tried as well.
SECONDS ?= 60
SEED ?= 1
# Worlds that `make soak-sim` plays with each number of validators.
SEEDS ?= 0:100
# How many operations the ledger and its specification are compared on by `make soak`.
OPERATIONS ?= 100000
VENV := .venv
BIN := $(VENV)/bin
SOURCES := chain consensus ext runtime
NATIVE := $(wildcard ext/*.pyx ext/*.pxd ext/native/*.c ext/native/*.h)
SCHEMAS := $(wildcard proto/assay/v1/*.proto)
# Where `make run` puts its network; made anew each time.
RUN_HOME := .devnet
# A stamp is written when its step is done; a step runs again when what it depends on is newer.
INSTALLED := $(VENV)/.installed
BUILT := $(VENV)/.built
# The explorer's page, which nodes serve at /.
PAGE := chain/explorer/page/index.html
PAGE_PACKAGES := web/node_modules/.package-lock.json
PAGE_SOURCES := $(shell find web/src -type f ! -name schema.json) $(wildcard web/*.html web/*.json web/*.ts)
# What `chain.explorer.schema` reads the formats of receipts from.
FORMATS := $(wildcard chain/explorer/schema.py chain/genesis.py chain/parameters.py chain/receipt*.py chain/records.py consensus/values.py)
# Whether npm is there, and new enough for the page's tools.
NPM = $(shell command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && echo npm)

# vulture ends with 3 when it found something. Fields and arguments are left out: values are encoded by
# their annotations, so a field may be read by nobody by name, and ruff knows unused variables better.
define DEAD_CODE
found=$$($(BIN)/vulture || test $$? -eq 3); \
found=$$(grep -v -E 'unused (variable|attribute) ' <<< "$$found" || true); \
if test -n "$$found"; then echo "$$found"; exit 1; else echo "  none"; fi
endef

.PHONY: help build web run check format test fuzz soak soak-sim soak-faults bench docs clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml
	@echo "==> environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "==> installing dependencies and building (a few minutes the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --editable '.[dev,docs]'
	@touch $@ $(BUILT)

$(BUILT): setup.py $(NATIVE) $(SCHEMAS)
	@echo "==> native modules and schema stubs"
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

# Two steps, because the first also does the second's work: an editable install builds in place.
build: ## Make the environment, the native modules and the schema stubs
	@$(MAKE) --no-print-directory $(INSTALLED)
	@$(MAKE) --no-print-directory $(BUILT)
	@if test -n "$(NPM)"; then $(MAKE) --no-print-directory $(PAGE); \
	else echo "==> no npm (Node.js 20 or newer): nodes serve no explorer page"; fi

web: ## Build the explorer's page again (needs npm)
	@rm -f $(PAGE)
	@$(MAKE) --no-print-directory build
	@test -f $(PAGE)

$(PAGE_PACKAGES): web/package.json web/package-lock.json
	@echo "==> packages of the explorer's page"
	@cd web && npm ci --no-fund --no-audit --loglevel=error
	@touch $@

$(PAGE): $(PAGE_PACKAGES) $(PAGE_SOURCES) $(FORMATS) $(SCHEMAS)
	@echo "==> the explorer's page"
	@$(BIN)/python -m chain.explorer.schema > web/src/schema.json
	@cd web && npm run --silent build

run: build ## Start four validators, ask a real model two questions, verify the receipts
	@test ! -f $(RUN_HOME)/devnet.json || $(BIN)/assay devnet stop --home $(RUN_HOME)
	@rm -rf $(RUN_HOME)
	$(BIN)/assay devnet tour --home $(RUN_HOME)

check: build ## Lint, formatting, types, import directions, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@echo "dead code:"
	@$(DEAD_CODE)

format: build ## Rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: build ## Run every test (ARGUMENTS='tests/ext -k merkle' narrows it)
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder $(ARGUMENTS)

fuzz: build ## Try random input on everything that reads it (SECONDS=60 each, SEED=1)
	$(BIN)/python -m tests.fuzz --full --seconds $(SECONDS) --seed $(SEED)

soak: build ## Long forms: ledger and specification, hostile input, levels of x86-64, joining (OPERATIONS=100000, SEED=1)
	ASSAY_SOAK_OPERATIONS=$(OPERATIONS) ASSAY_SOAK_SEED=$(SEED) $(BIN)/pytest tests/chain/test_specification.py
	ASSAY_MORE_SEEDS=1 $(BIN)/pytest tests/ext/test_hostile_input.py
	ASSAY_EVERY_LEVEL=1 $(BIN)/pytest tests/runtime/test_instruction_sets.py
	ASSAY_SOAK_JOINING=1 $(BIN)/pytest tests/e2e/test_joining.py

# The nightly target; a night on two cores is SEEDS=0:25000.
soak-sim: build ## Play the ordering core in simulated worlds, and look for planted mistakes (SEEDS=0:100)
	$(BIN)/assay sim run --seeds $(SEEDS) --validators 4,5,7,10 --profile all
	$(BIN)/assay sim run --seeds $(SEEDS) --validators 4 --profile sweep
	$(BIN)/assay sim mutants

soak-faults: build ## Kill, stop and cut off real validators under load (eight minutes; docs/faults.md)
	$(BIN)/python -m tests.faults --model .cache/models/smollm2-135m-instruct --output build/faults.json $(ARGUMENTS)

bench: build ## Measure the hot path (ratios against a baseline of the same run)
	$(BIN)/pytest bench --benchmark-only $(ARGUMENTS)

docs: build ## Build the documentation site into build/site, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## Remove everything the build made
	rm -rf $(VENV) build dist assay/v1 chain/explorer/page web/node_modules web/src/schema.json *.egg-info .mypy_cache .ruff_cache .pytest_cache
	rm -rf .import_linter_cache .hypothesis .benchmarks
	find $(SOURCES) -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
