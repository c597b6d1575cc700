# Every target makes or refreshes the environment that it needs, also after pyproject.toml or its constraints changed.
# Another interpreter: make run PYTHON=python3.12 (3.11 or later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
BROWSER_STAMP := $(VENV)/.installed-browser
SITE_STAMP := $(VENV)/.installed-site
FLOORS := .venv-floors
FLOORS_STAMP := $(FLOORS)/.installed
LATEST := .venv-latest
COLAB := .venv-colab
COLAB_STAMP := $(COLAB)/.installed
PIP := -m pip --disable-pip-version-check

.DEFAULT_GOAL := run
.PHONY: run site lab test test-browser test-edits test-hub test-colab test-floors test-latest test-wheel test-install test-class test-gpu audit colab assignments outputs class slides clean

run: $(STAMP)  ## execute every lesson in order, and write a site under build/html
	@echo "Executing all lessons from the first to the last cell, about seven minutes on two cores"
	$(BIN)/llm-tutorial run

site: $(SITE_STAMP)  ## write the site under build/html from the stored outputs, without executing a lesson
	$(BIN)/llm-tutorial run --stored

lab: $(STAMP)  ## open the notebooks in JupyterLab
	$(BIN)/llm-tutorial lab

test: $(TEST_STAMP)  ## lint, unit tests, and every cell of every lesson against its stored output
	@echo "Linting, unit tests, then every cell of every lesson: about ten minutes on two cores"
	$(BIN)/ruff check .
	$(BIN)/llm-tutorial fetch
	$(BIN)/pytest tests -n 2
	$(BIN)/pytest notebooks/*.ipynb --nbval --nbval-current-env --nbval-cell-timeout 900

test-browser: $(BROWSER_STAMP)  ## the lessons in JupyterLab in Chromium, playgrounds used, and the site
	@echo "The lessons in JupyterLab in Chromium, playgrounds used, and the site: about six minutes on two cores"
	$(BIN)/llm-tutorial fetch
	$(BIN)/pytest -vv -rs tests/browser

test-edits: $(TEST_STAMP)  ## the lessons with what readers change in them, about an hour
	$(BIN)/llm-tutorial fetch
	$(BIN)/pytest -vv tests/edits

test-hub: $(TEST_STAMP)  ## the lessons with a hub, played by a local server
	$(BIN)/pytest -vv tests/hub

test-colab: $(COLAB_STAMP)  ## unit tests, and all lessons in an imitated session, with Colab's versions
	$(COLAB)/bin/llm-tutorial fetch
	$(COLAB)/bin/pytest tests --ignore tests/test_assignments.py -W default
	$(COLAB)/bin/python tests/colab_session.py

test-floors: $(FLOORS_STAMP)  ## unit tests, and all lessons uncompared, with the lowest versions allowed
	$(FLOORS)/bin/llm-tutorial fetch
	$(FLOORS)/bin/pytest tests -W 'ignore:The `ipykernel.comm.Comm` class:DeprecationWarning'
	LLM_TUTORIAL_SOURCE=offline $(FLOORS)/bin/llm-tutorial run --output build/floors

test-latest:  ## unit tests, and all lessons uncompared, with the newest versions that there are
	rm -rf $(LATEST)
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python $(PIP) install -e ".[lab,site,test]"
	$(LATEST)/bin/llm-tutorial fetch
	$(LATEST)/bin/pytest tests -W default
	LLM_TUTORIAL_SOURCE=offline $(LATEST)/bin/llm-tutorial run --output build/latest

test-wheel: $(TEST_STAMP)  ## the wheel: what is in it, and a lesson run from it in a fresh environment
	$(BIN)/llm-tutorial fetch
	$(BIN)/pytest -vv tests/installed_wheel.py

test-install: $(TEST_STAMP)  ## what uv and conda's pip would install by the documented lines, without installing it
	$(BIN)/python $(PIP) install uv
	$(BIN)/pytest -vv -s tests/dry_install.py

test-class: $(TEST_STAMP)  ## a class of four from release to grades: lesson 7, executed four times
	$(BIN)/llm-tutorial fetch
	$(BIN)/pytest -vv tests/nbgrader_class.py

test-gpu: $(STAMP)  ## on one CUDA GPU of 15 GB or more: answers, trainings, memory, speed, lessons 1 to 6; docs/GPU.md
	@echo "Checks on a GPU, about eight minutes; the results go to build/gpu.json, too"
	@mkdir -p build
	$(BIN)/python tests/gpu_check.py --json build/gpu.json

audit:  ## known vulnerabilities of the tested set; --strict: a package that cannot be looked up fails
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python $(PIP) install pip-audit
	.venv-audit/bin/pip-audit --strict --progress-spinner off --no-deps --disable-pip -r constraints.txt

colab: $(STAMP)  ## write badges and bootstrap cells: make colab REPOSITORY=owner/name REF=tag
	$(BIN)/python tests/colab_links.py --repository "$(REPOSITORY)" --ref "$(REF)"

assignments: $(TEST_STAMP)  ## make the notebooks from those with solutions, by nbgrader
	$(BIN)/python tests/assignments.py

outputs: assignments  ## execute the notebooks, and those with solutions, in place, and store their outputs
	$(BIN)/llm-tutorial run --in-place
	$(BIN)/llm-tutorial run --in-place notebooks/solutions

class: $(TEST_STAMP)  ## write an nbgrader course with points and hidden tests under build/class: docs/CLASS.md
	$(BIN)/python tests/course.py

slides: $(TEST_STAMP)  ## write slides of each lesson under build/slides, with reveal.js from npm
	$(BIN)/python tests/slides.py

clean:  ## remove the environments and everything that was built
	rm -rf $(VENV) $(COLAB) $(FLOORS) $(LATEST) .venv-audit build notebooks/build notebooks/solutions/build .pytest_cache .ruff_cache

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing what the lessons need into $(VENV), once: some minutes, and 1 GB with PyTorch for CPUs. On Linux pip"
	@echo "takes PyTorch for GPUs, several GB, unless PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu is set."
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		f"Python 3.11 or later is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install -c constraints.txt -e ".[lab,site]"
	@touch $@

$(TEST_STAMP): $(STAMP)
	@echo "Installing what the tests need as well, once: less than a minute"
	$(BIN)/python $(PIP) install -c constraints.txt -e ".[lab,site,test]"
	@touch $@

# With npm, and on a click, lesson 1's page then runs the masked model in the reader's browser.
$(SITE_STAMP): $(STAMP)
	$(BIN)/python $(PIP) install -c constraints.txt -e ".[lab,site,live]"
	@touch $@

$(BROWSER_STAMP): $(TEST_STAMP)
	$(BIN)/python $(PIP) install -c constraints.txt -e ".[lab,site,test,browser,live]"
	@touch $@

$(FLOORS_STAMP): pyproject.toml constraints-floors.txt
	$(PYTHON) -m venv $(FLOORS)
	$(FLOORS)/bin/python $(PIP) install -c constraints-floors.txt -e ".[lab,test]"
	@touch $@

# Not the extra "test", with which assignments and the wheel are made: nbgrader refuses the IPython that Colab has. In the
# tests there, what these older libraries warn each other about is no error.
$(COLAB_STAMP): pyproject.toml constraints-colab.txt
	$(PYTHON) -m venv $(COLAB)
	$(COLAB)/bin/python $(PIP) install -c constraints-colab.txt -e ".[lab]" pytest nbval ruff peft
	@touch $@
