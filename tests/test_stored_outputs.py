"""Strict comparison: a stored output that differs in one digit fails the run that ``make test`` makes."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat

from llm_tutorial.sources.files import sha256_of

ROOT = Path(__file__).resolve().parents[1]
LISTED = dict(reversed(line.split()) for line in (ROOT / "data/SHA256SUMS").read_text(encoding="utf-8").splitlines())


def test_one_changed_digit_fails_and_an_equal_output_passes(tmp_path):
    for name, stored in {"equal": "42", "changed": "43"}.items():
        cell = nbformat.v4.new_code_cell("6 * 7", execution_count=1)
        cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": stored}, execution_count=1)]
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    [options] = re.findall(r"pytest notebooks\S* (--nbval.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(tmp_path), *options.split(), "-rA", "-c", str(ROOT / "pyproject.toml"),
         "-p", "no:cacheprovider"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"PASSED .*equal\.ipynb::Cell 0", done.stdout)
    assert re.search(r"FAILED .*changed\.ipynb::Cell 0", done.stdout)


def test_every_bundled_file_is_listed_with_its_hash():
    data = ROOT / "data"
    folders = ("drawings", "models", "runs", "tokenizers", "wikipedia")
    found = {file.relative_to(data).as_posix(): sha256_of(file)
             for folder in folders for file in (data / folder).rglob("*") if file.is_file()}
    assert found == LISTED


def test_every_bundled_file_is_in_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert not [name for name in LISTED if not any(f"data/{name}".startswith(f"{folder}/") for folder in included)]
