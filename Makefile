# The doors of this project; `make help` lists them. Every door does the set-up it needs.
# PIP_ARGS is handed to pip, PYTHON chooses the interpreter, PICOJEPA_PROFILE the size of the experiment.
SHELL := /bin/bash
BIN := .venv/bin
# Says that set-up is done, in this very folder: a virtual environment does not survive being moved or copied.
STAMP := .venv/ready-$(firstword $(shell pwd | cksum))

# Jupyter and Matplotlib want a writable home; without one they get a folder of ours.
ifneq ($(shell test -n "$$HOME" && test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.venv/home
endif

.PHONY: help setup doctor test book lab lint mutants bench experiments reliability kinetics clean
.DEFAULT_GOAL := help

help:  ## list these doors
	@sed -n 's/^\([a-z]*\):.*## /make \1|/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml requirements.lock tools/setup.sh
	@bash tools/setup.sh $(PIP_ARGS)
	@touch $@

setup: $(STAMP)  ## make .venv with the pinned packages and look for FFmpeg (the other doors do it too)

doctor: $(STAMP)  ## print versions, decode one clip, name what is wrong and how to mend it
	@$(BIN)/python tools/doctor.py

test: $(STAMP)  ## run the tests; chapters run in the profile smoke
	@$(BIN)/python -m pytest -q

book: $(STAMP)  ## run every notebook and build the book to _build/html; any warning is an error
	$(BIN)/jupyter-book build book -W -n --keep-going
	@echo "The book is at _build/html/index.html"

lab: $(STAMP)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter-lab --notebook-dir=book

lint: $(STAMP)  ## style, types and spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell

mutants: $(STAMP)  ## break the package on purpose, one fault at a time, and show that the tests notice
	$(BIN)/python tools/mutants.py

bench: $(STAMP)  ## measure the published step and ours side by side and write benchmarks/*.json
	$(BIN)/python -m tools.bench
	$(BIN)/python -m tools.bench_lists

experiments: $(STAMP)  ## run the experiments behind the book and the studies of their encoders (hours)
	$(BIN)/python -m tools.experiments
	$(BIN)/python -m tools.studies

reliability: $(STAMP)  ## provoke every fault that the tests know, read 10 000 damaged files, and record what came of it
	$(BIN)/python -m tools.reliability
	$(BIN)/python -m tools.fuzz_videos

kinetics: $(STAMP)  ## fetch the videos of Kinetics-700-2020 that the paper used (it says first how large they are)
	@$(BIN)/python -m tools.kinetics $(ARGS)

clean:  ## remove the built book and its cache of executed notebooks
	rm -rf _build
