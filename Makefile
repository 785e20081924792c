# Every target sets itself up in .venv first; that needs Python 3.11 or newer, make and git.
PYTHON ?= python3
ARGS ?=
SBOM ?= build/sbom.json

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-for
BENCH := bench/.venv
BENCH_STAMP := $(BENCH)/.installed

# The stamp holds the folder it was written in: a .venv that was moved or copied, or whose Python is
# gone, is installed anew.
ifneq ($(shell $(BIN)/python -c '' 2>/dev/null && cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

USABLE := import sys, pip; sys.exit(sys.version_info < (3, 11))
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PACKAGE := import sys; print("python%d.%d-venv" % sys.version_info[:2])

.DEFAULT_GOAL := help
.PHONY: help demo test lint check conformance verdicts words mutants fuzz bench instructions soak screenshots sbom clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

demo: $(STAMP) ## serve the fixture patients and print their cards; ARGS=--once stops after that
	@$(BIN)/cds-service demo $(ARGS)

test: $(STAMP) ## run the tests; ARGS goes to pytest
	@$(BIN)/python -m pytest --numprocesses 4 --dist loadfile $(ARGS)

lint: $(STAMP) ## check style, format and types
	@$(BIN)/python -m ruff check
	@$(BIN)/python -m ruff format --check
	@$(BIN)/python -m mypy

check: $(STAMP) ## check the clinical content and run every vignette; ARGS may name a folder
	@$(BIN)/cds-service check $(ARGS)

conformance: $(STAMP) ## write docs/conformance.md anew
	@$(BIN)/python -m tests.conformance

mutants: $(STAMP) ## change the code and the limits one by one and see whether a test notices; takes hours
	@$(BIN)/python -m pytest -p tests.mutants $(ARGS)

fuzz: $(STAMP) ## send odd requests to real servers for 20 minutes; ARGS="--minutes 5 --seed 2"
	@$(BIN)/python -m tests.fuzzing $(ARGS)

verdicts: $(STAMP) ## write the tables of docs/testing.md anew
	@$(BIN)/python -m tests.foreign_data

words: $(STAMP) ## write anew what the cards of vignettes and exchanges say
	@$(BIN)/python -m tests.words

bench: $(STAMP) $(BENCH_STAMP) ## write docs/performance.md anew; ten minutes on an idle machine, and wrk
	@$(BIN)/python -m bench $(ARGS)

instructions: $(STAMP) ## count what a call executes, and docs/performance.md told of it; needs valgrind
	@$(BIN)/python -m bench.instructions

soak: $(STAMP) ## load and faults for ten minutes, and docs/testing.md told of it; ARGS="--minutes 1"
	@$(BIN)/python -m bench.soak $(ARGS)

screenshots: $(STAMP) ## take the pictures of docs/pictures anew; ARGS="what-if" takes some; needs Chromium
	@$(BIN)/python -m tests.screenshots $(ARGS)

# What makes the bill has needs of its own, which would slow what is developed with: jsonschema loads them.
sbom: $(STAMP) ## write build/sbom.json (CycloneDX): what is installed for running, and its licences
	@rm -rf build/sbom build/cyclonedx && mkdir -p build $(dir $(SBOM))
	@$(PYTHON) -m venv --without-pip build/sbom
	@$(PYTHON) -m venv --without-pip build/cyclonedx
	@export PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	  PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_QUIET=1 PIP_NO_COMPILE=1; \
	  $(BIN)/python -m pip --python build/sbom/bin/python install . && \
	  $(BIN)/python -m pip --python build/cyclonedx/bin/python install cyclonedx-bom
	@build/cyclonedx/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --output-file $(SBOM) build/sbom/bin/python

clean: ## remove .venv, builds and caches
	@rm -rf $(VENV) $(BENCH) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

# pip before 25.3 takes the build's pins from PIP_CONSTRAINT, later ones from PIP_BUILD_CONSTRAINT.
$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -c '$(USABLE)' 2>/dev/null || { \
	  $(PYTHON) -c '$(NEW_ENOUGH)' || { \
	    echo 'Python 3.11 or newer is needed; name one with: make PYTHON=...' >&2; exit 1; }; \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments: the Debian package" \
	      "$$($(PYTHON) -c '$(PACKAGE)') is missing." >&2; exit 1; }; \
	  $(PYTHON) -m venv --clear $(VENV); }
	@echo 'Installing into $(VENV); the first time takes about a minute.' >&2
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	  PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
	  $(BIN)/python -m pip install --quiet --editable '.[dev]'
	@$(BIN)/python -m compileall -q cds_service hooks # where Python keeps no bytecode, each start would
	@pwd -P > $(STAMP)

# What the server is measured against has needs of its own, which are not ours.
$(BENCH_STAMP): bench/requirements.txt $(STAMP)
	@$(BIN)/python -m venv --clear $(BENCH)
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
	  $(BENCH)/bin/python -m pip install --quiet --requirement bench/requirements.txt
	@touch $@
