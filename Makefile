# The doors of this project; `make help` lists them. Every door does the set-up it needs.
# PIP_ARGS is handed to pip, PYTHON chooses the interpreter, PICOJEPA_PROFILE the size of the experiment.
SHELL := /bin/bash
BIN := .venv/bin
# Says that set-up is done, in this very folder: a virtual environment does not survive being moved or copied.
STAMP := .venv/ready-$(firstword $(shell pwd | cksum))
# What the checks of the built book take from npm, and which folder they look at: make test-web SITE=...
WEB := .venv/web/node_modules/.package-lock.json
SITE := _build/html

# Jupyter and Matplotlib want a writable home; without one they get a folder of ours.
ifneq ($(shell test -n "$$HOME" && test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.venv/home
endif

.PHONY: help setup doctor test test-web lighthouse book lab lint mutants bench classify experiments reliability kinetics clean
.DEFAULT_GOAL := help

help:  ## list these doors
	@sed -n 's/^\([a-z-]*\):.*## /make \1|/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml requirements.lock tools/setup.sh
	@bash tools/setup.sh $(PIP_ARGS)
	@touch $@

setup: $(STAMP)  ## make .venv with the pinned packages and look for FFmpeg (the other doors do it too)

doctor: $(STAMP)  ## print versions, decode one clip, name what is wrong and how to mend it
	@$(BIN)/python tools/doctor.py

test: $(STAMP)  ## run the tests, two files at a time; chapters run in the profile smoke
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

$(WEB): tests/web/package.json tests/web/package-lock.json | $(STAMP)
	@command -v npm >/dev/null || { echo "npm is missing (on Debian: sudo apt-get install npm)" >&2; exit 1; }
	@mkdir -p .venv/web && cp tests/web/package.json tests/web/package-lock.json .venv/web/
	@npm ci --prefix .venv/web --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

test-web: $(STAMP) $(WEB)  ## open every page of the built book in Chromium, two at a time, and try all that can be used
	@$(BIN)/python -m pytest tests/web -q -n 2 --dist loadgroup --confcutdir=tests/web --site $(SITE)

lighthouse: $(STAMP) $(WEB)  ## let Lighthouse rate the built book and write benchmarks/web.json
	@$(BIN)/python -m tests.web.lighthouse --site $(SITE) $(ARGS)

book: $(STAMP)  ## run every notebook and build the book to _build/html; any warning is an error
	$(BIN)/jupyter-book build book -W -n --keep-going
	@echo "The book is at _build/html/index.html"

lab: $(STAMP)  ## open copies of the chapters, made for it, in JupyterLab (ARGS="--no-browser --port 9999")
	@$(BIN)/python -m tools.lab_copies
	$(BIN)/jupyter-lab --notebook-dir=. --LabApp.default_url=/lab/tree/lab/01_data.ipynb $$(test $$(id -u) -ne 0 || echo --allow-root) $(ARGS)

lint: $(STAMP)  ## style, types and spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell

mutants: $(STAMP)  ## break the package on purpose, one fault at a time, and show that the tests notice
	$(BIN)/python tools/mutants.py

bench: $(STAMP)  ## measure the published step and ours, training beside other work, and long lists: benchmarks/*.json
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.lists

classify: $(STAMP)  ## ask the trained model about videos: make classify VIDEO="a.mp4 folder" (ARGS=--json)
	@$(BIN)/python -m picojepa.classify $(VIDEO) $(ARGS)

experiments: $(STAMP)  ## run the experiments behind the book and the studies of their encoders (hours)
	$(BIN)/python -m evidence.trials
	$(BIN)/python -m evidence.experiments
	$(BIN)/python -m evidence.studies

reliability: $(STAMP)  ## provoke every fault that the tests know, read 10 000 damaged files, and record what came of it
	$(BIN)/python -m tools.reliability
	$(BIN)/python -m tools.fuzz_videos

kinetics: $(STAMP)  ## fetch the videos of Kinetics-700-2020 that the paper used (it says first how large they are)
	@$(BIN)/python -m tools.kinetics $(ARGS)

clean:  ## remove the built book and its cache of executed notebooks
	rm -rf _build
