"""One training in several processes: how many there are, how they are started, and one run per output folder."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from llm_tutorial.processes import package_environment

__all__ = ["is_main_process", "launch_processes", "locked_folder", "per_process_batch", "process_count"]


def process_count() -> int:
    """Return the number of processes of this launch, which ``torchrun`` and ``accelerate launch`` leave in WORLD_SIZE.

    Raises:
        ValueError: WORLD_SIZE is no whole number above 0.
    """
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"WORLD_SIZE={text!r} is no whole number above 0: unset it, or start with --processes N.")
    return int(text)


def is_main_process() -> bool:
    """Return whether this is the process, of those of one launch, that writes files and shows progress."""
    return os.environ.get("RANK", "0") == "0"


def per_process_batch(batch: int, processes: int) -> int:
    """Return the chunks that each process takes of a step's global batch.

    Raises:
        ValueError: the batch cannot be divided equally.
    """
    if batch < 1 or processes < 1 or batch % processes:
        possible = ", ".join(str(count) for count in range(1, batch + 1) if batch % count == 0) or "none"
        raise ValueError(f"A global batch of {batch} cannot be divided among {processes} processes. It can among: "
                         f"{possible}. Or choose a --batch that is a multiple of {processes}.")
    return batch // processes


def launch_processes(processes: int, arguments: Sequence[str]) -> int:
    """Run ``python -m llm_tutorial`` with these arguments in several processes of this machine.

    The launcher is PyTorch's own, started as a module of this interpreter, so that no script has to be on the PATH.
    SIGTERM is passed on to it, as Ctrl-C is by the terminal.

    Returns:
        0 if all went well, 2 if a process failed, 130 if it was stopped.

    Raises:
        OSError: this PyTorch cannot run several processes.
    """
    if not torch.distributed.is_available() or importlib.util.find_spec("torch.distributed.run") is None:
        raise OSError(f"PyTorch {torch.__version__} was built without torch.distributed, which several processes need. "
                      "Leave out --processes, or install another build of PyTorch.")
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {"OMP_NUM_THREADS": str(threads)} | package_environment()
    with tempfile.TemporaryDirectory(prefix="llm-tutorial-") as logs:  # else the launcher leaves its folder behind
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
                   "--log-dir", logs, "-m", "llm_tutorial", *arguments]
        with subprocess.Popen(command, env=environment) as launcher, _passing_on(launcher) as stopped:
            while True:
                try:
                    status = launcher.wait()
                    break
                except KeyboardInterrupt:  # the launcher got it too, and needs time to end its processes
                    stopped.append(signal.SIGINT)
    return 130 if stopped else 2 if status else 0


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of an output folder while the block runs.

    The lock is the operating system's, so it vanishes with the process that holds it, however that ends.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "run.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(f"{folder} is in use by another run. Wait until that has ended, or choose another "
                              "--output-dir.") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _passing_on(launcher: subprocess.Popen) -> Iterator[list[int]]:
    """Pass SIGTERM on to a launcher; yield the list of signals that arrived."""
    stopped: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stopped.append(number)
        launcher.terminate()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
