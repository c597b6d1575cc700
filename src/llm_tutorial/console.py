"""What the commands of the command line share; imports no large library."""

from __future__ import annotations

import argparse
import sys

__all__ = ["positive", "report_progress"]


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
