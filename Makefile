SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help venv demo demo-text test lint bench tables clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

$(BIN)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@# W&B's validation of sweep files; it asks for numpy 1 and works with numpy 2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'sweeps>=0.3'
	touch $@

venv: $(BIN)/.installed ## make the environment alone (.venv)

demo: venv ## train a DCGAN on digits, test it, sample from it (under 3 minutes of training on two cores)
	$(BIN)/lit-gen run --config configs/gan/dcgan_digits.yaml --loggers.upload_best false
	@run=$$(ls -td runs/dcgan_digits/*/ | head -1); $(BIN)/lit-gen sample $$run --n 64 --out $${run}samples/grid.png

demo-text: venv ## train a small Transformer on number words, test it, print ten translations (under 4 minutes on two cores)
	$(BIN)/lit-gen run --config configs/text/transformer_numbers.yaml --loggers.upload_best false
	@run=$$(ls -td runs/transformer_numbers/*/ | head -1); head -40 $${run}samples/test.txt

test: venv ## run the whole test suite
	@# three workers on two cores: many tests wait for processes and for a cluster
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

lint: venv ## ruff: lint and format check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: venv ## measure ours beside bare PyTorch loops, torchvision and torchmetrics; ARGS="--root FOLDER --record"
	$(BIN)/python -m benchmarks $(ARGS)

tables: venv ## write the tables of README and docs/papers from the records in results/
	$(BIN)/python -m results.tables

clean: ## remove the environment and caches (runs are kept)
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache
