# One command each; every target makes what it needs, starting with the virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Servers that the tests run against, beside the embedded 17 and, on Debian, the system's 15.
TEST_MAJORS := 14 15 16 18
# Servers by the hundred come and go in the tests: in memory, where there is room and programs may run from it, that takes
# a third less time.
IN_MEMORY := $(shell grep -qs ' /dev/shm [^ ]* [^ ]*noexec' /proc/mounts || df -Pk /dev/shm 2>/dev/null \
    | awk 'NR == 2 && $$4 > 8000000 { print "/dev/shm" }')

.PHONY: demo dev test bench lint types validate screenshots clean

demo: $(VENV)/installed
	$(BIN)/gs-backup demo $(ARGS)

dev: $(VENV)/installed
	$(BIN)/gs-backup demo --serve $(ARGS)

test: export TMPDIR := $(or $(TMPDIR),$(IN_MEMORY),/tmp)
test: $(VENV)/installed-dev $(VENV)/coldstart/installed servers
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks.daily_chain $(ARGS)
	$(BIN)/python -m benchmarks.vault
	$(BIN)/python -m benchmarks.physical
	$(BIN)/python -m benchmarks.wal_stream
	$(BIN)/python -m benchmarks.two_hundred

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

validate: $(VENV)/installed
	GS_BACKUP_CONFIG=backup.yaml $(BIN)/dagster definitions validate -w workspace.yaml

screenshots: $(VENV)/installed-dev
	$(BIN)/python docs/make_screenshots.py

.PHONY: servers
servers: $(VENV)/installed
	$(BIN)/gs-backup toolchain add --missing $(TEST_MAJORS)

# Byte-compiled while installing: the imports of dagster and great_expectations are several times slower without.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pip install --quiet --requirement requirements.lock
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.lock
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pip install --quiet --requirement requirements-dev.lock
	touch $@

# Nothing but the public programs that docs/cold-start.md names: its test restores with these alone.
$(VENV)/coldstart/installed: requirements-coldstart.lock | $(VENV)/installed
	$(PYTHON) -m venv $(VENV)/coldstart
	env -u PYTHONDONTWRITEBYTECODE $(VENV)/coldstart/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info
