# Every target makes or refreshes .venv by itself, also after pyproject.toml or constraints.txt changed.
# Another interpreter: make run PYTHON=python3.12 (3.11 or later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := run
.PHONY: run lab test assignments outputs clean

run: $(STAMP)  ## execute every notebook in order and write browsable pages under build/
	$(BIN)/llm-tutorial run

lab: $(STAMP)  ## open the notebooks in JupyterLab
	$(BIN)/llm-tutorial lab

test: $(STAMP)  ## lint, unit tests, and every cell of every notebook against its stored output
	$(BIN)/ruff check .
	$(BIN)/llm-tutorial fetch
	$(BIN)/pytest tests
	$(BIN)/pytest notebooks --nbval --nbval-current-env --nbval-cell-timeout 900

assignments: $(STAMP)  ## make the notebooks from those with solutions, by nbgrader
	$(BIN)/python tests/assignments.py

outputs: assignments  ## execute the notebooks, and those with solutions, in place, and store their outputs
	$(BIN)/llm-tutorial run --in-place
	$(BIN)/llm-tutorial run --in-place notebooks/solutions/*.ipynb

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) build notebooks/build notebooks/solutions/build .pytest_cache .ruff_cache

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		f"Python 3.11 or later is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lab,test]"
	@touch $@
