# Every target makes or refreshes the environment that it needs, also after pyproject.toml or its constraints changed.
# Another interpreter: make run PYTHON=python3.12 (3.11 or later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BROWSER_STAMP := $(VENV)/.installed-browser
FLOORS := .venv-floors
FLOORS_STAMP := $(FLOORS)/.installed
COLAB := .venv-colab
COLAB_STAMP := $(COLAB)/.installed

.DEFAULT_GOAL := run
.PHONY: run lab test test-browser test-colab test-floors test-wheel audit colab assignments outputs clean

run: $(STAMP)  ## execute every notebook in order and write browsable pages under build/
	$(BIN)/llm-tutorial run

lab: $(STAMP)  ## open the notebooks in JupyterLab
	$(BIN)/llm-tutorial lab

test: $(STAMP)  ## lint, unit tests, and every cell of every notebook against its stored output
	$(BIN)/ruff check .
	$(BIN)/llm-tutorial fetch
	$(BIN)/pytest tests
	$(BIN)/pytest notebooks --nbval --nbval-current-env --nbval-cell-timeout 900

test-browser: $(BROWSER_STAMP)  ## every notebook in JupyterLab in Chromium, all cells run, its playground used
	$(BIN)/llm-tutorial fetch
	$(BIN)/pytest -vv -rs tests/browser

test-colab: $(COLAB_STAMP)  ## unit tests, and all notebooks in an imitated session, with Colab's versions
	$(COLAB)/bin/llm-tutorial fetch
	$(COLAB)/bin/pytest tests --ignore tests/browser --ignore tests/test_assignments.py --ignore tests/test_wheel.py \
		--deselect tests/test_diagnostics.py::test_sound_machine_passes -W default
	$(COLAB)/bin/python tests/colab_session.py

test-floors: $(FLOORS_STAMP)  ## unit tests, and all notebooks uncompared, with the lowest versions allowed
	$(FLOORS)/bin/llm-tutorial fetch
	$(FLOORS)/bin/pytest tests -W 'ignore:The `ipykernel.comm.Comm` class:DeprecationWarning'
	LLM_TUTORIAL_SOURCE=offline $(FLOORS)/bin/llm-tutorial run --output build/floors

test-wheel: $(STAMP)  ## the wheel in a fresh environment outside the checkout: its data, and the core notebooks
	$(BIN)/llm-tutorial fetch
	$(BIN)/pytest -vv tests/installed_wheel.py

audit:  ## known vulnerabilities of the tested set; --strict: a package that cannot be looked up fails
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv-audit/bin/pip-audit --strict --progress-spinner off --no-deps --disable-pip -r constraints.txt

colab: $(STAMP)  ## write badges and bootstrap cells: make colab REPOSITORY=owner/name REF=tag
	$(BIN)/python tests/colab_links.py --repository "$(REPOSITORY)" --ref "$(REF)"

assignments: $(STAMP)  ## make the notebooks from those with solutions, by nbgrader
	$(BIN)/python tests/assignments.py

outputs: assignments  ## execute the notebooks, and those with solutions, in place, and store their outputs
	$(BIN)/llm-tutorial run --in-place
	$(BIN)/llm-tutorial run --in-place notebooks/solutions/*.ipynb

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) $(COLAB) $(FLOORS) .venv-audit build notebooks/build notebooks/solutions/build .pytest_cache .ruff_cache

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		f"Python 3.11 or later is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lab,test]"
	@touch $@

$(FLOORS_STAMP): pyproject.toml constraints-floors.txt
	$(PYTHON) -m venv $(FLOORS)
	$(FLOORS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-floors.txt -e ".[lab,test]"
	@touch $@

# Not the extra "test", with which assignments and the wheel are made: nbgrader refuses the IPython that Colab has. Nor is
# it a sound machine for the doctor: Colab's widgets go with its own page, not with JupyterLab. In the tests there, what
# these older libraries warn each other about is no error.
$(COLAB_STAMP): pyproject.toml constraints-colab.txt
	$(PYTHON) -m venv $(COLAB)
	$(COLAB)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-colab.txt \
		-e ".[lab]" pytest nbval mwparserfromhell ruff
	@touch $@

$(BROWSER_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lab,test,browser]"
	@touch $@
