"""Compare what a run took with what is declared in ``budgets``."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from llm_tutorial.budgets import ESTIMATED, notebook_budget

if TYPE_CHECKING:
    from llm_tutorial.execution import Run

__all__ = ["FACTOR", "budget_excesses", "hub_cache_bytes"]

FACTOR = 1.5  # a busy or older machine is no fault of a notebook; twice the work would be


def budget_excesses(run: Run, downloaded_bytes: int = 0) -> list[str]:
    """Return a sentence for each quantity of a finished run that is more than ``FACTOR`` times its budget.

    So is a notebook that names no device for which a budget is declared. The seconds of a run that downloaded
    something are not compared: a budget holds once the checkpoints are there.

    Args:
        downloaded_bytes: what the run added to the hub's cache. A run with the offline source may add nothing.

    Raises:
        ValueError: no budget is declared for the notebook.
    """
    name = run.notebook.stem
    declared = notebook_budget(name)
    if run.device not in declared.presets:
        return [f"{name}: its device is {run.device!r}, and budgets are declared for {', '.join(declared.presets)}; "
                "let its set-up cell show setup_table(...)"]
    budget = declared.presets[run.device]
    basis = f"{run.device}{', estimated' if run.device in ESTIMATED else ''}"
    download = 0 if run.source == "offline" else declared.hub_bytes
    quantities = (
        ("time", 0 if downloaded_bytes > 0 else run.seconds, budget.seconds, "s", 1),
        ("peak memory", run.peak_memory_bytes, budget.memory_bytes, "MB", 1e6),
        ("download", downloaded_bytes, download, "MB", 1e6),
    )
    return [
        f"{name}: {what} {measured / unit_size:.1f} {unit}, allowed {FACTOR * limit / unit_size:.1f} {unit} "
        f"({FACTOR:g} times the budget for {basis}, {limit / unit_size:g} {unit})"
        for what, measured, limit, unit, unit_size in quantities if measured > FACTOR * limit
    ]


def hub_cache_bytes() -> int:
    """Return the size of all files in the hub's cache, 0 if there is none; links are not followed."""
    from huggingface_hub import constants

    total = 0
    for place, _, names in os.walk(constants.HF_HUB_CACHE):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))
            except FileNotFoundError:  # a lock or a partial file, gone since it was listed
                continue
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total
