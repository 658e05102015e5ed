# Needs only Python >= 3.11 with venv, and make. Everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
TESTS ?=

.PHONY: demo test lint types tests clean

# Pull genuine weights, verify them, convert them; with VIDEO=clip.avi, name the action in it.
demo: .venv/.demo
	@mkdir -p demo
	$(BIN)/i3dzoo pull rgb_scratch
	$(BIN)/i3dzoo verify rgb_scratch
	$(BIN)/i3dzoo convert rgb_scratch demo/rgb_scratch_hmdb51.safetensors --labels hmdb51 --quiet --force
	$(BIN)/i3dzoo convert rgb_scratch demo/rgb_scratch_tao.pt --to piergiaj --quiet --force
	$(if $(VIDEO),$(BIN)/i3dzoo predict "$(VIDEO)" --model rgb_scratch)
	@echo
	@echo "DeepMind's Kinetics-400 weights were pulled and verified to the last tensor, and converted:"
	@ls -l demo/rgb_scratch_hmdb51.safetensors demo/rgb_scratch_tao.pt
	@echo "The first has a fresh head for the 51 classes of HMDB51; NVIDIA TAO loads the second."
	@$(if $(VIDEO),:,echo "To name the action in a video of yours: make demo VIDEO=clip.avi")

# What CI runs.
test: lint types tests

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev
	$(BIN)/mypy

tests: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(TESTS)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "i3dzoo needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing i3dzoo into .venv (a minute or two, once)"
	$(PIP) --editable '.[plot]'
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing i3dzoo and what its tests need into .venv (a few minutes, once)"
	$(PIP) --editable '.[dev,plot,tensorflow,flow,onnx,tensorrt]'
	@touch $@ .venv/.demo

clean:
	rm -rf .venv demo dist build
