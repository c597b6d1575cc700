"""Google Drive as a plain folder, with the signature of Colab's own module."""

from pathlib import Path

__all__ = ["mount"]


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):  # noqa: ARG001
    """Make the folder that Drive has below its mount point."""
    (Path(mountpoint) / "MyDrive").mkdir(parents=True, exist_ok=True)
