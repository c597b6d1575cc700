"""What the commands of the command line share; imports no large library."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

__all__ = ["positive", "report_progress", "writable_folder"]


def positive(text: str) -> int:
    """Return the whole number above 0 that an option was given.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def report_progress(line: str) -> None:
    """Print a line on the standard error stream at once."""
    print(line, file=sys.stderr, flush=True)


def writable_folder(folder: Path, remedy: str) -> Path:
    """Return ``folder`` as an absolute path once it exists and a file can be made in it.

    Args:
        remedy: a sentence for the error.

    Raises:
        OSError: it cannot be made, or no file in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"no files can be written to {folder} ({error.strerror}). {remedy}") from error
    return folder.resolve()
