"""Keep the work of a Colab session, whose disk vanishes with it, in the user's Google Drive."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
from pathlib import Path

__all__ = ["save_to_drive"]


def save_to_drive(folder: Path | str, name: str) -> Path | None:
    """Copy ``folder`` into the user's Google Drive and return the copy; outside Colab do nothing and return None.

    The copy is ``MyDrive/llm-tutorial/<name>``. An earlier one is replaced only once the new one is complete, and
    ``folder`` itself is never changed, so that no work is lost where the copying fails. What a session that ended
    during an earlier call left in Drive is put back or removed first, so only one session may save under a name at a
    time. Drive is asked for, which opens a dialogue, unless it is mounted already; one that was mounted here is flushed
    and unmounted, so that all has arrived when the function returns. ``LLM_TUTORIAL_DRIVE`` moves the mount point,
    ``/content/drive``.

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
    target = root / "llm-tutorial" / name
    # Not Path.is_dir, which raises where Drive's process has crashed; mounting again repairs that.
    mounted = os.path.isdir(root)
    try:
        if not mounted:
            drive.mount(mount_point)
        _clear_up(target)
        _replace_by_copy(folder, target)
    except Exception as error:  # what Colab raises, for example when access is refused, has no common type
        raise OSError(
            f"{folder.resolve()} could not be saved to Drive ({str(error) or type(error).__name__}). It is unchanged, "
            "and nothing that was saved before is lost. Allow the access and make room in Drive, whose bin counts too, "
            "then run the cell again, or download the folder in Colab's file panel."
        ) from error
    if not mounted:
        try:
            drive.flush_and_unmount()
        except Exception as error:
            raise OSError(
                f"{folder.resolve()} was copied to {target}, in place of what was saved before, but perhaps not all of "
                f"it has arrived in Drive ({str(error) or type(error).__name__}). The folder here is unchanged. Make "
                "room in Drive, whose bin counts too, then run the cell again, or download the folder in Colab's file "
                "panel."
            ) from error
    return target


def _clear_up(target: Path) -> None:
    """Put back the copy that a session moved aside and then ended, and remove what such sessions left."""
    # mkdtemp puts eight characters into the name.
    for working in target.parent.glob(f".{glob.escape(target.name)}-{'?' * 8}.partial"):
        if not target.exists() and (working / "old").exists():
            (working / "old").rename(target)
        shutil.rmtree(working, ignore_errors=True)  # what cannot be removed now may be the next time


def _replace_by_copy(folder: Path, target: Path) -> None:
    """Put a copy of ``folder`` in the place of ``target``, which stays where that fails.

    A session that ends between the two renames leaves the earlier copy in a hidden folder, for ``_clear_up``.
    """
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
