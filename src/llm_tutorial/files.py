"""Where the bundled data and the cache live, and how files are checked before they are trusted."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from llm_tutorial.disks import flush_folder, flush_names

__all__ = ["cache_folder", "data_folder", "listed_sha256", "new_folder", "replace_file", "sha256_of", "verified"]


def data_folder() -> Path:
    """Return the folder of the bundled data: ``data/`` of a checkout, or its copy inside an installed wheel.

    Raises:
        FileNotFoundError: neither is there, so the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "data", package.parents[1] / "data"):
        if (folder / "SHA256SUMS").is_file():
            return folder
    raise FileNotFoundError(
        f"No bundled data beside {package}: the installation is incomplete. Install the package again, "
        "or work in a full checkout of the repository."
    )


def cache_folder() -> Path:
    """Return the user's cache folder for what is too large to bundle, creating it if need be.

    ``LLM_TUTORIAL_CACHE`` moves it; otherwise the platform's convention holds (``XDG_CACHE_HOME`` on Linux).

    Raises:
        PermissionError: the folder cannot be created or written to.
    """
    chosen = os.environ.get("LLM_TUTORIAL_CACHE")
    folder = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("llm-tutorial", appauthor=False))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(
            f"The cache folder {folder} cannot be written to ({error.strerror}). Set LLM_TUTORIAL_CACHE to a folder of "
            "yours, or change the folder's permissions."
        ) from error
    return folder


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed_sha256(path: Path) -> str:
    """Return the hash that ``SHA256SUMS`` lists for a file below ``data_folder()``; the file itself is not read.

    Raises:
        ValueError: ``SHA256SUMS`` does not list the file.
    """
    folder = data_folder()
    name = path.relative_to(folder).as_posix()
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    known = {entry: digest for digest, entry in (line.split(maxsplit=1) for line in lines)}
    if name not in known:
        raise ValueError(f"{name} is not listed in {folder / 'SHA256SUMS'}; list it there or use a listed file.")
    return known[name]


def verified(path: Path) -> Path:
    """Return ``path``, a file below ``data_folder()``, once its hash equals the one in ``SHA256SUMS``.

    Raises:
        FileNotFoundError: the file is missing.
        OSError: the file is damaged or was changed.
        ValueError: ``SHA256SUMS`` does not list the file.
    """
    expected = listed_sha256(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Restore it with: git checkout -- data (or reinstall the package).")
    found = sha256_of(path)
    if found != expected:
        raise OSError(
            f"{path} is damaged: its sha256 is {found}, expected {expected} ({path.stat().st_size:,} bytes). "
            "Restore it with: git checkout -- data (or reinstall the package)."
        )
    return path


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` when the block ends well, and vanishes when it does not.

    Who may read the folder may read its files. They are brought to the disk first, and the rename is atomic, so
    ``target`` is there whole or not at all, even after a power failure. If another process made ``target`` meanwhile,
    its folder stays and this one is thrown away.

    Raises:
        OSError: the folder or a file in it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not by mkdtemp, whose mode would lock other users out.
    partial = target.with_name(f".{target.name}-{secrets.token_hex(6)}.partial")
    partial.mkdir()
    try:
        yield partial
        readable = partial.stat().st_mode & 0o444
        for path in partial.rglob("*"):  # safetensors lets their owner alone read its files
            if readable & ~path.stat().st_mode:
                path.chmod(path.stat().st_mode | readable)
        flush_folder(partial)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        flush_names(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that at any moment the file holds either the old or the new content.

    That holds for a power failure too: the new content is brought to the disk before it takes the place of the old.

    Raises:
        OSError: the file cannot be written; it is then as it was.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp's own mode would lock other users out
        temporary.chmod(path.stat().st_mode if path.exists() else 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_names(path.parent)
