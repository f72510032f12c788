# Every target sets itself up: a .venv beside this file, made anew only when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

# TORCH=cpu takes torch and torchvision from TORCH_INDEX alone: an index of their CPU wheels, or a folder with them
ifneq ($(TORCH),)
ifneq ($(TORCH),cpu)
$(error TORCH=$(TORCH): want cpu, or nothing for what pip takes by itself)
endif
CPU_WHEELS = $(if $(TORCH_INDEX),$(if $(wildcard $(TORCH_INDEX)),--no-index --find-links,--index-url) $(TORCH_INDEX),\
  $(error TORCH=cpu: want TORCH_INDEX=, the address of an index of CPU wheels of torch and torchvision, or a folder))
endif

.PHONY: setup tour tour-full test test-paper test-faults lint docs lab browse clean

setup: .venv/installed
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
ifeq ($(TORCH),cpu)
	$(BIN)/pip install -q --no-deps $(CPU_WHEELS) torch torchvision || \
	  { echo "TORCH=cpu: $(TORCH_INDEX) has no torch and torchvision for this Python and machine" >&2; exit 1; }
endif
	$(BIN)/pip install -q -e '.[dev]'
ifeq ($(TORCH),cpu)
	@$(BIN)/python -c "import torch, torchvision; torch.version.cuda and exit('TORCH=cpu: $(TORCH_INDEX) has no CPU' \
	  ' wheel of a version that pyproject.toml wants, and pip took torch with CUDA; remove .venv to try again')"
endif
	touch $@

tour: setup
	$(BIN)/dwlt run params/tour.yaml

tour-full: setup
	$(BIN)/dwlt run params/tour_full.yaml

test: setup lint
	$(BIN)/pytest -n 2 --dist loadfile

test-paper: setup
	$(BIN)/pytest -m paper -n 2 -rP

# kills at every moment, full disks, flipped bits, NaN, and on Dask and Slurm where they are there
test-faults: setup
	DWLT_FAULTS=full $(BIN)/pytest -n 2 --dist worksteal --durations 0 tests/execution/test_faults.py tests/records/test_leases.py \
	  tests/records/test_corruption.py tests/execution/test_dask_pool.py tests/execution/test_slurm.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: setup
	DWLT_OUTPUTS=docs/_build/study $(BIN)/dwlt report params/tour_full.yaml
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

lab: setup
	$(BIN)/dwlt lab

browse: setup
	$(BIN)/dwlt browse

clean:
	rm -rf .venv outputs/records outputs/studies docs/_build docs/_generated
