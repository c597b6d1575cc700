"""What lies below files: whether content has reached the disk, and the errors of a disk that is full."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["DISK_FULL", "flush_folder", "flush_names"]

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def flush_folder(folder: Path) -> None:
    """Bring all that is below a folder to the disk, and the folder's own name.

    Raises:
        OSError: a file cannot be written.
    """
    for path in folder.rglob("*"):
        if path.is_dir():
            flush_names(path)
        elif path.is_file():
            # Some systems flush only what is open for writing.
            with path.open("r+b" if os.access(path, os.W_OK) else "rb") as file:
                os.fsync(file.fileno())
    flush_names(folder)
    flush_names(folder.parent)


def flush_names(folder: Path) -> None:
    """Bring the names in a folder to the disk, on systems that can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
