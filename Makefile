# make run   a conversation that is still there the next time (needs no key)
# make test  the tests
# make pythons  the tests on each Python that is promised and installed here
# make doors each framework's door, alone with its framework (make doors-lowest: its lowest version)
# make fresh the tests, with random tests drawn from a new seed
# make chaos faults on purpose, the long form (minutes; as root also full and read-only disks)
# make real  the providers against servers that others wrote (installs 2 GB of them the first time)
# make check lint, format and types
# make bench side by side with the peers (installs them into an environment of their own)
# make load  10,000 sessions, 200 at work at once, on each backend (about 12 minutes)
#
# PYTHON=python3.13 does any of these with that Python, in environments of its own.

PYTHON ?= python3
PYTHONS ?= python3.11 python3.12 python3.13
ifeq ($(origin PYTHON),file)
VENV := .venv
else
VENV := .venv-$(or $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'),\
	$(error PYTHON=$(PYTHON) does not run))
endif
DOOR_VENVS := $(VENV)-doors
LOWEST_VENVS := $(VENV)-doors-lowest
DOORS := langchain langchain-agents llama-index openai-agents
BENCH_VENV := $(VENV)-bench
REAL_PYTHON ?= python3.12
REAL_VENVS := .venv-real
REAL := agentic litellm llama llmock ogx oma
BIN := $(VENV)/bin
DB ?= langswarm_sessions.db

.PHONY: run test pythons fresh chaos doors doors-lowest real check format bench load notebooks clean

run: $(VENV)/.run
	@$(BIN)/langswarm-session --db $(DB) chat --session demo --demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto

# With pyenv a Python is found only where its version is asked for.
pythons:
	@absent=; for name in $(PYTHONS); do \
		if python=$$(PYENV_VERSION=$${name#python} $$name -c 'import sys; print(sys.executable)' 2>/dev/null); \
		then $(MAKE) test PYTHON=$$python || exit; else absent="$$absent $$name"; fi; \
	done; \
	[ -z "$$absent" ] || echo "not installed here, so not tested:$$absent"

fresh: $(VENV)/.dev
	LANGSWARM_SEEDS=fresh $(BIN)/python -m pytest -n auto $(ARGS)

chaos: $(VENV)/.dev
	LANGSWARM_SEEDS=fresh LANGSWARM_CHAOS=full $(BIN)/python -m pytest -n 2 --dist worksteal tests/chaos $(ARGS)

doors: $(addprefix door-,$(DOORS))

doors-lowest: $(addprefix lowest-,$(DOORS))

# Each server in an environment of its own; some need Python 3.12. One that does not start fails its tests.
real: $(VENV)/.dev $(REAL:%=$(REAL_VENVS)/%/.installed)
	LANGSWARM_REAL=$(abspath $(REAL_VENVS)) $(BIN)/python -m pytest -n 0 tests/real $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH_VENV)/.bench
	$(BENCH_VENV)/bin/python -m benchmarks $(ARGS)

load: $(VENV)/.dev
	$(BIN)/python -m benchmarks.load_run $(ARGS)

notebooks: $(VENV)/.dev
	$(BIN)/python -m pytest tests/test_notebooks.py

clean:
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[cli]"
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/.run

$(BENCH_VENV)/.bench: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e . -r benchmarks/requirements.txt
	@touch $@

# With pyenv a Python is found only where its version is asked for.
$(REAL_VENVS)/%/.installed: tests/real/requirements/%.txt
	PYENV_VERSION=$(patsubst python%,%,$(REAL_PYTHON)) $(REAL_PYTHON) -m venv $(REAL_VENVS)/$*
	$(REAL_VENVS)/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# One environment for each door: nothing but its framework, so that it is seen to need no more. The
# lowest versions are those that pyproject.toml declares.
door-%: $(DOOR_VENVS)/%/.installed
	$(DOOR_VENVS)/$*/bin/python -m pytest -q -n auto $(call door_tests,$*)

lowest-%: $(LOWEST_VENVS)/%/.installed
	$(LOWEST_VENVS)/$*/bin/python -m pytest -q -n auto $(call door_tests,$*)

door_tests = tests/integrations/$(subst -,_,$(patsubst langchain-agents,langchain,$1))

$(DOOR_VENVS)/%/.installed: pyproject.toml
	$(PYTHON) -m venv $(DOOR_VENVS)/$*
	$(DOOR_VENVS)/$*/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$*,test]"
	@touch $@

$(LOWEST_VENVS)/%/.installed: pyproject.toml tests/integrations/lowest.py
	$(PYTHON) -m venv $(LOWEST_VENVS)/$*
	$(PYTHON) tests/integrations/lowest.py $* > $(LOWEST_VENVS)/$*/lowest.txt
	$(LOWEST_VENVS)/$*/bin/python -m pip install --quiet --disable-pip-version-check \
		-e ".[$*,test]" -c $(LOWEST_VENVS)/$*/lowest.txt
	@touch $@

.PRECIOUS: $(DOOR_VENVS)/%/.installed $(LOWEST_VENVS)/%/.installed
