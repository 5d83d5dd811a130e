# Framelane. Each target makes the environment that it needs: Python 3.10 or newer and a network are enough.
#   make demo          watch a fleet being served          make test         all tests that need no extra
#   make check         ruff, formatting, mypy              make test-export  tests of the export extra (torch)
#   make bench         throughput against the bare engine
PYTHON ?= python3
VENV := .venv
EXPORT_VENV := .venv-export
PIP_INSTALL := -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check bench test-export recall clean

help: ## Show the targets
	@sed -n '2,4p' Makefile | sed 's/^#  *//'

$(VENV)/run.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $$($(PYTHON) --version) is too old, Python 3.10 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@echo "making $(VENV): installing Ray, ONNX Runtime and OpenCV takes a minute or two"
	@$(PYTHON) -m venv $(VENV) || { echo "error: no venv module; on Debian: apt-get install python3-venv"; exit 1; }
	@$(VENV)/bin/python $(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@$(VENV)/bin/python $(PIP_INSTALL) --editable '.[dev]'
	@touch $@

$(EXPORT_VENV)/stamp: pyproject.toml constraints.txt
	@echo "making $(EXPORT_VENV): installing torch, several GB"
	@$(PYTHON) -m venv $(EXPORT_VENV)
	@$(EXPORT_VENV)/bin/python $(PIP_INSTALL) --editable '.[dev,export]'
	@touch $@

demo: $(VENV)/run.stamp ## Serve five cameras of different sizes on this CPU
	$(VENV)/bin/framelane demo

test: $(VENV)/dev.stamp ## Unit and integration tests
	$(VENV)/bin/python -m pytest tests/unit tests/integration

check: $(VENV)/dev.stamp ## Lint, formatting, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/run.stamp ## Throughput of the whole path against the bare engine
	$(VENV)/bin/python bench/throughput.py

recall: $(VENV)/run.stamp ## Recall of the bundled models by defect size and canvas
	$(VENV)/bin/python examples/inspection/recall.py

test-export: $(EXPORT_VENV)/stamp ## Tests of the export extra, against ultralytics itself
	$(EXPORT_VENV)/bin/python -m pytest tests/export

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(EXPORT_VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
