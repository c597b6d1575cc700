"""What is installed, what the notebooks will use, and what to do about what is missing."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata

from llm_tutorial import files

__all__ = ["Finding", "doctor", "findings"]

_DISTRIBUTION = "llm-tutorial"
_INSTALL = 'python -m pip install -e ".[lab]"'
_DISK_BYTES = 2_000_000_000
_SECONDS = 6.0
# Where the package is used from a folder that was not installed, nothing declares what it needs.
_USED = ("torch", "transformers", "datasets", "accelerate", "huggingface_hub", "safetensors", "numpy", "pandas",
         "pyarrow", "matplotlib", "ipywidgets", "platformdirs")
_IMPORTED = ("packaging", "numpy", "torch", "safetensors", "huggingface_hub", "transformers", "pandas", "pyarrow",
             "datasets", "platformdirs")
_BUNDLED = ("models/minilm-mlm/model.safetensors", "tokenizers/gpt2/vocab.json", "wikipedia/articles.parquet",
            "wikipedia/intros.parquet")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        verdict: ``"ok"``, ``"note"`` (good to know, nothing fails) or ``"FAIL"`` (notebooks will fail).
        what: what was looked at.
        detail: what was found.
        remedy: what to do, empty if there is nothing to do.
    """

    verdict: str
    what: str
    detail: str
    remedy: str = ""


def doctor(*, as_json: bool = False) -> int:
    """Print the report, one finding a line, and return 1 if something that is needed does not work, else 0."""
    found = []
    for finding in findings():
        found.append(finding)
        if not as_json:
            line = f"{finding.verdict:4}  {finding.what:15}  {finding.detail}"
            print(f"{line}  ->  {finding.remedy}" if finding.remedy else line, flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    return int(any(finding.verdict == "FAIL" for finding in found))


def findings() -> Iterator[Finding]:
    """Look at one thing after the other; a check that breaks is itself a finding, and the next one follows."""
    checks = (_python, _packages, _imports, _device, _source, _hub, _bundled_data, _causal_lm, _disk)
    for check in checks:
        what = check.__name__.strip("_").replace("_", " ")
        try:
            yield from check()
        except ImportError as error:  # reported above as a failure
            yield Finding("note", what, f"not checked, because a library is missing: {_line(error)}")
        except Exception as error:  # whatever is wrong with this installation, the report goes on
            yield Finding("FAIL", what, f"{type(error).__name__}: {_line(error)}", f"install again: {_INSTALL}")


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} at {sys.executable}, on {platform.system()} {platform.machine()}"
    recent = sys.version_info >= (3, 11)
    yield Finding("ok" if recent else "FAIL", "Python", found, "" if recent else "use Python 3.11 or newer")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    installed = _is_installed(_DISTRIBUTION)
    if installed:
        yield Finding("ok", _DISTRIBUTION, metadata.version(_DISTRIBUTION))
    else:
        yield Finding("note", _DISTRIBUTION, "used from a folder, not installed: no version floors to check", _INSTALL)
    for text in metadata.requires(_DISTRIBUTION) or [] if installed else _USED:
        requirement = Requirement(text)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", str(requirement.marker or ""))
        if requirement.marker and not requirement.marker.evaluate({"extra": extra[1] if extra else ""}):
            continue
        yield from _package(requirement.name, requirement.specifier, extra[1] if extra else "")


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


def _imports() -> Iterator[Finding]:
    """Installed is not enough: a library built for another system or another NumPy does not import."""
    for name in _IMPORTED:
        try:
            importlib.import_module(name)
        except Exception as error:  # not only ImportError: a broken library fails in its own ways
            yield Finding("FAIL", f"import {name}", f"{type(error).__name__}: {_line(error)}",
                          f"python -m pip install --force-reinstall {name}")


def _device() -> Iterator[Finding]:
    import torch

    from llm_tutorial import device

    try:
        chosen = device.pick_device()
    except ValueError as error:
        yield Finding("FAIL", "device", _line(error), "change or unset the variable")
        return
    yield Finding("ok", "device", f"{chosen.name} ({chosen.reason}), {torch.get_num_threads()} CPU threads")
    fast, detail = device._fast_bf16("cpu")
    yield Finding("ok" if fast else "note", "CPU bfloat16", detail)


def _source() -> Iterator[Finding]:
    from llm_tutorial.checkpoints import chosen_source

    try:
        chosen, origin = chosen_source(None)
    except ValueError as error:
        yield Finding("FAIL", "source", _line(error), "change or unset LLM_TUTORIAL_SOURCE")
    else:
        yield Finding("ok", "source", f"{chosen} ({origin})")


def _hub() -> Iterator[Finding]:
    """Report the cache and the hub for the three repositories; all requests run at the same time."""
    from llm_tutorial import checkpoints, corpus, hub

    wanted = {repo: (revision, "model") for repo, revision in checkpoints._HUB_CHECKPOINTS.values()}
    wanted[corpus._REPOSITORY] = (corpus._REVISION, "dataset")
    answers = _together({repo: partial(hub.why_unreachable, repo, *pin) for repo, pin in wanted.items()})
    needed = os.environ.get("LLM_TUTORIAL_SOURCE", "").strip().lower() == "hub"
    for repo, (revision, kind) in wanted.items():
        try:
            kept = hub.cached_snapshot(repo, revision) if kind == "model" else corpus._kept_file()
        except OSError as error:
            yield Finding("note", repo, _line(error))
            continue
        trouble = answers[repo]
        if kept and kept.exists():
            yield Finding("ok", repo, f"in the cache: {kept}")
        elif trouble is None:
            yield Finding("ok", repo, "the hub answers; it will be downloaded when it is first used")
        elif needed:
            yield Finding("FAIL", repo, f"not in the cache; hub not reachable: {trouble}",
                          "set LLM_TUTORIAL_SOURCE=auto")
        else:
            yield Finding("note", repo, f"not in the cache; hub not reachable: {trouble}; the offline one is used")


def _together(calls: dict[str, Callable[[], str | None]]) -> dict[str, str | None]:
    """Call all at once in threads and return what they said within a deadline, however long one of them takes."""
    answers: dict[str, str | None] = dict.fromkeys(calls, f"no answer within {_SECONDS:g} s")

    def call(name: str) -> None:
        answers[name] = calls[name]()

    threads = [threading.Thread(target=call, args=(name,), daemon=True) for name in calls]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(answers)


def _bundled_data() -> Iterator[Finding]:
    folder = files.data_folder()
    names = [line.split(maxsplit=1)[1] for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    faults = 0
    for name in dict.fromkeys([*names, *_BUNDLED]):
        try:
            files.verified(folder / name)
        except (OSError, ValueError) as error:
            faults += 1
            yield Finding("FAIL", "bundled data", _line(error))
    if not faults:
        yield Finding("ok", "bundled data", f"{len(names)} files are intact in {folder}")


def _causal_lm() -> Iterator[Finding]:
    from llm_tutorial import offline

    try:
        folder = offline.fetched_causal_lm()
    except OSError as error:
        yield Finding("FAIL", "offline causal", _line(error), "llm-tutorial fetch")
        return
    if folder:
        yield Finding("ok", "offline causal", f"fetched and intact: {folder}")
    else:
        yield Finding("note", "offline causal", "not fetched yet; that happens at its first use", "llm-tutorial fetch")


def _disk() -> Iterator[Finding]:
    try:
        folder = files.cache_folder()
    except PermissionError as error:
        yield Finding("FAIL", "disk", _line(error))
        return
    free = shutil.disk_usage(folder).free
    enough = free >= _DISK_BYTES
    yield Finding("ok" if enough else "note", "disk", f"{free / 1e9:.1f} GB free for the cache {folder}",
                  "" if enough else f"free up to {_DISK_BYTES / 1e9:.0f} GB, or set LLM_TUTORIAL_CACHE to another disk")


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _line(error: BaseException) -> str:
    """Return the message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
