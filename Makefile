# Every target sets itself up: a .venv beside this file, made anew only when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: setup tour tour-full test test-paper lint lab browse clean

setup: .venv/installed
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[dev]'
	touch $@

tour: setup
	$(BIN)/dwlt run params/tour.yaml

tour-full: setup
	$(BIN)/dwlt run params/tour_full.yaml

test: setup lint
	$(BIN)/pytest -n 2 --dist loadfile

test-paper: setup
	$(BIN)/pytest -m paper -n 2 -rP

lint: setup
	$(BIN)/ruff check .

lab: setup
	$(BIN)/dwlt lab

browse: setup
	$(BIN)/dwlt browse

clean:
	rm -rf .venv outputs/records outputs/studies
