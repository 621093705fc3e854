# The targets that a person and CI share. Needs Python 3.11 or later, nothing else.
#   make demo | test | check | bench | docs | clean
# Another Python: make test PYTHON=python3.12      Another build of torch: make test CONSTRAINTS=mine.txt
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
EXTRAS ?= dev,docs,onnx
PYTEST ?= -n 2
BENCH ?= sigreg masks step loader worlds plan
BIN := $(VENV)/bin
DEMO := $(VENV)/.demo-ready
READY := $(VENV)/.ready
UV := $(shell command -v uv 2>/dev/null)

# uv does not read pip's setting for a local folder of wheels, and would fetch the CUDA build of torch.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Many small tests are slower on many threads; a training chooses its own.
test slow floors docs check: export OMP_NUM_THREADS ?= 1

.PHONY: demo install test slow check format lint types floors bench docs clean help

help:
	@sed -n '2,4s/^# *//p' $(firstword $(MAKEFILE_LIST))

demo: $(DEMO)
	$(BIN)/openjepa demo

install: $(READY)

test: $(READY)
	$(BIN)/python -m pytest $(PYTEST)

slow: $(READY)
	$(BIN)/python -m pytest -m slow

check: format lint types floors test docs

format: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

floors: $(READY)
	$(BIN)/lint-imports --no-logo --no-cache

# Speed; minutes each, ratios within one run. `python -m benchmarks.health report` validates the verdicts and takes longer.
bench: $(READY)
	for name in $(BENCH); do $(BIN)/python -m benchmarks.$$name || exit 1; done

# The help tables are written anew; a difference from what is committed fails `make test`.
docs: $(READY)
	$(BIN)/python -m openjepa.app.fields
	$(BIN)/sphinx-build -q -E -W -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The demo needs scikit-learn's digits and nothing of the tools.
$(DEMO): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(call install,eval)
	touch $@

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(call install,$(EXTRAS))
	touch $@ $(DEMO)

ifneq ($(UV),)
install = $(UV) pip install -q --python $(BIN)/python -c $(CONSTRAINTS) -e ".[$(1)]"
else
install = $(BIN)/python -m pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e ".[$(1)]"
endif
