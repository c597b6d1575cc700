"""The versions in pyproject.toml, in the tested set, and in the lowest set, which ``make test-floors`` installs."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# The lowest set leaves out what runs with the tested set only: the site, and the tests with a browser.
OF_BOTH = [*PROJECT["dependencies"], *EXTRAS["lab"], *EXTRAS["test"]]
ALL = [*OF_BOTH, *EXTRAS["site"], *EXTRAS["browser"], *EXTRAS["live"]]


def pins(name: str) -> dict[str, Version]:
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    found = {canonicalize_name(line.partition("==")[0]): Version(line.partition("==")[2]) for line in lines}
    assert len(found) == len(lines), "no package twice"
    return found


@pytest.mark.parametrize("need", [*map(Requirement, ALL)], ids=str)
def test_a_requirement_is_a_floor_that_the_tested_set_meets(need):
    """A floor and nothing else: an upper limit would replace what a reader's system brings."""
    assert re.fullmatch(r">=[\d.]+", str(need.specifier))
    assert pins("constraints.txt")[canonicalize_name(need.name)] in need.specifier


@pytest.mark.parametrize("need", [*map(Requirement, OF_BOTH)], ids=str)
def test_the_lowest_set_has_each_floor(need):
    tested, floor = pins("constraints-floors.txt")[canonicalize_name(need.name)], Version(str(need.specifier)[2:])
    assert tested == floor or (need.name == "torch" and tested > floor), "of torch the tested build is taken"


def test_the_package_and_the_checks_of_its_code_are_for_the_same_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert project["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    assert f"sys.version_info >= ({lowest.replace('.', ', ')})" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_what_is_pinned_can_be_installed_on_the_lowest_python_that_is_promised():
    """Debian 12 has 3.11.2; only what is installed here tells what it asks for."""
    lowest = Version(PROJECT["requires-python"].removeprefix(">="))
    pinned = {pin for path in ROOT.glob("constraints*.txt") for pin in pins(path.name).items()}
    installed = [found for found in metadata.distributions()
                 if (canonicalize_name(found.name), Version(found.version)) in pinned]
    assert len(installed) > 50
    assert [f"{found.name} {found.version}" for found in installed
            if lowest not in SpecifierSet(found.metadata["Requires-Python"] or "")] == []
