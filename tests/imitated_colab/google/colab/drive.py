"""Drive as a plain folder, with the signatures, the errors and the order of events of Colab's own module."""

from pathlib import Path

__all__ = ["calls", "flush_and_unmount", "mount"]

calls: list[str] = []  # what was asked for, in order
refused: Exception | None = None  # what mounting raises
_mounted: Path | None = None


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):  # noqa: ARG001
    """Make the folder that Drive has below its mount point."""
    global _mounted
    calls.append("mount")
    if refused is not None:
        raise refused
    _mounted = Path(mountpoint)
    (_mounted / "MyDrive").mkdir(parents=True, exist_ok=True)


def flush_and_unmount(timeout_ms=24 * 60 * 60 * 1000):  # noqa: ARG001
    """Take the folder away from the mount point; what was in it is kept beside it."""
    global _mounted
    calls.append("flush_and_unmount")
    if _mounted is None:
        raise ValueError("flush_and_unmount failed")
    (_mounted / "MyDrive").rename(_mounted / "flushed")
    _mounted = None
