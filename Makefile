# Framelane. Each target makes the environment that it needs: Python 3.10 or newer and a network are enough.
#   make demo      watch a fleet being served           make test            all tests that need no extra
#   make check     ruff, formatting, mypy               make test-export     tests of the export extra (torch)
#   make bench     throughput against the bare engine   make bench-overload  0.5 to 2.5 times the capacity
#   make recall    recall by size of defect             make recall-4k       4K frames whole, shrunk and tiled
#   make bench-scheduler   cost of a decision, the simulator's speed, batches of interleaved sizes
#   make soak      whether memory stays flat, simulated and real     make fuzz   images and requests that break decoders
#   make bench-streams VIDEO=clip.avi   eight cameras, one killed, the service restarted
#   make bench-routers     one router against two, on fake engines
#   make bench-http        HTTP under 500 connections, slow clients and a critical key
#   make test-cluster      several nodes and routers, durable frames over restarts, limits of memory
#   make test-page         the live page in headless Chromium
#   make test-chaos        replicas, nodes, routers and the controller killed under load
#   make docs      the documentation as a site, in out/site          make test-docs   its shell and Python blocks
#   make test-wheel        what a newcomer meets: the built wheel in an environment of its own, no checkout
#   make test-compiled     scheduler and simulator compiled by mypyc    make bench-compiled   what that gains; both need gcc
#   make test-tensorrt     engines built by TensorRT for RTX, no GPU    make test-gpu   the real runner, on a GPU
PYTHON ?= python3
VENV := .venv
EXPORT_VENV := .venv-export
TENSORRT_VENV := .venv-tensorrt
GPU_VENV := .venv-gpu
FUZZ_SECONDS ?= 60
COMPILED := out/compiled
PIP_INSTALL := -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-overload bench-scheduler bench-compiled bench-streams bench-routers bench-http test-export test-tensorrt test-gpu test-cluster test-page test-wheel test-compiled test-chaos recall recall-4k soak fuzz docs test-docs reference clean

help: ## Show the targets
	@sed -n 's/^#  *make/make/p' Makefile

$(VENV)/run.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $$($(PYTHON) --version) is too old, Python 3.10 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@echo "making $(VENV): installing Ray, ONNX Runtime and OpenCV takes a minute or two"
	@$(PYTHON) -m venv $(VENV) || { echo "error: no venv module; on Debian: apt-get install python3-venv"; exit 1; }
	@$(VENV)/bin/python $(PIP_INSTALL) --editable .[plots]
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@$(VENV)/bin/python $(PIP_INSTALL) --editable '.[dev]'
	@# It asks for opencv-python, which would overwrite the headless one; all else that it needs is there already.
	@$(VENV)/bin/python $(PIP_INSTALL) --no-deps trackers
	@touch $@

$(VENV)/page.stamp: $(VENV)/dev.stamp
	@$(VENV)/bin/python $(PIP_INSTALL) --editable '.[dev,page]'
	@touch $@

$(VENV)/docs.stamp: $(VENV)/dev.stamp
	@$(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: the documentation is built on Python 3.11 or newer: make PYTHON=python3.12 clean docs"; exit 1; }
	@$(VENV)/bin/python $(PIP_INSTALL) --editable '.[docs]'
	@touch $@

$(EXPORT_VENV)/stamp: pyproject.toml constraints.txt
	@echo "making $(EXPORT_VENV): installing torch, several GB"
	@$(PYTHON) -m venv $(EXPORT_VENV)
	@$(EXPORT_VENV)/bin/python $(PIP_INSTALL) --editable '.[dev,export]'
	@touch $@

$(TENSORRT_VENV)/stamp: pyproject.toml constraints.txt
	@echo "making $(TENSORRT_VENV): installing TensorRT for RTX takes a minute"
	@$(PYTHON) -m venv $(TENSORRT_VENV)
	@$(TENSORRT_VENV)/bin/python $(PIP_INSTALL) --editable '.[dev,rtx,names]'
	@touch $@

$(GPU_VENV)/stamp: pyproject.toml constraints.txt
	@echo "making $(GPU_VENV): installing TensorRT from NVIDIA's index, a GB or two"
	@$(PYTHON) -m venv $(GPU_VENV)
	@$(GPU_VENV)/bin/python $(PIP_INSTALL) --editable '.[dev,gpu]'
	@touch $@

# Beside the checkout, never in it: a compiled module would hide every later change of its source.
$(COMPILED)/stamp: $(VENV)/run.stamp setup.py $(shell find engines serve_app -name '*.py')
	@command -v cc >/dev/null || { echo "error: no C compiler; on Debian: apt-get install gcc libc6-dev"; exit 1; }
	@echo "compiling the scheduler and the simulator's loop: a minute or two"
	@rm -rf $(COMPILED) build
	@FRAMELANE_COMPILE=1 $(VENV)/bin/python $(PIP_INSTALL) --no-deps --target $(COMPILED) .
	@rm -rf build
	@touch $@

demo: $(VENV)/run.stamp ## Serve five cameras of different sizes on this CPU
	$(VENV)/bin/framelane demo

test: $(VENV)/dev.stamp ## Unit and integration tests
	$(VENV)/bin/python -m pytest -m 'not cluster and not docs' tests/unit tests/integration

test-cluster: $(VENV)/dev.stamp ## Several nodes and routers, restarts with durable frames, real limits of memory
	$(VENV)/bin/python -m pytest -m cluster tests/integration

test-docs: $(VENV)/dev.stamp ## Every shell and Python block of docs/
	$(VENV)/bin/python -m pytest -m docs tests/integration

check: $(VENV)/dev.stamp ## Lint, formatting, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/run.stamp ## Throughput of the whole path against the bare engine
	$(VENV)/bin/python bench/throughput.py

bench-overload: $(VENV)/run.stamp ## Critical and normal frames at 0.5 to 2.5 times the capacity, beside plain Ray Serve
	$(VENV)/bin/python bench/overload.py --plain-own-size

bench-scheduler: $(VENV)/run.stamp ## What a decision costs, the simulator's speed, batches of interleaved sizes
	$(VENV)/bin/python bench/scheduler_cost.py
	$(VENV)/bin/python bench/simulator_speed.py
	$(VENV)/bin/python bench/interleaved.py

bench-compiled: $(COMPILED)/stamp ## The first two of bench-scheduler, with scheduler and simulator compiled by mypyc
	PYTHONPATH=$(abspath $(COMPILED)) $(VENV)/bin/python bench/scheduler_cost.py
	PYTHONPATH=$(abspath $(COMPILED)) $(VENV)/bin/python bench/simulator_speed.py

soak: $(VENV)/run.stamp ## Whether memory stays flat: two simulated hours, then ten of twenty real minutes
	$(VENV)/bin/python bench/soak.py

bench-streams: $(VENV)/dev.stamp ## Eight cameras for ten minutes: all accounted for, memory flat; VIDEO=any video
	$(VENV)/bin/python bench/streams.py $(VIDEO) --restart

bench-routers: $(VENV)/run.stamp ## Throughput of one router and of two, where the router is the limit
	$(VENV)/bin/python bench/two_routers.py

bench-http: $(VENV)/run.stamp ## HTTP under 500 connections, slow clients and a critical key
	$(VENV)/bin/python bench/http_drill.py

recall: $(VENV)/run.stamp ## Recall of the bundled models by defect size and canvas
	$(VENV)/bin/python examples/inspection/recall.py

recall-4k: $(VENV)/run.stamp ## Recall of small defects on 4K frames: whole, shrunk, tiled
	$(VENV)/bin/python examples/inspection/recall_4k.py

test-page: $(VENV)/page.stamp ## The live page in headless Chromium; on Debian: apt-get install chromium
	$(VENV)/bin/python -m pytest tests/page

fuzz: $(VENV)/dev.stamp ## Look for images and requests that break the decoders, FUZZ_SECONDS each
	@mkdir -p out/fuzz
	@cd out/fuzz && for target in images tensors; do \
		$(abspath $(VENV))/bin/python ../../tests/fuzz/decoding_fuzz.py $$target -max_total_time=$(FUZZ_SECONDS) \
			-rss_limit_mb=1500 -timeout=10 -max_len=8192 2> $$target.log || { tail -30 $$target.log; exit 1; }; \
		grep 'Done ' $$target.log; done

test-chaos: $(VENV)/dev.stamp ## Kill replicas, nodes, routers and the controller under load; prints recovery times
	$(VENV)/bin/python -m pytest -s --timeout 600 tests/chaos

test-wheel: $(VENV)/dev.stamp ## The newcomer's path: wheel, clean environment, demo, detect, report
	$(VENV)/bin/python -m pytest tests/wheel

test-compiled: $(VENV)/dev.stamp $(COMPILED)/stamp ## The tests of the scheduler and the simulator, compiled by mypyc
	PYTHONPATH=$(abspath $(COMPILED)) $(VENV)/bin/pytest tests/compiled tests/unit/serve_app

test-export: $(EXPORT_VENV)/stamp ## Tests of the export extra, against ultralytics itself
	$(EXPORT_VENV)/bin/python -m pytest tests/export

test-tensorrt: $(TENSORRT_VENV)/stamp ## Engines built for real without a GPU, and the runner on stand-ins
	$(TENSORRT_VENV)/bin/python -m pytest tests/tensorrt

test-gpu: $(GPU_VENV)/stamp ## The real runner, on a machine with an NVIDIA GPU; see docs/gpu.md
	$(GPU_VENV)/bin/python -m pytest -s tests/gpu

docs: $(VENV)/docs.stamp ## The documentation as a site, in out/site; broken links, anchors and foreign hosts are errors
	rm -rf out/site
	$(VENV)/bin/python -m sphinx -q -W --keep-going -b html -d out/site-cache docs out/site
	$(VENV)/bin/python docs/site/check_pages.py out/site
	@echo "open out/site/index.html"

reference: $(VENV)/dev.stamp ## Write the pages of docs/ that are made from the code
	$(VENV)/bin/python docs/site/write_reference.py

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(EXPORT_VENV) $(TENSORRT_VENV) $(GPU_VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
