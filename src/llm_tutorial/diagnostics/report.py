"""The report itself: checks made in a process of their own, which may hang or crash without taking the report along."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from llm_tutorial.diagnostics.finding import Finding
from llm_tutorial.redaction import redacted

__all__ = ["doctor", "exit_status", "findings_of_process"]

_START_SECONDS = 1.0  # of the time allowed, for the other process to start and to end
# No bars, and no module from the current folder, which the command itself does not see either.
_SETTINGS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
             "TRANSFORMERS_VERBOSITY": "error", "PYTHONSAFEPATH": "1"}


def doctor(*, as_json: bool = False, seconds: float = 15.0) -> int:
    """Print the report, one finding a line, and return 1 if something that is needed does not work, else 0.

    Args:
        as_json: print one JSON array of findings at the end instead.
        seconds: how long it may take; what has not been checked by then counts as a failure.
    """
    command = [sys.executable, "-m", "llm_tutorial.diagnostics", str(seconds - _START_SECONDS)]
    found = []
    for finding in findings_of_process(command, seconds):
        found.append(finding)
        if not as_json:
            line = f"{finding.verdict:4}  {finding.what:22}  {finding.detail}"
            print(f"{line}  ->  {finding.remedy}" if finding.remedy else line, flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    return exit_status(found)


def exit_status(found: Sequence[Finding]) -> int:
    """Return 1 if something that is needed does not work, else 0."""
    return int(any(finding.verdict == "FAIL" for finding in found))


def findings_of_process(command: Sequence[str], seconds: float) -> Iterator[Finding]:
    """Yield the findings that a process writes, as ``python -m llm_tutorial.diagnostics`` does.

    A library that was built for another processor ends its process without an error that could be caught, and an
    import that hangs cannot be stopped.  Both become a finding that names the check.

    Args:
        seconds: after which the process is killed.
    """
    end = time.monotonic() + seconds
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
                                   encoding="utf-8", env=_environment())
        events: queue.Queue[dict | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process.stdout, events), daemon=True)
        reader.start()
        current, done = "the first check", False
        try:
            while (event := events.get(timeout=max(0.0, end - time.monotonic()))) is not None:
                current, done = event.get("begin", current), "done" in event
                if "finding" in event:
                    yield Finding(**event["finding"])
            if not done:
                yield _crash(current, process.wait(timeout=max(1.0, end - time.monotonic())), log)
        except (queue.Empty, subprocess.TimeoutExpired):
            yield Finding("FAIL", current, f"hangs: the checks did not end within {seconds:g} s, and were stopped",
                          "what does not end here would not end in a notebook: install it again")
        finally:
            process.kill()
            # A process that waits for a dead network disk cannot be killed; it is left to itself.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            reader.join(timeout=1)
            if not reader.is_alive():  # else closing would wait for it
                process.stdout.close()


def _environment() -> dict[str, str]:
    # The package is found as here, also where it is used from a folder.
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(Path(__file__).parents[2])]))
    return {**os.environ, **_SETTINGS, "PYTHONPATH": path}


def _read(stream: IO[str], events: queue.Queue[dict | None]) -> None:
    for line in stream:
        with contextlib.suppress(json.JSONDecodeError):  # cut short as the process ended, or not from a check
            events.put(json.loads(line))
    events.put(None)


def _crash(check: str, status: int, log: IO[bytes]) -> Finding:
    """Say how the process ended, with the last line that it wrote."""
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
    log.seek(0)
    lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    last = redacted(f": {lines[-1][:200]}" if lines else "", os.environ)
    return Finding("FAIL", check, f"Python ended {how} while this was checked{last}",
                   f"python -m pip install --force-reinstall {check.removeprefix('import ')}"
                   if check.startswith("import ") else "install again, and see what else is said above")
