"""Start Python as the processes of one distributed training, as ``torchrun`` does, on any operating system."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from llm_tutorial.device import usable_cores

__all__ = ["run_processes"]


def run_processes(arguments: Sequence[str], processes: int, **variables: str) -> None:
    """Run ``python ARGUMENTS`` in several processes at once and print what they print; they end together.

    Each finds the others by the variables of ``init_method="env://"`` (https://docs.pytorch.org/docs/stable/
    distributed.html): RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. The processes share the cores.

    Args:
        variables: more environment variables, such as ``LLM_TUTORIAL_DEVICE="cpu"``.

    Raises:
        RuntimeError: a process failed; what it printed says why.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "OMP_NUM_THREADS": str(max(1, usable_cores() // processes)), "PYTHONUNBUFFERED": "1",
              "PYTHONIOENCODING": "utf-8"}
    # Under Windows, an environment's Python is a child of the process that is killed, and may end a little later.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "log.txt")
        with path.open("w", encoding="utf-8") as log, path.open(encoding="utf-8", errors="replace") as shown:
            running: list[subprocess.Popen] = []
            try:
                for rank in map(str, range(processes)):
                    own = {"RANK": rank, "LOCAL_RANK": rank}
                    running.append(subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log,
                                                    env=os.environ | shared | own | variables))
                while None in (status := [process.poll() for process in running]) and not any(status):
                    time.sleep(0.2)
                    print(shown.read(), end="", flush=True)
            finally:  # one that waits for another that has failed would never end
                for process in running:  # all at once: a second Ctrl-C ends the waiting below
                    process.kill()
                for process in running:
                    process.wait()
            print(shown.read(), end="", flush=True)
    if any(status):
        raise RuntimeError(f"Of {processes} processes, one ended with status {next(filter(None, status))}. "
                           "What it printed above says why.")
