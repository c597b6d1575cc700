"""What is already on the disk: bundled data, models, articles, and what interrupted downloads left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from llm_tutorial.diagnostics.finding import Finding, one_line
from llm_tutorial.diagnostics.sources import source_or_auto

__all__ = ["bundled_data", "cache_folders", "leftovers", "offline_causal"]

# Without these no notebook runs, whatever the list of hashes says.
_BUNDLED = ("models/minilm-mlm/model.safetensors", "tokenizers/gpt2/vocab.json", "wikipedia/articles.parquet",
            "wikipedia/intros.parquet")


def bundled_data() -> Iterator[Finding]:
    """Compare every bundled file with its hash."""
    from llm_tutorial import files

    folder = files.data_folder()
    names = [line.split(maxsplit=1)[1] for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    faults = 0
    for name in dict.fromkeys([*names, *_BUNDLED]):
        try:
            files.verified(folder / name)
        except (OSError, ValueError) as error:
            faults += 1
            yield Finding("FAIL", "bundled data", one_line(error))
    if not faults:
        yield Finding("ok", "bundled data", f"{len(names)} files are intact in {folder}")


def offline_causal() -> Iterator[Finding]:
    """Compare the files of the offline causal model with their hashes, if it was fetched."""
    from llm_tutorial import offline

    try:
        folder = offline.fetched_causal_lm()
    except OSError as error:
        yield Finding("FAIL", "offline causal", one_line(error), "llm-tutorial fetch")
        return
    if folder:
        yield Finding("ok", "offline causal", f"fetched and intact: {folder}")
    else:
        yield Finding("note", "offline causal", "not fetched yet; that happens at its first use", "llm-tutorial fetch")


def cache_folders() -> Iterator[Finding]:
    """Report whether files can be made in the caches of this package and of the hub, and the free disk there."""
    from huggingface_hub import constants

    from llm_tutorial import files

    try:
        yield _free_disk("disk", files.cache_folder())
    except PermissionError as error:
        yield Finding("FAIL", "disk", one_line(error))
    folder = Path(constants.HF_HUB_CACHE)
    trouble = _why_not_writable(folder)
    if trouble is None:
        yield _free_disk("hub cache", folder)
    else:
        needed = source_or_auto() != "offline"
        yield Finding("FAIL" if needed else "note", "hub cache", f"{folder} cannot be written to: {trouble}",
                      "set HF_HOME to a folder of yours, or LLM_TUTORIAL_SOURCE=offline")


def leftovers() -> Iterator[Finding]:
    """Name the pieces that interrupted downloads and conversions left; nothing ever reads them."""
    from huggingface_hub import constants

    from llm_tutorial import files

    try:
        cache = files.cache_folder()
    except PermissionError:
        yield Finding("note", "leftovers", "not checked, because the cache folder cannot be used")
        return
    found = [*cache.glob("*.partial"), *Path(constants.HF_HUB_CACHE).glob("*/blobs/*.incomplete")]
    for path in sorted(found):
        yield Finding("note", "leftover", f"{path} ({_size(path) / 1e6:.1f} MB) is of a download that was interrupted, "
                      "or is under way", "if no download is under way, delete it")
    if not found:
        yield Finding("ok", "leftovers", "no interrupted download has left anything")


def _size(path: Path) -> int:
    """Return how many bytes a file, or what is below a folder, holds; what vanishes meanwhile counts nothing."""
    parts = [Path(folder, name) for folder, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    size = 0
    for part in parts:
        with suppress(FileNotFoundError):
            size += part.stat().st_size
    return size


def _free_disk(what: str, folder: Path) -> Finding:
    place = _nearest(folder)
    return Finding("ok", what, f"{shutil.disk_usage(place).free / 1e9:.1f} GB free for the cache {folder}")


def _why_not_writable(folder: Path) -> str | None:
    """Return why no file can be made in a folder, which need not exist yet, or None if one can."""
    place = _nearest(folder)
    if not place.is_dir():
        return f"{place} is no folder"
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return error.strerror or one_line(error)


def _nearest(folder: Path) -> Path:
    """Return the folder, or the first one above it that exists."""
    folder = Path(os.path.abspath(folder))
    return next(place for place in (folder, *folder.parents) if place.exists())
