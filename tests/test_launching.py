"""How several processes are started and stopped, and how one output folder is kept to one run."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from llm_tutorial import launching
from llm_tutorial.launching import (
    is_main_process,
    launch_processes,
    locked_folder,
    per_process_batch,
    process_count,
)


@pytest.mark.parametrize(("batch", "processes", "expected"), [(8, 1, 8), (8, 2, 4), (8, 8, 1), (6, 3, 2)])
def test_the_global_batch_is_divided(batch, processes, expected):
    assert per_process_batch(batch, processes) == expected


def test_a_batch_that_cannot_be_divided_names_what_is_possible():
    with pytest.raises(ValueError, match=r"batch of 12 cannot be divided among 5 processes\. It can among: 1, 2, 3, 4, "
                                         r"6, 12\. Or choose a --batch that is a multiple of 5"):
        per_process_batch(12, 5)
    with pytest.raises(ValueError, match="It can among: 1, 2"):
        per_process_batch(2, 4)


def test_the_launchers_variables_say_who_is_who(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert (process_count(), is_main_process()) == (1, True)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    assert (process_count(), is_main_process()) == (3, False)
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ValueError, match="WORLD_SIZE='many' is no whole number above 0: unset it"):
        process_count()


@pytest.fixture
def started(monkeypatch):
    """Start other programs in the launcher's place; the list fills with the commands and environments meant."""
    meant, real = [], subprocess.Popen

    def program(text):
        monkeypatch.setattr(launching.subprocess, "Popen", lambda command, env: (
            meant.append((command, env)) or real([sys.executable, "-c", text])))
        return meant

    return program


@pytest.mark.parametrize(("code", "status"), [(0, 0), (1, 2)])
def test_the_launcher_is_a_module_of_this_interpreter(started, monkeypatch, code, status):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    meant = started(f"raise SystemExit({code})")
    assert launch_processes(4, ["pretrain", "--batch", "8"]) == status
    [(command, environment)] = meant
    assert command[:6] == [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    assert command[-5:] == ["-m", "llm_tutorial", "pretrain", "--batch", "8"]
    assert environment["OMP_NUM_THREADS"] == "2"
    assert not os.path.exists(command[command.index("--log-dir") + 1]), "nothing is left behind"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    launch_processes(4, [])
    assert meant[1][1]["OMP_NUM_THREADS"] == "1"


def test_sigterm_is_passed_on_and_waited_for(started):
    before = signal.getsignal(signal.SIGTERM)
    started("import time; time.sleep(60)")
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    began = time.monotonic()
    assert launch_processes(2, []) == 130
    assert time.monotonic() - began < 50, "it was ended, not waited for"
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_torch_distributed_there_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(OSError, match=r"built without torch\.distributed.* Leave out --processes, or install another"):
        launch_processes(2, [])
    monkeypatch.setattr(torch.distributed, "is_available", lambda: True)
    monkeypatch.setattr(launching.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(OSError, match=r"built without torch\.distributed"):
        launch_processes(2, [])


HOLD = """
import sys, time
from pathlib import Path
from llm_tutorial.launching import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_locked_until_its_process_ends_however_that_ends(tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=r"is in use by another run\. Wait until that has ended, or"):
            locked_folder(folder).__enter__()
        process.kill()
    with locked_folder(folder):
        pass
    (folder / "run.lock").write_text(f"{os.getpid()}\nanother machine\n", encoding="utf-8")
    with locked_folder(folder):  # what a file says is no lock
        pass
