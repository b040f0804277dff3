# make run · make test · make lint: each does all its own set-up.

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip install --disable-pip-version-check --quiet
# The first of these that is new enough makes the virtual environment; PYTHON3=… names another.
PYTHONS := $(or $(PYTHON3),python3 python3.13 python3.12 python3.11)
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null

.PHONY: run test lint browser python
.DELETE_ON_ERROR:

run: $(VENV)/.run
	$(PYTHON) app.py

test: $(VENV)/.test browser
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

# Debian as root takes the distribution's Chromium; everyone else Playwright's own.
browser: $(VENV)/.test
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  command -v chromium >/dev/null || \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-noto-color-emoji; }; \
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
