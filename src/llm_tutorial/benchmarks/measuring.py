"""What the benchmarks share: medians, the machine, tables."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import tokenizers
import torch
import transformers

from llm_tutorial.device import Device

__all__ = ["machine", "precision", "summary", "synchronize", "text_table"]


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure over the runs, and under ``runs`` the runs themselves.

    None counts as more than any number: the median is None where most runs never got there.

    Raises:
        ValueError: there is no run.
    """
    if not runs:
        raise ValueError("There is no run to sum up: measure at least one.")

    def median(key: str) -> float | None:
        middle = statistics.median(float("inf") if run[key] is None else run[key] for run in runs)
        return None if middle == float("inf") else middle

    return {key: median(key) for key in runs[0]} | {"runs": list(runs)}


def machine(device: Device) -> dict[str, Any]:
    """Return what figures depend on: device, precision, processor, threads, its load, versions; no names of hosts."""
    return {
        "device": device.name, "device_reason": device.reason, "precision": precision(device),
        "processor": _processor(), "processors": os.cpu_count(), "threads": torch.get_num_threads(),
        # Processes that computed or waited in the last minute; None where the system keeps no such count.
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
        "torch": torch.__version__, "transformers": transformers.__version__, "datasets": datasets.__version__,
        "tokenizers": tokenizers.__version__,
    }


def precision(device: Device) -> str:
    """Return ``"bf16"``, ``"fp16"`` or ``"fp32"``: in what the device trains."""
    return "bf16" if device.bf16 else "fp16" if device.fp16 else "fp32"


def synchronize(device: Device) -> None:
    """Wait until the device has done all it was given, so that the clock can be read; a CPU never runs ahead."""
    if device.name == "cuda":
        torch.cuda.synchronize()
    elif device.name == "mps":
        torch.mps.synchronize()


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines of text in columns, the first one aligned left and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0])] + [text.rjust(width) for text, width in
                                                            zip(row[1:], widths[1:], strict=True)]).rstrip()
                     for row in rows)


def _processor() -> str:
    """The processor's name; on Linux Python knows the architecture only."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    return found[1] if found else platform.processor()
