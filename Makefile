# Everything runs in .venv, which the first target that needs it makes: only python3 (3.10 or newer) and g++ have to be there.
# PYTHON chooses another Python; pip's own environment variables (PIP_INDEX_URL, ...) choose where packages come from.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test lint format zoo zoo-arm farm-arm zoo-fx zoo-float fuzz bench board arm-speed relay-era calibration reports clean

help:
	@echo "make demo      train, quantize, compile and check a small CNN on real images (a minute after the first time)"
	@echo "make test      all tests"
	@echo "make lint      ruff and mypy"
	@echo "make zoo       every layer of the eight torchvision networks against PyTorch, all engines (long)"
	@echo "make zoo-arm   the same networks and the demo's CNN on emulated ARM boards (an hour; ZOO_ARM=options)"
	@echo "make zoo-fx    eleven more of them, quantized by FX, with floats between the codes (long)"
	@echo "make zoo-float eleven networks as they are, in float, within 1e-4 of the output's range (long)"
	@echo "make fuzz      random quantized networks against PyTorch, for MINUTES=10"
	@echo "make bench     every bar: latency beside PyTorch, ONNX Runtime and OpenVINO, memory, start; an hour or more (BENCH=options)"
	@echo "make arm-speed inner loops of the ARM kernels in llvm-mca, instructions of networks beside PyTorch and ONNX Runtime (an hour; apt install llvm-19)"
	@echo "make farm-arm  two emulated ARM boards behind a tracker share an accuracy run, and one is killed"
	@echo "make board     download an arm64 board that qemu runs, for tests and trials (0.5 GB)"
	@echo "make calibration  accuracy_reports/results/calibration.md: ways to calibrate compared (a minute or two)"
	@echo "make reports   accuracy_reports/results: the digits and the eight networks, as HTML and JSON (long; REPORTS=options)"
	@echo "make relay-era networks as Relay text in the TVM 0.17 that QTORCH_RELAY_ERA_PYTHON names, and its own importer (hours)"
	@echo "make clean     remove .venv and caches"

demo: $(INSTALLED)
	$(BIN)/qtorch-relay demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

zoo: $(INSTALLED)
	$(BIN)/python -m accuracy_reports.zoo_report

zoo-arm: board
	$(BIN)/python -m tools.zoo_arm $(ZOO_ARM)

farm-arm: board
	QTORCH_RELAY_FARM=1 $(BIN)/python -m pytest tests/accuracy_reports/runs/test_elsewhere.py -k two_emulated_boards

zoo-fx: $(INSTALLED)
	$(BIN)/python -m accuracy_reports.zoo_fx_report

zoo-float: $(INSTALLED)
	$(BIN)/python -m accuracy_reports.zoo_fx_report --float

MINUTES ?= 10
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

REPORTS ?=
BENCH ?=
calibration: $(INSTALLED)
	$(BIN)/python -m accuracy_reports.calibration_report

reports: $(INSTALLED)
	$(BIN)/python -m accuracy_reports.reports --again $(REPORTS)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks $(BENCH)

relay-era: $(INSTALLED)
	$(BIN)/python -m accuracy_reports.relay_era
	$(BIN)/python -m tests.relay.rows
	$(BIN)/python -m tests.qnn.relay_comparison > docs/relay_canonicalization.md

arm-speed: board
	$(BIN)/python -m benchmarks.arm_issue
	$(BIN)/python -m benchmarks.arm_instructions

board: $(INSTALLED)
	$(BIN)/python -m tools.emulated_board setup

install: $(INSTALLED)

# torch comes first and alone: what is installed after it then takes the build that is there.
$(INSTALLED): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "qtorch_relay needs Python 3.10 or newer, '$(PYTHON)' is older or missing; choose one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot make a virtual environment; on Debian and Ubuntu install what is missing with: apt install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install "$$(grep '^torch==' requirements-dev.lock)"
	$(BIN)/python -m pip install -r requirements-dev.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
