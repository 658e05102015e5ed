# Needs only Python >= 3.11 with venv, and make. Everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt
TESTS ?=

.PHONY: demo test lint types tests kernels fuzz site clean agents

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
	$(BIN)/lint-imports

types: .venv/.dev
	$(BIN)/mypy

# Bytecode is kept even where the environment says otherwise: tests start hundreds of processes.
tests: .venv/.dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --max-worker-restart 0 -m "not slow" $(TESTS)

# The kernels of training and of the engine fused on a CPU, in Triton's interpreter, which needs an older NumPy than the
# rest. Nothing else needs Triton on a CPU, so it has a folder of its own (a download of 200 MB, once).
TRITON := .venv/triton
kernels: $(TRITON)/.installed
	PYTHONPATH=$(TRITON) TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto \
	  tests/kernels/test_fused_kernels.py tests/kernels/test_training_kernels.py

$(TRITON)/.installed: .venv/bin/python Makefile
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --upgrade \
	  --target $(TRITON) triton==3.7.1 numpy==2.3.5
	@touch $@

# The documentation as a site in build/site, with every link and anchor checked; tests build it too.
site: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# SKILL.md, from the help of the commands and the public names; a test compares it with them.
agents: .venv/.dev
	$(BIN)/python docs/_site/agents.py

# The long run of the fuzzing suite: a quarter of an hour on two cores. FUZZ='--kind onnx' tries one kind.
FUZZ ?= --count 20000
fuzz: .venv/.dev
	PYTHONPATH=.:tests $(BIN)/python -m fuzz --jobs 2 $(FUZZ)

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
	$(PIP) --editable '.[dev,all]'
	$(PIP) --no-deps nvidia-tao-core
	@touch $@ .venv/.demo

clean:
	rm -rf .venv demo dist build
