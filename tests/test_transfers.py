"""The process that downloads; the watch over it is in ``test_processes``, what faults do in ``test_hub_faults``."""

import os
import time
from types import SimpleNamespace

import pytest

from llm_tutorial import transfers
from llm_tutorial.transfers import fetch_rows, fetch_snapshot


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


@pytest.mark.skipif(os.name == "nt", reason="needs a shell script that stands in for Python")
@pytest.mark.parametrize(("says", "words"), [
    ("GET $HF_ENDPOINT/a >&2; exec sleep 60", r"too slow: .*last words: GET http://\*\*\*@mirror.example/a"),
    ("GET $HF_ENDPOINT/a >&2; exit 3", r"ended with status 3; its last words: GET http://\*\*\*@mirror.example/a"),
    ("'{\"error\": \"no '$HF_ENDPOINT'\"}'", r"no http://\*\*\*@mirror.example$"),
    ("'{\"storage\": true, \"error\": \"no '$HF_ENDPOINT'\"}'", r"cannot be stored .*no http://\*\*\*@mirror.example"),
])
def test_passwords_do_not_reach_the_error(says, words, monkeypatch, tmp_path):
    """Wherever the libraries put the address of a mirror."""
    password = "pass-w0rd"
    monkeypatch.setenv("HF_ENDPOINT", f"http://me:{password}@mirror.example")
    monkeypatch.setattr(transfers, "ROWS_SECONDS", 1.0)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {says}\n")
    python.chmod(0o755)
    monkeypatch.setattr(transfers.sys, "executable", str(python))
    with pytest.raises(OSError, match=words) as caught:
        transfers._fetch("rows", {}, "a/b", transfers.Path(), None)
    assert password not in str(caught.value)


class Asked(Exception):
    def __init__(self, host: str) -> None:
        super().__init__("refused")
        self.request = SimpleNamespace(url=f"https://{host}:443/a/b?signature=c")


class NeverAsked(Exception):
    @property
    def request(self) -> None:
        raise RuntimeError("the request was not set")


def test_the_host_is_named_that_does_not_answer():
    error = OSError("broken")
    error.__cause__ = Asked("files.example")
    assert transfers._described(error)["error"].endswith("because of Asked: refused; the host that was asked is "
                                                         "files.example")
    assert transfers._described(NeverAsked("no"))["error"] == "NeverAsked: no"
    assert transfers._described(ValueError("no"))["error"] == "ValueError: no"
