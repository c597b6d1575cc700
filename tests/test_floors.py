"""The floors in pyproject.toml are the versions that ``make test-floors`` installs."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Not in the file: the extra is for tests with a browser, which run with the tested set only.
BROWSER = {"playwright"}
# Where the version that is tested is above the floor, and why.
UNTESTED = {"torch": "each of its builds is several gigabytes"}


def floors() -> dict[str, SpecifierSet]:
    """Return what pyproject.toml asks for: package, and range."""
    project = PYPROJECT["project"]
    texts = [*project["dependencies"], *PYPROJECT["build-system"]["requires"],
             *(text for extra in project["optional-dependencies"].values() for text in extra)]
    needs = [Requirement(text) for text in texts]
    return {canonicalize_name(need.name): need.specifier for need in needs}


def pins(name: str) -> dict[str, Version]:
    """Return the versions of a constraints file."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    needs = [Requirement(line) for line in lines if line]
    assert all(re.fullmatch(r"==[\w.]+", str(need.specifier)) for need in needs), "each line is name==version"
    names = [canonicalize_name(need.name) for need in needs]
    assert sorted(set(names)) == sorted(names), "no package twice"
    return {canonicalize_name(need.name): Version(str(need.specifier)[2:]) for need in needs}


@pytest.mark.parametrize("name", floors())
def test_a_floor_has_the_form_of_one(name):
    """A floor and nothing else: an upper limit would replace what a reader's system brings."""
    assert re.fullmatch(r">=[\d.]+", str(floors()[name]))


@pytest.mark.parametrize("name", sorted({*floors()} - BROWSER))
def test_the_floor_is_the_version_tested(name):
    tested, floor = pins("constraints-floors.txt")[name], Version(str(floors()[name])[2:])
    assert tested > floor if name in UNTESTED else tested == floor


@pytest.mark.parametrize("name", floors())
def test_the_tested_set_is_within_the_ranges(name):
    assert pins("constraints.txt")[name] in floors()[name]


def test_the_same_pin_is_in_both_files_where_there_is_no_other_build():
    assert pins("constraints.txt")["torch"] == pins("constraints-floors.txt")["torch"]


def test_the_file_says_which_floor_is_not_tested():
    [text] = re.findall(r"not tested by running: (.*?)\.\s", (ROOT / "constraints-floors.txt").read_text())
    assert str(floors()["torch"])[2:] in text

