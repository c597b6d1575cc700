"""``llm-tutorial doctor``: what is installed, what the lessons will use, and what to do about what does not work.

Large libraries are imported inside the checks, so that the report also comes out where one of them is broken.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata

__all__ = ["Finding", "main"]

INSTALL = 'python -m pip install -e ".[lab]"'
LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "gguf", "matplotlib", "ipywidgets")
LOW_BYTES = 2e9  # of disk for the models, and of memory for a lesson that trains one
MORE = ("More: `python -m pip check` (packages that do not fit together), `hf env` (settings of the hub's libraries), "
        "`jupyter kernelspec list` (which Python runs the cells)")


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``verdict`` is ``"ok"``, ``"note"`` (the lessons run) or ``"FAIL"`` (some will not)."""

    verdict: str
    what: str
    detail: str
    remedy: str = ""


def main(arguments: argparse.Namespace) -> int:
    """Print one finding a line, or with ``arguments.json`` one JSON array; return 1 if one is ``FAIL``, else 0."""
    found = []
    for finding in _findings():
        found.append(finding)
        if not arguments.json:
            line = f"{finding.verdict:4}  {finding.what:20}  {finding.detail}"
            print(f"{line}  ->  {finding.remedy}" if finding.remedy else line, flush=True)
    print(json.dumps([asdict(finding) for finding in found], indent=2) if arguments.json else MORE)
    return int(any(finding.verdict == "FAIL" for finding in found))


def _findings() -> Iterator[Finding]:
    for check in (_packages, _imports, _device, _source, _bundled_data, _offline_causal_model, _room):
        yield from _outcome(check)


def _outcome(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a check; if it raises, that is one more."""
    what = check.__name__.strip("_").replace("_", " ")
    try:
        yield from check()
    except Exception as error:  # an installation can be broken in any way, but the package's own errors say what to do
        own = isinstance(error, OSError | ValueError)
        yield Finding("FAIL", what, _line(error), "" if own else f"install again: {INSTALL}")


def _packages() -> Iterator[Finding]:
    """Compare the installed packages with the declared versions; what only the extra ``lab`` needs is a note."""
    from packaging.requirements import Requirement

    yield Finding("ok", "Python", f"{platform.python_version()} at {sys.executable}, {platform.platform()}")
    try:
        declared = metadata.requires("llm-tutorial")
    except metadata.PackageNotFoundError:
        yield Finding("note", "llm-tutorial", "used from a folder, not installed: versions are not compared", INSTALL)
        return
    for requirement in map(Requirement, declared):
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not needed and not requirement.marker.evaluate({"extra": "lab"}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found = "absent"
        if found != "absent" and requirement.specifier.contains(found, prereleases=True):
            yield Finding("ok", requirement.name, f"{found} ({requirement.specifier})")
        else:
            wanted = f"{requirement.name}{requirement.specifier}"
            yield Finding("FAIL" if needed else "note", requirement.name,
                          f"{found}, but {requirement.specifier} is needed", f'python -m pip install "{wanted}"')


def _imports() -> Iterator[Finding]:
    """Import the main libraries: one can be built for another system or another NumPy."""
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except Exception as error:  # not only ImportError: a broken library fails in its own way
            yield Finding("FAIL", f"import {name}", _line(error), f"python -m pip install --force-reinstall {name}")
        else:
            yield Finding("ok", f"import {name}", "works")


def _device() -> Iterator[Finding]:
    import torch

    from llm_tutorial.device import pick_device

    device = pick_device()
    yield Finding("ok", "device", f"{device.name} ({device.reason}), {torch.get_num_threads()} CPU threads")
    if device.name == "cuda":
        free, total = torch.cuda.mem_get_info()
        yield Finding("ok", "GPU", f"{torch.cuda.get_device_name()}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")


def _source() -> Iterator[Finding]:
    """Report the chosen source, and ask the hub once if its cache lacks a model of the lessons."""
    from llm_tutorial.checkpoints import HUB_CHECKPOINTS
    from llm_tutorial.sources import chosen_source, hub

    chosen, origin = chosen_source()
    yield Finding("ok", "source", f"{chosen} ({origin})")
    absent = [] if chosen == "offline" else [
        checkpoint for checkpoint in HUB_CHECKPOINTS.values() if hub.cached_snapshot(*checkpoint) is None]
    if absent:
        answered, reason = hub.use_hub(*absent[0][:2])
        use = "are downloaded when they are needed" if answered else "are replaced by the offline models"
        names = " and ".join(repo for repo, *_ in absent)
        yield Finding("ok" if answered else "note", "hub", f"{reason}; {names} {use}")


def _bundled_data() -> Iterator[Finding]:
    from llm_tutorial.sources import files

    folder = files.verified_folder(files.data_folder())
    yield Finding("ok", "bundled data", f"{len(files.listed_files())} files in {folder} have the right hashes")


def _offline_causal_model() -> Iterator[Finding]:
    from llm_tutorial.sources import offline

    if folder := offline.fetched_causal_lm():
        yield Finding("ok", "offline causal model", f"fetched and intact: {folder}")
    else:
        yield Finding("note", "offline causal model", "not fetched yet; the first lesson that needs it fetches it",
                      "llm-tutorial fetch")


def _room() -> Iterator[Finding]:
    import psutil

    from llm_tutorial.sources import files

    cache = files.cache_folder()
    disk = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    amounts = {"disk": (disk, "set LLM_TUTORIAL_CACHE to a folder on another disk"),
               "memory": (psutil.virtual_memory().available, "close other programs and notebooks")}
    for what, (count, remedy) in amounts.items():
        low = count < LOW_BYTES
        yield Finding("note" if low else "ok", what, f"{count / 1e9:.1f} GB free", remedy if low else "")


def _line(error: Exception) -> str:
    """Return the error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
