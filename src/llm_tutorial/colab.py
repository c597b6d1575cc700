"""Keep the work of a Colab session, whose disk vanishes with it, in the user's Google Drive."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

__all__ = ["save_to_drive"]


def save_to_drive(folder: Path | str, name: str) -> Path | None:
    """Copy ``folder`` into the user's Google Drive and return the copy; outside Colab do nothing and return None.

    The copy is ``MyDrive/llm-tutorial/<name>``. An earlier one is replaced only once the new one is complete, and
    ``folder`` itself is never changed, so that no work is lost where the copying fails. Drive is asked for, which
    opens a dialogue, unless it is mounted already; one that was mounted here is flushed and unmounted, so that all has
    arrived when the function returns. ``LLM_TUTORIAL_DRIVE`` moves the mount point, ``/content/drive``.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: Drive cannot be mounted, is full, or did not take everything.
    """
    if "google.colab" not in sys.modules:
        return None
    from google.colab import drive

    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder.resolve()}: run the cells that write it first.")
    mount_point = os.environ.get("LLM_TUTORIAL_DRIVE", "/content/drive")
    root = Path(mount_point) / "MyDrive"
    mounted = root.is_dir()
    try:
        if not mounted:
            drive.mount(mount_point)
        target = root / "llm-tutorial" / name
        _replace_by_copy(folder, target)
        if not mounted:
            drive.flush_and_unmount()
    except Exception as error:  # what Colab raises, for example when access is refused, has no common type
        raise OSError(
            f"{folder.resolve()} could not be saved to Drive ({str(error) or type(error).__name__}). It is unchanged, "
            "and so is what was saved before. Allow the access and make room in Drive, then run the cell again, or "
            "download the folder in Colab's file panel."
        ) from error
    return target


def _replace_by_copy(folder: Path, target: Path) -> None:
    """Put a copy of ``folder`` in the place of ``target``, which is there, old or new, whatever happens."""
    target.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".partial", dir=target.parent))
    new, old = working / "new", working / "old"
    try:
        shutil.copytree(folder, new)
        if _sizes(new) != _sizes(folder):
            raise OSError("the copy is not complete")
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        if target.exists() or not old.exists():
            shutil.rmtree(working, ignore_errors=True)


def _sizes(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
