"""Strict comparison: a stored output that differs in one digit fails the run that ``make test`` makes."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def notebook(tmp_path):
    cell = nbformat.v4.new_code_cell("6 * 7", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "42"}, execution_count=1)]
    path = tmp_path / "answer.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


def run_nbval(notebook: Path) -> subprocess.CompletedProcess:
    """Run the options of the Makefile's own command on another notebook."""
    [options] = re.findall(r"pytest notebooks (--nbval.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "pytest", str(notebook), *options.split(), "-c", str(ROOT / "pyproject.toml"),
               "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=notebook.parent, capture_output=True, text=True, timeout=120, check=False)


def test_equal_output_passes(notebook):
    done = run_nbval(notebook)
    assert done.returncode == 0, done.stdout


def test_one_changed_digit_fails(notebook):
    notebook.write_text(notebook.read_text(encoding="utf-8").replace("42", "43"), encoding="utf-8")
    done = run_nbval(notebook)
    assert done.returncode == 1
    assert "43" in done.stdout
    assert "42" in done.stdout


def test_every_bundled_file_is_listed_with_its_hash():
    from llm_tutorial.files import sha256_of

    data = ROOT / "data"
    listed = dict(reversed(line.split()) for line in (data / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    folders = ("models", "runs", "tokenizers", "wikipedia")
    found = {file.relative_to(data).as_posix(): sha256_of(file)
             for folder in folders for file in (data / folder).rglob("*") if file.is_file()}
    assert listed == found


def test_every_bundled_file_is_in_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    listed = [line.split()[1] for line in (ROOT / "data" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    assert not [name for name in listed if not any(f"data/{name}".startswith(f"{folder}/") for folder in included)]
