"""The watch over a process that downloads, and what a process of our own inherits."""

import os
import re
import subprocess
import sys
from itertools import chain, count, repeat
from pathlib import Path

import pytest

from llm_tutorial import offline, processes, transfers
from llm_tutorial.benchmarks.children import run_child
from llm_tutorial.processes import LEAST_BYTES, package_environment, watch_process


@pytest.fixture
def process(monkeypatch):
    """A process that does nothing for a second, and a watch that looks often."""
    monkeypatch.setattr(processes, "_TICK_SECONDS", 0.05)
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1)"]) as process:
        yield process
        process.kill()


def test_a_download_that_keeps_coming_may_take_its_time(process):
    sizes = count(0, LEAST_BYTES)
    assert watch_process(process, "a/b", arrived=lambda: next(sizes), patience=0.3) == ""
    assert process.returncode == 0


def test_a_download_that_trickles_is_given_up(process):
    sizes = count(0, 100)
    stopped = watch_process(process, "a/b", arrived=lambda: next(sizes), patience=0.3)
    assert re.fullmatch(r"too slow: [1-9]00 bytes arrived in the last 0\.3 s", stopped), stopped
    assert process.poll() is None, "ended by the caller, who reads what it said first"


def test_a_download_that_begins_anew_may_go_on(process):
    """As after a break, where a proxy does not send the rest alone: the file is cut to nothing and grows again."""
    sizes = chain(range(0, 150 * LEAST_BYTES, 50 * LEAST_BYTES), count(0, LEAST_BYTES))
    assert watch_process(process, "a/b", arrived=lambda: next(sizes), patience=0.3) == ""


def test_what_is_cut_to_nothing_and_stays_there_is_given_up(process):
    sizes = chain([5 * LEAST_BYTES], repeat(0))
    stopped = watch_process(process, "a/b", arrived=lambda: next(sizes), patience=0.3)
    assert stopped == "too slow: 0 bytes arrived in the last 0.3 s"


def test_what_cannot_be_counted_has_a_time_limit_or_none(process):
    assert watch_process(process, "a/b", patience=0.3) == "too slow: not done after 0.3 s"
    assert watch_process(process, "a/b") == ""


def test_progress_is_shown(process, monkeypatch, capsys):
    monkeypatch.setattr(processes, "_REPORT_SECONDS", 0.4)
    sizes = count(5_000_000, LEAST_BYTES)
    watch_process(process, "owner/name: downloading", arrived=lambda: next(sizes))
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(re.fullmatch(r"owner/name: downloading, \d+ MB, [01] s", line) for line in lines), lines


def test_variables_are_added_to_the_environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = package_environment(HF_HUB_OFFLINE="1")
    assert found["PYTHONPATH"].split(os.pathsep) == [str(Path(processes.__file__).parents[1]), "elsewhere"]
    assert found["HF_HUB_OFFLINE"] == "1"
    assert set(os.environ) <= set(found)


@pytest.fixture
def own_modules(tmp_path, monkeypatch):
    """A current folder with modules of a learner's that are called like those of Python and of the libraries."""
    for name in ("token", "tokenizers", "random"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('the learner\\'s {name} instead')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)


@pytest.mark.usefixtures("own_modules")
def test_modules_in_the_current_folder_stay_out():
    with pytest.raises(ConnectionError, match="KeyError: 'no such task'"):
        transfers._fetch("no such task", {}, "a/b", Path(), None)
    status, output = offline._run([sys.executable, "-m", "pip", "--version"], "pip", print)
    assert (status, output[:4]) == (0, "pip "), output
    assert run_child(os.path.basename, label="name", report=str, p="a/b") == "b"
