"""Processes that do the long work of this package: what they inherit, and the watch over them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llm_tutorial.console import report_progress

__all__ = ["LEAST_BYTES", "PATIENCE_SECONDS", "package_environment", "watch_process"]

# A download ends when less than so many bytes arrive in so many seconds: 35 kB/s, at which BERT takes four hours.
PATIENCE_SECONDS = 60.0
LEAST_BYTES = 2_000_000
_REPORT_SECONDS, _TICK_SECONDS = 5.0, 0.2


def package_environment(**variables: str) -> dict[str, str]:
    """Return the environment for ``python -m``: this package is found, and modules in the current folder are not.

    There a learner's own ``token.py`` would take the place of the standard library's.

    Args:
        variables: to be set besides.
    """
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1", **variables}


def watch_process(
    process: subprocess.Popen,
    label: str,
    *,
    arrived: Callable[[], int] | None = None,
    patience: float | None = None,
    report: Callable[[str], object] = report_progress,
) -> str:
    """Wait for the process, with a line of progress now and then; return why it was given up, or an empty string.

    Whoever is given up still runs: the caller ends it.

    Args:
        label: what is being done, the beginning of each line.
        arrived: tells how many bytes there are so far; None says that nobody can know.
        patience: seconds in which ``LEAST_BYTES`` have to arrive, over and over; without ``arrived`` those for all of
            the work. None has no limit.
    """
    started = since = reported = time.monotonic()
    before = mark = arrived() if arrived else 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_TICK_SECONDS)
            return ""
        now, size = time.monotonic(), arrived() if arrived else 0
        mark = min(mark, size)  # a server that cannot resume sends the file anew
        if size - mark >= LEAST_BYTES:
            since, mark = now, size
        if patience is not None and now - since > patience:
            return (f"too slow: {size - mark:,} bytes arrived in the last {patience:g} s" if arrived else
                    f"too slow: not done after {patience:g} s")
        if now - reported > _REPORT_SECONDS:
            reported, done = now, f"{max(0, size - before) / 1e6:.0f} MB, " if arrived else ""
            report(f"{label}, {done}{now - started:.0f} s")
