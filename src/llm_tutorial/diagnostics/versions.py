"""Python and the packages: installed in the ranges that this package declares, and importable."""

from __future__ import annotations

import importlib
import pkgutil
import platform
import re
import sys
import time
from collections.abc import Iterator
from importlib import metadata

from llm_tutorial.diagnostics.finding import Finding, one_line

__all__ = ["IMPORTED", "import_library", "own_modules", "package_versions", "python_version"]

INSTALL = 'python -m pip install -e ".[lab]"'
# In an order in which the first one that breaks is the one at fault.
IMPORTED = ("packaging", "platformdirs", "filelock", "numpy", "torch", "safetensors", "huggingface_hub", "transformers",
            "accelerate", "pandas", "pyarrow", "datasets", "gguf", "PIL", "matplotlib", "ipywidgets")

_DISTRIBUTION = "llm-tutorial"
# Where the package is used from a folder that was not installed, nothing declares what it needs.
_USED = ("torch", "transformers", "datasets", "accelerate", "huggingface_hub", "sentencepiece", "safetensors", "gguf",
         "numpy", "pandas", "pyarrow", "matplotlib", "pillow", "ipywidgets", "platformdirs", "filelock")
_OF_EXTRAS = ("nbclient", "nbconvert", "nbformat", "psutil", "jupyter_client", "IPython")


def python_version() -> Iterator[Finding]:
    """Report the interpreter."""
    found = f"{platform.python_version()} at {sys.executable}, on {platform.system()} {platform.machine()}"
    recent = sys.version_info >= (3, 11)
    yield Finding("ok" if recent else "FAIL", "Python", found, "" if recent else "use Python 3.11 or newer")


def package_versions() -> Iterator[Finding]:
    """Report each package this one declares, with its range."""
    from packaging.requirements import Requirement

    installed = _is_installed(_DISTRIBUTION)
    if installed:
        yield Finding("ok", _DISTRIBUTION, metadata.version(_DISTRIBUTION))
    else:
        yield Finding("note", _DISTRIBUTION, "used from a folder, not installed: no version floors to check", INSTALL)
    for text in metadata.requires(_DISTRIBUTION) or [] if installed else _USED:
        requirement = Requirement(text)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", str(requirement.marker or ""))
        if requirement.marker and not requirement.marker.evaluate({"extra": extra[1] if extra else ""}):
            continue
        yield from _package(requirement.name, requirement.specifier, extra[1] if extra else "")


def import_library(name: str) -> Iterator[Finding]:
    """Import a library: installed is not enough where it was built for another system or another NumPy."""
    began = time.monotonic()
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:  # not only ImportError: a broken library fails in its own ways
        yield Finding("FAIL", f"import {name}", f"{type(error).__name__}: {one_line(error)}",
                      f"python -m pip install --force-reinstall {name}")
    else:
        yield Finding("ok", f"import {name}", f"took {time.monotonic() - began:.1f} s")


def own_modules() -> Iterator[Finding]:
    """Import this package's modules: a name that a library has renamed is an error there."""
    import llm_tutorial

    imported = faults = 0
    for module in pkgutil.walk_packages(llm_tutorial.__path__, "llm_tutorial."):
        if module.name.endswith("__main__"):  # importing it would run it
            continue
        try:
            importlib.import_module(module.name)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _OF_EXTRAS:
                continue  # for the commands that run notebooks; reported with the packages
            faults += 1
            yield Finding("FAIL", module.name, f"does not import: {type(error).__name__}: {one_line(error)}", INSTALL)
        else:
            imported += 1
    if not faults:
        yield Finding("ok", "modules", f"all {imported} modules of this package import")


def _package(name: str, floor: object, extra: str) -> Iterator[Finding]:
    """Report a package; one that only an extra asks for is not needed by every reader."""
    wanted = f"{name}{floor}"
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        purpose = f"not installed, only needed for the extra [{extra}]" if extra else "not installed"
        yield Finding("note" if extra else "FAIL", name, purpose, f'python -m pip install "{wanted}"')
        return
    if floor.contains(found, prereleases=True):
        yield Finding("ok", name, f"{found} ({floor})" if str(floor) else found)
    else:
        yield Finding("note" if extra else "FAIL", name, f"{found}, but {floor} is needed",
                      f'python -m pip install --upgrade "{wanted}"')


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
