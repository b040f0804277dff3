# make run · make test · make lint · make clients: each does all its own set-up.

PYTHON3 ?= python3
VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip install --disable-pip-version-check --quiet

.PHONY: run test lint clients programs
.DELETE_ON_ERROR:

run: $(VENV)/.run
	$(PYTHON) app.py

test: $(VENV)/.test programs
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

# The documentation's examples with the newest clients there are: tests/clients/README.md.
clients: $(VENV)/.test
	$(PYTHON) -m tests.clients

# What the tests drive: Debian as root takes the distribution's Chromium and nginx (RUNLEVEL=1: not started);
# everyone else Playwright's Chromium, and the tests of nginx are skipped where there is none.
programs: $(VENV)/.test
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  missing=; \
	  command -v chromium >/dev/null || missing="chromium fonts-noto-color-emoji"; \
	  command -v nginx >/dev/null || test -x /usr/sbin/nginx || missing="$$missing nginx-light"; \
	  test -z "$$missing" || \
	    { apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $$missing; }; \
	else $(PYTHON) -m playwright install chromium; fi

$(VENV)/.run: requirements.txt
	@test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	@echo "Installing what Stepwise needs (a few minutes the first time)…"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.test: requirements.txt requirements-dev.txt
	@test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	@echo "Installing what the tests need (a few minutes the first time)…"
	@$(PIP) -r requirements-dev.txt
	@touch $@ $(VENV)/.run
