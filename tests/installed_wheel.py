"""The wheel as its users have it: installed by pip into an environment of its own, far from any checkout.

    make test-wheel

It takes minutes and a package index, so it is no part of ``make test``, where ``test_wheel.py`` looks into the wheel.
The offline causal model is taken from the user's cache, where ``llm-tutorial fetch`` has put it.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from llm_tutorial.execution import REFERENCE_ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
CORE = ["01_masked_lm", "02_causal_lm", "03_pretraining"]
# What could lead back to the checkout, or to another environment.
MISLEADING = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "JUPYTER_PATH", "COVERAGE_PROCESS_START"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that pip builds."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=600)
    [path] = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment outside the checkout, with the wheel and what it needs, of the tested versions."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "install", *constraints, f"{wheel}[lab]"], check=True, timeout=1800, cwd=folder)
    yield folder
    shutil.rmtree(folder)  # a gigabyte and a half, which pytest would keep for three runs


@pytest.fixture(scope="module")
def run(environment):
    """Return how to run a command of that environment in a folder, in the mode in which stored outputs are made."""
    def command(folder: Path, program: str, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess:
        variables = {name: value for name, value in os.environ.items() if name not in MISLEADING}
        return subprocess.run([str(environment / "bin" / program), *arguments], cwd=folder, timeout=seconds, text=True,
                              capture_output=True, encoding="utf-8", env=variables | REFERENCE_ENVIRONMENT, check=False)

    return command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder outside the checkout."""
    made = tmp_path_factory.mktemp("elsewhere")
    assert ROOT not in made.parents
    return made


@pytest.fixture(scope="module")
def lessons(run, folder):
    """The folder once ``llm-tutorial reset`` has written the notebooks there."""
    refused = run(folder, "llm-tutorial", "run")
    assert (refused.returncode, list(folder.iterdir())) == (2, [])
    assert "no notebooks in" in refused.stderr
    assert "Run `llm-tutorial reset`, which writes them" in refused.stderr
    done = run(folder, "llm-tutorial", "reset")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_package_comes_from_the_wheel(run, folder):
    where = "import llm_tutorial, sys; print(llm_tutorial.__file__, sys.prefix, *sys.path, sep='\\n')"
    done = run(folder, "python", "-c", where)
    assert done.returncode == 0, done.stderr
    file, prefix, *path = done.stdout.splitlines()
    assert Path(file).is_relative_to(prefix)
    assert "site-packages" in Path(file).parts
    assert str(ROOT / "src") not in path


def test_it_is_the_tested_set_of_versions(run, folder):
    done = run(folder, "python", "-m", "pip", "list", "--format=json", "--disable-pip-version-check")
    installed = {entry["name"].replace("_", "-").lower(): entry["version"].partition("+")[0]
                 for entry in json.loads(done.stdout)}
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {name.replace("_", "-").lower(): version for name, version in pins.items()}
    assert {name: version for name, version in installed.items() if name in pins and pins[name] != version} == {}
    assert {name for name in installed if name not in pins} <= {"llm-tutorial", "pip", "setuptools"}
    assert not {"pytest", "nbval", "nbgrader", "ruff"} & {*installed}, "only what a user installs"


def test_its_dependencies_agree(run, folder):
    done = run(folder, "python", "-m", "pip", "check", "--disable-pip-version-check")
    assert done.returncode == 0, done.stdout


def test_the_doctor_finds_the_data_intact(run, environment, folder):
    done = run(folder, "llm-tutorial", "doctor", "--json", "--seconds", "100")
    findings = json.loads(done.stdout)
    failures = [finding for finding in findings if finding["verdict"] == "FAIL"]
    assert (done.returncode, failures) == (0, [])
    [data] = [finding for finding in findings if finding["what"] == "bundled data"]
    count = len((ROOT / "data" / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    assert data["detail"].startswith(f"{count} files are intact in {environment}")


def test_it_brings_its_notebooks_into_an_empty_folder(wheel, lessons):
    """Those of the wheel, without the solutions; ``test_wheel.py`` compares the wheel's with the checkout's."""
    packaged = "llm_tutorial/notebooks/"
    with zipfile.ZipFile(wheel) as archive:
        expected = {name.removeprefix(packaged): archive.read(name) for name in archive.namelist()
                    if name.startswith(packaged) and "/" not in name.removeprefix(packaged)}
    assert {f"{name}.ipynb" for name in CORE} < {*expected}
    assert expected == {path.name: path.read_bytes() for path in (lessons / "notebooks").iterdir()}


@pytest.mark.parametrize("name", CORE)
def test_a_core_notebook_runs(run, lessons, name):
    done = run(lessons, "llm-tutorial", "run", name[:2], "--output", f"pages-{name}", "--timeout", "900", seconds=1800)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}  passed" in done.stdout
    cells = [cell for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells if cell.cell_type == "code"]
    assert f"  {len([cell for cell in cells if cell.source.strip()])} cells  " in done.stdout
    page = (lessons / f"pages-{name}" / f"{name}.html").read_text(encoding="utf-8")
    assert str(ROOT) not in page


def test_it_runs_too_where_the_notebooks_lie_in_the_current_folder(run, lessons):
    """Not a core notebook again: one cell, under the name of a lesson, which is what the command looks for."""
    folder = lessons.with_name("beside")
    folder.mkdir()
    cell = nbformat.v4.new_code_cell("import llm_tutorial\nllm_tutorial.__file__")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "01_masked_lm.ipynb")
    done = run(folder, "llm-tutorial", "run")
    assert done.returncode == 0, done.stderr
    assert "01_masked_lm  passed  1 cells" in done.stdout


def test_the_wheel_is_of_this_checkout(run, folder):
    code = ("from importlib.metadata import files\n"
            "for file in files('llm-tutorial'):\n"
            "    if file.hash: print(file.hash.value, file.as_posix())")
    recorded = dict(reversed(line.split(maxsplit=1)) for line in run(folder, "python", "-c", code).stdout.splitlines())
    for path in (ROOT / "src" / "llm_tutorial").rglob("*.py"):
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
        assert recorded[path.relative_to(ROOT / "src").as_posix()] == digest
