"""Colab: badges and bootstrap cells come from one place, and nothing that Colab brings is replaced."""

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import colab_links
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PLACE = colab_links.Place("someone/language-models", "v1.0")
KAGGLE = re.compile(r"https://kaggle\.com/kernels/welcome\?src=https://github\.com/([^)\s]*)")
LINK = re.compile(r"https://colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/(\S+?)/(notebooks/[^)\s]*)")


@pytest.fixture
def checkout(tmp_path):
    """A copy of the files that ``make colab`` writes."""
    for path in [ROOT / "pyproject.toml", ROOT / "README.md", *colab_links.notebooks()]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    return tmp_path


def test_all_files_say_what_pyproject_says(checkout):
    assert colab_links.write_links(checkout, colab_links.declared_place(checkout)) == [], "run `make colab`"


def test_a_repository_is_written_everywhere_and_taken_back(checkout):
    colab_links.write_links(checkout, colab_links.Place())
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    assert set(colab_links.write_links(checkout, PLACE)) == set(before)
    assert colab_links.declared_place(checkout) == PLACE
    assert colab_links.write_links(checkout, PLACE) == []
    for path in colab_links.notebooks(checkout):
        title, *cells = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        assert title.startswith("# ")
        [(repository, ref, notebook)] = LINK.findall(title)
        assert (repository, ref) == (PLACE.repository, PLACE.ref)
        assert (checkout / notebook).is_file()
        assert KAGGLE.findall(title) == [f"{PLACE.repository}/blob/{PLACE.ref}/{notebook}"]
        [first] = [cell for cell in cells if "git+https://github.com/someone/language-models@v1.0" in cell]
        assert "KAGGLE_KERNEL_RUN_TYPE" in first
    readme = (checkout / "README.md").read_text(encoding="utf-8")
    learners = sorted(path.name for path in checkout.glob("notebooks/*.ipynb"))
    assert [Path(link[2]).name for link in LINK.findall(readme)] == learners
    colab_links.write_links(checkout, colab_links.Place())
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(("repository", "ref"), [("owner", "v1"), ("owner/name", "")])
def test_wrong_places_are_refused(repository, ref):
    with pytest.raises(ValueError, match=r"is not of the form owner/name|belong together"):
        colab_links.Place(repository, ref)


@pytest.mark.parametrize(("place", "variable", "package"), [
    (PLACE, None, "llm-tutorial @ git+https://github.com/someone/language-models@v1.0"),
    (colab_links.Place(), None, f"./{colab_links.WHEEL}"),
    (PLACE, "/wheels/mine.whl", "/wheels/mine.whl"),
])
def test_the_bootstrap_cell_installs_on_colab_only(monkeypatch, place, variable, package):
    from IPython.core.interactiveshell import InteractiveShell

    shell, commands = InteractiveShell(), []
    monkeypatch.setattr(shell, "system", lambda command: commands.append(shell.var_expand(command)))
    monkeypatch.delenv("LLM_TUTORIAL_PACKAGE", raising=False)
    if variable:
        monkeypatch.setenv("LLM_TUTORIAL_PACKAGE", variable)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    shell.run_cell(colab_links.bootstrap(place)).raise_error()
    assert commands == []
    monkeypatch.setitem(sys.modules, "google.colab", object())
    shell.run_cell(colab_links.bootstrap(place)).raise_error()
    assert [command.partition(" -m pip ")[2] for command in commands] == [
        "uninstall -qq -y llm-tutorial", f'install -q "{package}"']


def test_nothing_that_colab_brings_has_to_be_replaced():
    lines = (ROOT / "constraints-colab.txt").read_text(encoding="utf-8").splitlines()
    there = dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line and line[0] != "#")
    there["torch"] = "2.11.0"  # in the file is another build
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        version = Version(there[requirement.name.lower().replace("_", "-")])
        assert requirement.specifier.contains(version), f"{requirement} would replace Colab's {version}"
