"""Functions called in a fresh process each, whose memory and start-up are nobody else's; imports no large library."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_tutorial.processes import package_environment

__all__ = ["run_child"]

TICK_SECONDS = 5.0


def run_child(
    function: Callable[..., Any], *, label: str, report: Callable[[str], None] = print, **arguments: Any
) -> Any:
    """Return what ``function(**arguments)`` returns in a new Python process.

    Args:
        function: a function of an importable module; its module is all that the process imports beforehand.
        label: what is being done; said before, and again every five seconds with the seconds gone.
        report: gets these lines.
        arguments: must survive JSON, as must what is returned.

    Raises:
        OSError: the process failed; the message ends with the last lines it wrote.
    """
    report(label)
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder) / "result.json", Path(folder) / "log.txt"
        command = [sys.executable, "-m", __name__, function.__module__, function.__qualname__, json.dumps(arguments),
                   str(result)]
        with log.open("wb") as output:  # a file, not a pipe: nothing has to be read while it runs
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                       env=package_environment())
        status = _wait(process, label, report)
        if status:
            lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
            raise OSError(f"{label}: the process ended with status {status}.\n" + "\n".join(lines[-4:]))
        return json.loads(result.read_text("utf-8"))


def _wait(process: subprocess.Popen, label: str, report: Callable[[str], None]) -> int:
    started = time.monotonic()
    try:
        while True:
            try:
                return process.wait(timeout=TICK_SECONDS)
            except subprocess.TimeoutExpired:
                report(f"{label}: {time.monotonic() - started:.0f} s")
    finally:
        process.kill()  # after Ctrl-C nothing keeps on working; no effect on a finished process
        process.wait()


def _main(module: str, function: str, arguments: str, result: str) -> None:
    returned = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    Path(result).write_text(json.dumps(returned), "utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
