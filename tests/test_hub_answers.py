"""What the hub said and for how long it counts, and what becomes of a damaged file; without a server."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_tutorial import hub

REPOSITORY = ("owner/name", "0" * 40)
PASSWORD = "pass-w0rd"
MIRROR = f"https://me:{PASSWORD}@mirror.example"


@pytest.fixture
def answers(monkeypatch):
    """The hub's next answers, first to last: an exception is raised, a commit is given."""
    answers = []

    class Hub:
        def repo_info(self, *_, **__):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return SimpleNamespace(sha=answer)

    monkeypatch.setattr(hub, "HfApi", Hub)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    hub.forget_answers()
    yield answers
    hub.forget_answers()


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(hub.time, "monotonic", lambda: clock.now)
    return clock


def test_a_failure_holds_for_a_minute_and_a_success_to_the_end(answers, clock):
    answers += [OSError("429 Too Many Requests"), OSError("still"), REPOSITORY[1]]
    assert hub.why_unreachable(*REPOSITORY) == "OSError: 429 Too Many Requests"
    clock.now += 59
    assert hub.why_unreachable(*REPOSITORY) == "OSError: 429 Too Many Requests"
    clock.now += 2
    assert hub.why_unreachable(*REPOSITORY) == "OSError: still"
    clock.now += 59
    assert hub.why_unreachable(*REPOSITORY) == "OSError: still"
    clock.now += 2
    assert hub.why_unreachable(*REPOSITORY) is None
    clock.now += 1e6
    assert hub.why_unreachable(*REPOSITORY) is None
    assert answers == []


def test_offline_mode_does_not_outlast_its_variable(answers, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    assert hub.why_unreachable(*REPOSITORY) == "HF_HUB_OFFLINE is set"
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    answers.append(REPOSITORY[1])
    assert hub.why_unreachable(*REPOSITORY) is None


@pytest.mark.parametrize("answer", [OSError(f"no route to {MIRROR}/api"), "f" * 40])
def test_no_password_is_in_the_reason(answers, answer, monkeypatch):
    monkeypatch.setattr(hub.constants, "ENDPOINT", MIRROR)
    answers.append(answer)
    reason = hub.why_unreachable(*REPOSITORY)
    assert "https://***@mirror.example" in reason
    assert PASSWORD not in reason


def test_no_password_is_in_the_reason_when_nobody_answers(monkeypatch):
    monkeypatch.setattr(hub.constants, "ENDPOINT", MIRROR)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    hub.forget_answers()
    reason = hub.why_unreachable(*REPOSITORY, deadline=0.01)
    hub.forget_answers()
    assert reason == "https://***@mirror.example did not answer within 0.01 s"


def test_no_password_is_in_the_error_of_a_download(monkeypatch):
    def broken(*_):
        raise ConnectionError("cut")

    monkeypatch.setattr(hub.constants, "ENDPOINT", MIRROR)
    monkeypatch.setattr(hub.transfers, "fetch_snapshot", broken)
    with pytest.raises(ConnectionError, match=r"from https://\*\*\*@mirror\.example broke off \(cut\)"):
        hub.download_snapshot(*REPOSITORY)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="the cache has links only where the system has them")
def test_a_damaged_file_goes_with_its_link_and_what_is_recorded_about_it(tmp_path):
    blob, link, record = tmp_path / "blob", tmp_path / "link", tmp_path / "record"
    blob.write_bytes(b"content")
    record.write_text("hash")
    link.symlink_to(blob)
    with pytest.raises(OSError, match=r"link was damaged \(cut; 7 bytes\) and has been removed\. Run the cell again"):
        hub.refuse_damaged(link, "cut", record)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(30, "Read-only file system"), PermissionError(13, "Permission denied")])
def test_damage_is_named_where_the_file_cannot_be_removed(error, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise error

    path = tmp_path / "weights"
    path.write_bytes(b"content")
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match=r"was damaged \(cut; 7 bytes\) and cannot be removed\. Delete it, then run the"):
        hub.refuse_damaged(path, "cut")
