"""The process that downloads, and the watch over it; what faults do to both is in ``test_hub_faults``."""

import os
import re
import subprocess
import sys
import time
from itertools import count

import pytest

from llm_tutorial import transfers
from llm_tutorial.transfers import fetch_rows, fetch_snapshot


@pytest.fixture
def process(monkeypatch):
    """A process that does nothing for a second, and a watch that is in a hurry."""
    monkeypatch.setattr(transfers, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(transfers, "ROWS_SECONDS", 0.3)
    monkeypatch.setattr(transfers, "_TICK_SECONDS", 0.05)
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1)"]) as process:
        yield process
        process.kill()


def test_a_download_that_keeps_coming_may_take_its_time(process):
    sizes = count(0, transfers.LEAST_BYTES)
    assert transfers._watch(process, "a/b", lambda: next(sizes)) == ""
    assert process.returncode == 0


def test_a_download_that_trickles_is_given_up(process):
    sizes = count(0, 100)
    stopped = transfers._watch(process, "a/b", lambda: next(sizes))
    assert re.fullmatch(r"too slow: [1-9]00 bytes arrived in the last 0\.3 s", stopped), stopped
    assert process.poll() is None, "ended by the caller, who reads what it said first"


def test_what_cannot_be_counted_has_a_time_limit(process):
    assert transfers._watch(process, "a/b", None) == "too slow: not done after 0.3 s"


def test_progress_is_shown(process, monkeypatch, capsys):
    monkeypatch.setattr(transfers, "_REPORT_SECONDS", 0.4)
    sizes = count(5_000_000, transfers.LEAST_BYTES)
    transfers._watch(process, "owner/name", lambda: next(sizes))
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(re.fullmatch(r"owner/name: downloading, \d+ MB, [01] s", line) for line in lines), lines


def test_a_process_that_ends_without_an_answer_is_an_error():
    words = r"the process ended with status 1; its last words: KeyError: 'no such task'"
    with pytest.raises(ConnectionError, match=words):
        transfers._fetch("no such task", {}, "a/b", transfers.Path(), None)


def test_leftovers_of_killed_downloads_are_removed_once_they_are_old(tmp_path, monkeypatch):
    monkeypatch.setattr(transfers.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(transfers, "_fetch", lambda *_: str(tmp_path))
    blobs = tmp_path / "models--owner--name" / "blobs"
    blobs.mkdir(parents=True)
    names = {blobs: ("old.incomplete", "young.incomplete", "old"),
             tmp_path: (".rows-old.partial", ".rows-young.partial", "rows-old.parquet")}
    for folder, files in names.items():
        for name in files:
            (folder / name).touch()
            if "old" in name:
                os.utime(folder / name, (0, time.time() - 3700))
    fetch_snapshot("owner/name", "0" * 40, ["*.json"], False)
    fetch_rows("datasets/owner/name@0/*.parquet", ["id"], 1, tmp_path / "rows.parquet")
    assert sorted(path.name for path in blobs.iterdir()) == ["old", "young.incomplete"]
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {".rows-young.partial", "rows-old.parquet", "rows.parquet"}
