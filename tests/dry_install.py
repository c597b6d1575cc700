"""The documented lines for uv and conda, by a dry run: what they would install, and that it is the tested set.

    make test-install

It needs a package index, so it is no part of ``make test``.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
OF_THE_GPU_BUILD = ("nvidia-", "cuda-", "triton==", "setuptools==")  # what only PyTorch for CUDA asks for
UV = [sys.executable, "-m", "uv"]


def would_install(folder, arguments):
    """Return what ``uv pip install`` says that it would install into a fresh environment, as ``name==version``."""
    subprocess.run([*UV, "venv", "--quiet", folder], check=True)
    done = subprocess.run([*UV, "pip", "install", "--dry-run", "--python", folder, *arguments], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print("", *re.findall(r"^Would .*", done.stderr, re.M), sep="\n")
    return set(re.findall(r"^ \+ (\S+==[\w.]+)", done.stderr, re.M))


def documented():
    """The arguments of the line for uv."""
    text = (ROOT / "docs" / "INSTALLING.md").read_text(encoding="utf-8")
    line = re.search(r"^ {4}uv pip install (.+?)(?:  +#.*)?$", text, re.M)[1]
    return line.replace('"', "").split()


def of_conda():
    """The lines that conda gives to pip."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    [lines] = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    return [argument for line in lines for argument in line.split()]


@pytest.mark.parametrize("arguments", [documented(), of_conda()], ids=["uv", "conda"])
def test_the_documented_line_installs_the_tested_set(tmp_path, arguments):
    found = would_install(tmp_path / "environment", arguments)
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-").splitlines()
    others = {pin for pin in found if pin not in constraints and not pin.startswith(OF_THE_GPU_BUILD)}
    assert len(found) > 80
    assert others == set(), "not in constraints.txt"
