# `make help` lists what there is; each does all its own set-up.

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip install --disable-pip-version-check --quiet
# The first of these that is new enough makes the virtual environment; PYTHON3=… names another.
PYTHONS := $(or $(PYTHON3),python3 python3.13 python3.12 python3.11)
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null

.PHONY: help run test quick lint clients programs python
.DELETE_ON_ERROR:

help: ## This list.
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: $(VENV)/.run ## Serve the page and the API from here; its first time installs what that needs.
	$(PYTHON) app.py

# pytest keeps the tests as it has rewritten them, which it does for each process in 3 s of CPU otherwise.
test quick: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/.test programs ## Every test, in a real browser too: what must pass before a change lands.
	$(PYTHON) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

quick: $(VENV)/.test ## While you write: ruff, and every test that needs no process, browser or training.
	$(PYTHON) -m ruff check .
	$(PYTHON) -m pytest -n 3 --dist worksteal -m "not process and not browser and not training"

lint: $(VENV)/.test ## The linters, the type checker, and which room may import which.
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo

clients: $(VENV)/.test ## The documentation's examples with the newest clients there are (tests/clients/README.md).
	$(PYTHON) -m tests.clients

# What the tests drive. Debian as root takes the distribution's nginx (RUNLEVEL=1: not started) and Chromium: its
# headless shell, which costs the tests a minute of CPU time less, or else the whole browser. Everyone else takes
# Playwright's Chromium, and the tests of nginx are skipped where there is none.
INSTALL := RUNLEVEL=1 apt-get install -y -qq --no-install-recommends
programs: $(VENV)/.test
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  has() { command -v "$$1" >/dev/null || test -x "/usr/sbin/$$1"; }; \
	  has chromium-headless-shell && has nginx || apt-get update -qq; \
	  has chromium-headless-shell || $(INSTALL) chromium-headless-shell fonts-noto-color-emoji || \
	    has chromium || $(INSTALL) chromium fonts-noto-color-emoji; \
	  has nginx || $(INSTALL) nginx-light; \
	else $(PYTHON) -m playwright install chromium; fi

# One that isn't there, or that an older Python made, is made anew, with all that was installed there.
define virtual_environment
@$(PYTHON) $(NEW_ENOUGH) || { \
  for python in $(PYTHONS); do \
    if $$python $(NEW_ENOUGH); then exec $$python -m venv --clear $(VENV); fi; \
  done; \
  for python in $(PYTHONS); do \
    found=$$($$python -V 2>&1) && case $$found in Python*) break;; esac; found=none; \
  done; \
  echo "Stepwise needs Python 3.11 or newer, and found $$found: install a newer one," \
    "or name it, as in: make PYTHON3=/path/to/python3.12" >&2; \
  exit 1; }
endef
STALE := $(shell $(PYTHON) $(NEW_ENOUGH) || echo python)

$(VENV)/.run: requirements.txt $(STALE)
	$(virtual_environment)
	@echo "Installing what Stepwise needs (a few minutes the first time)…"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.test: requirements.txt requirements-dev.txt $(STALE)
	$(virtual_environment)
	@echo "Installing what the tests need (a few minutes the first time)…"
	@$(PIP) -r requirements-dev.txt
	@touch $@ $(VENV)/.run
