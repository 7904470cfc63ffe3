# taskclone. `make` prints the targets; PYTHON and VENV choose interpreter and environment:
#   make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
CC ?= cc
export CC

BIN := $(VENV)/bin
BUILD := build/$(notdir $(VENV))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := $(shell find src csrc -type f ! -name '*.so' ! -name '*.pyc') meson.build meson_options.txt pyproject.toml
PYTEST_ARGS ?=
# At most 10 minutes a test, 40 a suite: one that hangs is a report, not a machine that waits.
WATCHED = $(BIN)/python tests/watched.py 600 2400 $(BIN)/python
KERNELS ?=
SANITIZERS ?=
PYTHONS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-all conformance test-kernels sanitize dev lint types format-c docs stress bench clean

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## build, install, run the sample in all its forms and a quick launch benchmark
	@set -e; for form in "" vm ids fd stop crash cow namespaces; do \
		echo; echo "$$ taskclone demo $$form"; $(BIN)/taskclone demo $$form; done
	@mkdir -p out build
	@$(CC) -O2 -pthread -o build/launch_loop csrc/testing/launch_loop.c
	@echo; echo "$$ taskclone bench launch --quick --loop build/launch_loop"
	@$(BIN)/taskclone bench launch --quick --loop build/launch_loop --json out/launch.json --png out/launch.png --svg out/launch.svg

test: $(VENV)/installed $(VENV)/testing ## run the whole suite
	TASKCLONE_BUILD=$(CURDIR)/$(BUILD) $(WATCHED) -m pytest $(PYTEST_ARGS)

test-all: ## the suite on every Python that is found, and on Debian unstable's in build/debian-sid: an hour
	tests/interpreters/all $(PYTHONS)

stress: $(VENV)/installed $(VENV)/testing ## the stress tests alone
	TASKCLONE_BUILD=$(CURDIR)/$(BUILD) $(WATCHED) -m pytest -m stress $(PYTEST_ARGS)

conformance: $(VENV)/installed ## every legal set by every route against the kernel: what was proved, what is refused and why
	PYTHONPATH=tests $(BIN)/python tests/conformance/prove.py

test-kernels: $(VENV)/installed $(VENV)/testing ## tests/kernels on Linux 5.10 to 7.3, emulated: some 6 minutes; KERNELS="5.10 6.1" for some
	TASKCLONE_BUILD=$(CURDIR)/$(BUILD) $(BIN)/python tests/kernels/emulate $(KERNELS)

sanitize: $(VENV)/installed ## the suite under the sanitizers of address and undefined behaviour, the threads under that of threads: an hour
	tests/sanitizers/run $(BIN)/python $(SANITIZERS)

bench: $(VENV)/installed ## the whole benchmarks, with their charts in out/
	@mkdir -p out build
	@$(CC) -O2 -pthread -o build/launch_loop csrc/testing/launch_loop.c
	$(BIN)/taskclone bench launch --huge-pages --loop build/launch_loop --json out/launch.json --png out/launch.png --svg out/launch.svg
	$(BIN)/taskclone bench switch --json out/switch.json --png out/switch.png --svg out/switch.svg

dev: $(VENV)/tools ## install editable: a change of sources is seen at once
	PATH="$(abspath $(BIN)):$$PATH" $(PIP) install --no-build-isolation --editable '.[bench,test]'
	@touch $(VENV)/installed

lint: $(VENV)/lint ## ruff and clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.c' '*.h')

types: $(VENV)/lint $(VENV)/installed ## mypy, strict
	$(BIN)/mypy

docs: $(VENV)/installed ## write the derived documents anew
	$(BIN)/python -m taskclone.flagdoc --write

clean: ## remove what was made
	rm -rf $(VENV) build out

# ---- what the targets above need ------------------------------------------------------------------------------------

# One clear message for what cannot be installed by pip.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "taskclone needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V 2>&1). Say which: make PYTHON=python3.12"; exit 1; }
	@command -v $(CC) >/dev/null || { echo "taskclone needs a C compiler: on Debian, apt install gcc libc6-dev"; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { \
		echo "taskclone needs the headers of $(PYTHON): on Debian, apt install python3-dev"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "taskclone needs the venv module of $(PYTHON): on Debian, apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/tools: $(VENV)/bin/python pyproject.toml
	$(PIP) install meson-python meson ninja
	@touch $@

# Not editable: what runs is what a user would install.
$(VENV)/installed: $(VENV)/tools $(SOURCES)
	$(PIP) uninstall --yes taskclone 2>/dev/null
	PATH="$(abspath $(BIN)):$$PATH" $(PIP) install --no-build-isolation '.[bench,test]'
	@touch $@

# The C programs that only tests use; Ninja sees for itself what is out of date.
$(VENV)/testing: $(VENV)/tools $(SOURCES)
	@[ -f $(BUILD)/build.ninja ] || PATH="$(abspath $(BIN)):$$PATH" $(BIN)/meson setup $(BUILD) . -Dtesting=true -Dwerror=true
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/ninja -C $(BUILD) --quiet
	@touch $@

$(VENV)/lint: $(VENV)/bin/python pyproject.toml
	$(PIP) install 'mypy>=1.13' 'ruff>=0.8' 'clang-format==19.1.7'
	@touch $@
