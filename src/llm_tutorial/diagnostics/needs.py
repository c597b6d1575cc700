"""What each notebook needs of memory and disk, and what is there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llm_tutorial.budgets import BUDGETS, DOWNLOADS
from llm_tutorial.diagnostics.finding import Finding
from llm_tutorial.diagnostics.sources import source_or_auto

__all__ = ["Memory", "available_memory", "need_findings"]


@dataclass(frozen=True)
class Memory:
    """The memory of this machine, or of the container, in bytes."""

    available: int
    total: int


def available_memory(
    container: Path = Path("/sys/fs/cgroup"), system: Path = Path("/proc/meminfo"),
) -> Memory | None:
    """Return what can be had without swapping, or None if nothing here can tell.

    Args:
        container: the folder of the control group (version 2), whose limit holds where it is the lower one.
        system: what to read without psutil.
    """
    whole = _system_memory(system)
    try:
        limit, used = ((container / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        cached = re.search(r"^inactive_file (\d+)$", (container / "memory.stat").read_text(encoding="ascii"), re.M)
    except OSError:
        return whole
    if limit.strip() == "max":
        return whole
    # Files that were read count as used, but make room when memory is asked for.
    left = int(limit) - int(used) + (int(cached[1]) if cached else 0)
    return Memory(min(left, whole.available), min(int(limit), whole.total)) if whole else Memory(left, int(limit))


def need_findings() -> Iterator[Finding]:
    """Report for each notebook whether memory and disk suffice; where a download may come, it is counted."""
    from llm_tutorial import files

    try:
        cache = files.cache_folder()
    except PermissionError:
        yield Finding("note", "needs", "not checked, because the cache folder cannot be used")
        return
    memory = available_memory()
    source = source_or_auto()
    kept = {(name, place): _is_kept(name, place) for name in DOWNLOADS for place in ("hub", "offline")}
    free = {"hub": _free(_hub_cache()), "offline": _free(cache)}
    for notebook, budget in BUDGETS.items():
        room = {"hub": 0, "offline": 0}
        peak = budget.presets["cpu"].memory_bytes
        for name in budget.checkpoints:
            download = DOWNLOADS[name]
            if source != "offline" and not kept[name, "hub"]:
                room["hub"] += download.hub_bytes
            stands_in = source == "offline" or (source == "auto" and not kept[name, "hub"])
            if stands_in and not kept[name, "offline"]:
                room["offline"] += download.offline_disk_bytes
                peak = max(peak, download.offline_memory_bytes)
        yield _verdict(notebook, peak, memory, room, free, source)


def _verdict(
    notebook: str, peak: int, memory: Memory | None, room: dict[str, int], free: dict[str, int], source: str,
) -> Finding:
    """Judge one notebook; with the source ``auto`` one of the two downloads is enough."""
    details, remedies, failed = [], [], False
    if memory is None:
        details.append(f"{_gb(peak)} of memory; install psutil to see what is there")
    else:
        details.append(f"{_gb(peak)} of memory, {_gb(memory.available)} of {_gb(memory.total)} available")
        if memory.total < peak:
            failed = True
            remedies.append("use a machine, or a container, with more memory")
        elif memory.available < peak:
            remedies.append("close other programs and kernels")
    short = [place for place, wanted in room.items() if wanted > free[place]]
    details += [f"up to {_gb(wanted)} on the disk for the {'model hub' if place == 'hub' else 'offline'} checkpoints, "
                f"{_gb(free[place])} free" for place, wanted in room.items() if wanted]
    failed |= source in short
    remedies += [f"free some space, or move the cache with {'HF_HOME' if place == 'hub' else 'LLM_TUTORIAL_CACHE'}"
                 for place in short]
    verdict = "FAIL" if failed else "note" if remedies else "ok"
    return Finding(verdict, notebook, "; ".join(details), "; ".join(remedies))


def _system_memory(meminfo: Path) -> Memory | None:
    try:
        import psutil
    except ImportError:  # it comes with the extra [lab]
        try:
            text = meminfo.read_text(encoding="ascii")
        except OSError:
            return None
        entries = dict(re.findall(r"^(\w+): +(\d+) kB$", text, re.M))
        return Memory(1024 * int(entries["MemAvailable"]), 1024 * int(entries["MemTotal"]))
    found = psutil.virtual_memory()
    return Memory(found.available, found.total)


def _is_kept(name: str, place: str) -> bool:
    """Whether a checkpoint is there; whether it is intact is a matter of other checks, which take longer."""
    from huggingface_hub import try_to_load_from_cache

    from llm_tutorial import checkpoints, offline

    if place == "hub":
        repo, revision = checkpoints._HUB_CHECKPOINTS[name]
        return isinstance(try_to_load_from_cache(repo, "model.safetensors", revision=revision), str)
    return name != "causal" or offline._target().exists()


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _free(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder is, or would be made."""
    folder = Path(os.path.abspath(folder))
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
