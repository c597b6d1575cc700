"""The wheel built from this checkout: complete, nothing that is only for building, as small as the README says."""

import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import EmailMessage
from email.parser import Parser
from email.policy import default
from hashlib import file_digest
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

import llm_tutorial

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INFO = f"llm_tutorial-{llm_tutorial.__version__}.dist-info"  # the folder of metadata in the wheel
MOST_BYTES = 60_000_000  # a notebook on Colab installs it, over a classroom's network
FOLDERS = {"data", "notebooks"}
SUFFIXES = {
    "code": {".py", ".j2"},
    "code/templates": {".py", ".j2", ".json"},
    "data": {".md", ".json", ".txt", ".parquet", ".safetensors", ".png", ".csv", ""},
    "notebooks": {".ipynb", ".md"},
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the wheel that hatchling builds, as pip has it build one, but with the hatchling that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    [path] = folder.iterdir()
    return path


@pytest.fixture
def archive(wheel):
    with zipfile.ZipFile(wheel) as opened:
        yield opened


@pytest.fixture
def metadata(archive) -> EmailMessage:
    return Parser(policy=default).parsestr(archive.read(f"{INFO}/METADATA").decode())


def test_it_is_for_every_system(wheel):
    assert wheel.name == f"llm_tutorial-{llm_tutorial.__version__}-py3-none-any.whl"


def test_every_module_is_in_it(archive):
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "llm_tutorial").rglob("*.py")}
    assert modules == {name for name in archive.namelist() if name.endswith(".py")}


def test_the_data_is_complete_and_intact(archive):
    data = "llm_tutorial/data/"
    listed = dict(reversed(line.split(maxsplit=1)) for line in archive.read(f"{data}SHA256SUMS").decode().splitlines())
    found = {}
    for name in archive.namelist():
        if name.startswith(data) and name not in {f"{data}SHA256SUMS", f"{data}README.md"}:
            with archive.open(name) as file:
                found[name.removeprefix(data)] = file_digest(file, "sha256").hexdigest()
    assert found == listed
    assert {PurePosixPath(name).parts[0] for name in found} >= {"models", "tokenizers", "wikipedia"}


def test_the_notebooks_are_in_it_as_they_are_here(archive):
    here = {path.relative_to(ROOT).as_posix(): path.read_bytes()
            for pattern in ("*.ipynb", "*.md", "solutions/*.ipynb", "solutions/*.md")
            for path in (ROOT / "notebooks").glob(pattern)}
    packaged = "llm_tutorial/notebooks/"
    assert here == {f"notebooks/{name.removeprefix(packaged)}": archive.read(name) for name in archive.namelist()
                    if name.startswith(packaged)}


def test_nothing_else_is_in_it(archive):
    """No script that built the data, text that was only trained on, executed copy, page, test or cache."""
    strange = []
    for path in map(PurePosixPath, archive.namelist()):
        parts = path.parts
        if parts[0] == INFO:
            continue
        part = parts[1] if parts[1] in FOLDERS else "code/templates" if parts[1] == "templates" else "code"
        hidden = any(step.startswith((".", "__pycache__")) for step in parts)
        if parts[0] != "llm_tutorial" or hidden or path.suffix not in SUFFIXES[part] or {"build", "saved"} & {*parts}:
            strange.append(str(path))
    assert strange == []


def test_what_it_needs_is_what_pyproject_says(metadata):
    declared = [*PROJECT["dependencies"]]
    for extra, needs in PROJECT["optional-dependencies"].items():
        declared += [f'{need}; extra == "{extra}"' for need in needs]

    def comparable(text):
        need = Requirement(text)
        return need.name.replace("_", "-").lower(), str(need.specifier), str(need.marker or "")

    assert sorted(map(comparable, metadata.get_all("Requires-Dist"))) == sorted(map(comparable, declared))
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["Version"] == llm_tutorial.__version__


def test_it_carries_its_licences_and_its_readme(archive, metadata):
    assert metadata["License-Expression"] == PROJECT["license"]
    here = [ROOT / "LICENSE", *(ROOT / "LICENSES").iterdir()]
    assert sorted(metadata.get_all("License-File")) == sorted(path.relative_to(ROOT).as_posix() for path in here)
    for path in here:
        assert archive.read(f"{INFO}/licenses/{path.relative_to(ROOT).as_posix()}") == path.read_bytes()
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_it_brings_the_command(archive):
    assert archive.read(f"{INFO}/entry_points.txt").decode().split() == [
        "[console_scripts]", "llm-tutorial", "=", "llm_tutorial.cli:main"]


def test_its_size_is_what_the_readme_says_and_bounded(wheel):
    [stated] = re.findall(r"wheel of (\d+) MB", (ROOT / "README.md").read_text(encoding="utf-8"))
    megabytes = wheel.stat().st_size / 1e6
    assert abs(megabytes - int(stated)) <= 1, f"README says {stated} MB, the wheel has {megabytes:.1f} MB"
    assert wheel.stat().st_size < MOST_BYTES
