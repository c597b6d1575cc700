"""Every fault of the hub ends in the right file or a clear error, and nothing half-written is trusted later."""

import re

import pytest
from hub_faults import (
    PROBES,
    ROWS,
    ROWS_WANTED,
    TRANSFERS,
    article,
    probe_results,
    right_hashes,
    transfer_results,
)


@pytest.mark.parametrize("case", PROBES, ids=lambda case: case.title)
def test_hub_that_does_not_answer_properly_is_named(case):
    offline = probe_results()[case.title]
    assert offline["source"] == "offline", offline
    assert offline["reason"].startswith("hub not reachable: ")
    assert re.search(case.words, offline["reason"]), offline["reason"]
    assert len(offline["reason"]) < 300
    assert offline["seconds"] < 5
    wanted = offline["wanted"]
    assert wanted["error"] == "ConnectionError", wanted
    assert re.search(case.words, wanted["text"]), wanted["text"]
    assert "Set LLM_TUTORIAL_SOURCE=auto or offline" in wanted["text"]
    assert wanted["seconds"] < 5


def test_hub_that_answers_again_is_asked_again():
    found = probe_results()
    assert found["healthy again"]["source"] == "hub", found["healthy again"]
    assert found["healthy again"]["hashes"] == right_hashes()
    assert found["unknown requests"] == []


@pytest.mark.parametrize("case", TRANSFERS, ids=lambda case: case.title)
def test_transfer_that_fails_is_an_error_and_its_next_attempt_brings_the_right_files(case):
    found = transfer_results()[case.title]
    assert found["error"] == ("OSError" if case.fault == "corrupt" else "ConnectionError"), found
    assert re.search(case.words, found["text"]), found["text"]
    assert "Run the cell again" in found["text"]
    assert "set LLM_TUTORIAL_SOURCE=offline" in found["text"]
    assert found["kept"] == "None", "a snapshot with a file missing is not trusted"
    assert found["again"]["path"], found["again"]
    assert found["hashes"] == right_hashes()


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.title)
def test_rows_come_whole_or_not_at_all(case):
    found = transfer_results()[case.title]
    assert found["error"] == "ConnectionError", found
    assert re.search(case.words, found["text"]), found["text"]
    assert found["left"] == []
    assert "error" not in found["again"], found["again"]
    assert found["texts"] == [article(number) for number in range(ROWS_WANTED)]


def test_full_disk_is_named_and_what_was_written_is_not_trusted():
    found = transfer_results()["full"]
    assert found["error"] == "OSError", found
    assert re.search(r"faults/full cannot be stored below .*(No space left|File too large)", found["text"])
    assert "Free some space, or choose another folder: HF_HOME" in found["text"]
    assert (found["left"], found["kept"]) == ([], "None")
    assert found["hashes"] == right_hashes()


def test_killed_process_leaves_nothing_that_is_trusted():
    found = transfer_results()["killed"]
    assert found["helpers"] >= 1
    assert found["alive"] == 0, "the process that downloads ends with the one that started it"
    assert found["kept"] == "None"
    assert found["hashes"] == right_hashes()
    assert transfer_results()["unknown requests"] == []
