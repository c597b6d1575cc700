"""The model in the browser: what comes from npm is checked, and the page does without it where it cannot be had."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_tutorial.commands import live


@pytest.fixture
def app(tmp_path):
    """As much of Sphinx as the extension uses, with lesson 1 among the sources."""
    (tmp_path / f"{live.PAGE}.ipynb").touch()
    connected = []
    return SimpleNamespace(srcdir=tmp_path, connected=connected, connect=lambda event, _: connected.append(event))


def test_an_archive_with_another_hash_is_refused(monkeypatch):
    def pack(command, cwd, **_):
        Path(cwd, "some.tgz").write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0, "some.tgz\n")  # as npm says

    monkeypatch.setattr(subprocess, "run", pack)
    with pytest.raises(OSError, match="its sha512 is not the expected one"):
        live.npm_files("some", live.SHA512, "")


def test_without_npm_the_page_is_as_before(app, monkeypatch):
    monkeypatch.setenv("PATH", "")
    live.setup(app)
    assert app.connected == []


def test_without_a_network_a_line_says_why_the_page_is_as_before(app, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(live, "can_build_live", lambda: True)
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", "no route"))
    live.setup(app)
    assert app.connected == []
    assert "without the model that runs in the browser. npm cannot fetch" in capsys.readouterr().out
    assert not list((tmp_path / "cache").iterdir())
