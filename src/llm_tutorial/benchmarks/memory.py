"""The peak memory of a process; imports no large library, so that little is in use before the measurement."""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["peak_memory"]


def peak_memory() -> int:
    """Return the most memory this process has ever had in use (resident), in bytes.

    On Linux not ``ru_maxrss``: a process started by another inherits its parent's.
    """
    if sys.platform == "linux":
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
