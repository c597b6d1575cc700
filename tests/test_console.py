"""What the commands share: a folder to write to is one before any work begins."""

import errno
import tempfile

import pytest

from llm_tutorial.console import writable_folder


def test_folder_is_made_and_left_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = writable_folder((tmp_path / "new/deep").relative_to(tmp_path), "Choose another.")
    assert made == tmp_path.resolve() / "new/deep"
    assert list(made.iterdir()) == []
    assert writable_folder(made, "Choose another.") == made


def test_file_in_its_place_is_named_with_the_remedy(tmp_path):
    (tmp_path / "taken").write_text("text")
    with pytest.raises(OSError, match=r"no files can be written to .*taken \(.+\)\. Choose another\."):
        writable_folder(tmp_path / "taken", "Choose another.")


def test_folder_that_takes_no_file_is_refused(tmp_path, monkeypatch):
    """Imitated: tests may run as an administrator, whom no permission stops."""
    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match=r"written to .* \(Read-only file system\)\. Choose another\."):
        writable_folder(tmp_path, "Choose another.")
