"""The wheel as its users have it: what is in it, and a lesson run from it far from any checkout.

    make test-wheel

It takes minutes and a package index, so it is no part of ``make test``. The offline causal model is taken from the
user's cache, where ``llm-tutorial fetch`` has put it.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from llm_tutorial.commands.run import REFERENCE_ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 60_000_000  # a notebook on Colab installs it, over a classroom's network
# What could lead back to the checkout, or to another environment.
MISLEADING = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "JUPYTER_PATH"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that pip builds."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=600)
    [path] = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """A function that runs a program of a fresh environment, with the wheel, in an empty folder of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    environment, here = folder / "venv", folder / "here"
    here.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=300)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "install", *constraints, f"{wheel}[lab,site]"], check=True, timeout=1800, cwd=folder)
    variables = {name: value for name, value in os.environ.items() if name not in MISLEADING} | REFERENCE_ENVIRONMENT

    def run(program, *arguments):
        done = subprocess.run([str(environment / "bin" / program), *arguments], cwd=here, env=variables, timeout=1800,
                              capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run
    shutil.rmtree(folder)  # a gigabyte and a half, which pytest would keep for three runs


def test_it_holds_all_modules_and_notebooks_as_they_are_here_and_the_listed_data_and_nothing_else(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    assert wheel.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        found = {name.removeprefix("llm_tutorial/"): sha256(archive.read(name)).hexdigest()
                 for name in archive.namelist() if name.startswith("llm_tutorial/")}
        [licenses] = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
        assert archive.read(licenses) == (ROOT / "LICENSE").read_bytes()
    expected = {}
    kept = {ROOT / "src/llm_tutorial": ["**/*.py", "commands/*.js", "commands/*.css"],
            ROOT: ["notebooks/*.*", "notebooks/solutions/*.*", "data/questions/*.toml"]}
    for folder, patterns in kept.items():
        for path in (path for pattern in patterns for path in folder.glob(pattern)):
            expected[path.relative_to(folder).as_posix()] = sha256(path.read_bytes()).hexdigest()
    for line in (ROOT / "data/SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split(maxsplit=1)
        expected[f"data/{name}"] = digest
    assert expected.items() <= found.items()
    assert {*found} - {*expected} == {"data/SHA256SUMS", "data/README.md"}


def test_it_brings_the_tested_versions_and_nothing_for_tests(run):
    installed = {entry["name"].replace("_", "-").lower()
                 for entry in json.loads(run("python", "-m", "pip", "list", "--format=json"))}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-").splitlines()
    assert installed - {line.partition("==")[0] for line in lines} <= {"llm-tutorial", "pip", "setuptools"}
    assert not {"pytest", "nbval", "nbgrader", "ruff"} & installed
    run("python", "-m", "pip", "check")


def test_the_doctor_finds_no_fault(run):
    assert {finding["verdict"] for finding in json.loads(run("llm-tutorial", "doctor", "--json"))} <= {"ok", "note"}


def test_a_lesson_runs_in_an_empty_folder_with_its_pages(run):
    out = run("llm-tutorial", "run", "02", "--timeout", "900")
    assert out.startswith("The notebooks have been copied to ")
    assert "02_causal_lm  passed" in out
    page = Path(out.splitlines()[-1].removeprefix("Pages: "))
    assert page.is_file()
    assert str(ROOT) not in page.with_name("02_causal_lm.html").read_text(encoding="utf-8")
    assert {path.name for path in (page.parents[2] / "notebooks").iterdir() if path.is_file()} == {
        path.name for pattern in ("*.ipynb", "*.md") for path in (ROOT / "notebooks").glob(pattern)}
