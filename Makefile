# Everything a machine needs is brought by `make setup`; the other targets call it.
# On a fresh Debian or Ubuntu machine as root it also installs what the sandbox needs.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := .setup
GOTOOLCHAIN := go1.26.6
export GOTOOLCHAIN
GO_CHECK_PACKAGES := ./...
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: setup check test test-unit test-api test-e2e test-package demo bench dist clean help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(SETUP)/python $(SETUP)/payload ## Make .venv with towline in it, built from this checkout

$(SETUP)/python: pyproject.toml
	@mkdir -p $(SETUP)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

# An editable install builds the payload too (hatch_build.py).
$(SETUP)/payload: $(SETUP)/python $(shell find agent starter src/towline/payload/build.py -type f 2>/dev/null) hatch_build.py
	$(BIN)/python src/towline/payload/build.py src/towline/payload/built
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# Programs that tests, demo and sandbox run: from Debian where it is one and we are root.
$(SETUP)/system: | $(SETUP)/python
	$(PYTHON) sandbox setup
	@touch $@

# The sample's `yarn start`, in a folder of its own: nothing global is changed.
$(SETUP)/node: | $(SETUP)/python
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js 18 or later"; exit 2; }
	npm install --silent --no-fund --no-audit --prefix $(SETUP)/node-tools yarn@1.22.22
	@touch $@

check: setup ## Lint, types, layers, unit tests: under a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd agent && test -z "$$(gofmt -l .)" && go vet $(GO_CHECK_PACKAGES) && go run $(STATICCHECK) $(GO_CHECK_PACKAGES)
	cd agent && go test $(GO_CHECK_PACKAGES)
	cd sandbox/node && go vet . && CGO_ENABLED=0 go test .
	$(BIN)/pytest tests/unit

$(SETUP)/sandbox: | $(SETUP)/system
	$(PYTHON) sandbox build
	@touch $@

test: check $(SETUP)/sandbox $(SETUP)/node ## Every test, on a real API server and a whole node too
	$(BIN)/pytest tests/sandbox tests/e2e
	@echo "make test: all passed"

demo: setup $(SETUP)/sandbox $(SETUP)/node ## The main job on a real cluster, told step by step
	PATH="$(CURDIR)/$(SETUP)/node-tools/node_modules/.bin:$$PATH" $(BIN)/python samples/demo.py

bench: setup $(SETUP)/sandbox $(SETUP)/node ## Measure; writes benchmarks/RESULTS.md
	PATH="$(CURDIR)/$(SETUP)/node-tools/node_modules/.bin:$$PATH" $(BIN)/python benchmarks/run.py

dist: setup ## The wheel and the sdist, in dist/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build==1.3.0
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

clean: ## Remove what was made here (the sandbox's cache stays)
	rm -rf $(SETUP) $(VENV) dist build src/towline/payload/built
