"""Debian's Chromium and a JupyterLab, started once for all tests."""

import os
import shutil
from pathlib import Path

import pytest
from lab_server import running_lab
from notebook_page import NotebookPage
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REMEDY = ("No Chromium is on the path. Install it (Debian and Ubuntu: apt-get install chromium), or name it in the "
          "variable LLM_TUTORIAL_CHROMIUM.")


@pytest.fixture(scope="session")
def browser():
    """A Chromium that looks up no name; without one the tests are skipped, but fail where CI=true."""
    path = os.environ.get("LLM_TUTORIAL_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None and os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(REMEDY, pytrace=False)
    if path is None:
        pytest.skip(REMEDY)
    # Root, as in a container, has no sandbox; nothing but the notebooks is opened.
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):  # noqa: ARG001  # without a browser there is no need for it
    """A JupyterLab on a copy of the folder of notebooks, so that nothing in the checkout changes."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns("build", ".ipynb_checkpoints"))
    with running_lab(folder, tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture
def open_notebook(browser, lab):
    """A function that gives a notebook of the folder a new page; in the end the page and its kernel go."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    yield lambda name: NotebookPage(context.new_page(), lab, name)
    context.close()
    lab.end_kernels()
