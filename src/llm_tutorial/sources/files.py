"""The bundled data and the cache: where they are, and how files are checked and written."""

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

__all__ = [
    "cache_folder", "data_folder", "listed_files", "listed_sha256", "new_folder", "replace_file", "sha256_of",
    "verified", "verified_folder", "writable_folder",
]


def data_folder() -> Path:
    """Return the folder of the bundled data: ``data/`` of a checkout, or its copy inside an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "data", package.parents[1] / "data"):
        if (folder / "SHA256SUMS").is_file():
            return folder
    raise FileNotFoundError(f"No bundled data beside {package}: install the package again, or work in a full checkout.")


def cache_folder() -> Path:
    """Return the folder for files that are too large to bundle, which may be missing, or read-only for this user.

    ``LLM_TUTORIAL_CACHE`` names it; otherwise it is the platform's cache folder (``XDG_CACHE_HOME`` on Linux).
    """
    chosen = os.environ.get("LLM_TUTORIAL_CACHE") or platformdirs.user_cache_dir("llm-tutorial", appauthor=False)
    return Path(chosen).expanduser()


def writable_folder(folder: Path, remedy: str = "Set LLM_TUTORIAL_CACHE to a folder of yours.") -> Path:
    """Return ``folder`` after creating it if necessary; a PermissionError with ``remedy`` says it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(f"The folder {folder} cannot be written to ({error.strerror}). {remedy}") from error
    return folder


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed_files() -> dict[str, str]:
    """Return the hash of each bundled file, by its name below ``data_folder()``, as ``SHA256SUMS`` lists them."""
    lines = (data_folder() / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def listed_sha256(path: Path) -> str:
    """Return the hash that ``SHA256SUMS`` lists for a file below ``data_folder()``, without reading the file."""
    name, listed = path.relative_to(data_folder()).as_posix(), listed_files()
    if name not in listed:
        raise ValueError(f"{name} is not listed in {data_folder() / 'SHA256SUMS'}: use a listed file.")
    return listed[name]


def verified(path: Path) -> Path:
    """Return ``path``, a file below ``data_folder()``, if its hash is the one in ``SHA256SUMS``; else raise OSError."""
    expected = listed_sha256(path)
    found = sha256_of(path) if path.is_file() else "missing"
    if found != expected:
        raise OSError(f"{path} is damaged: its sha256 is {found}, expected {expected}. "
                      "Restore it with: git checkout -- data (or reinstall the package).")
    return path


def verified_folder(folder: Path) -> Path:
    """Return ``folder``, one below ``data_folder()``, if all files that are listed for it have the right hash."""
    for name in listed_files():
        if folder in (path := data_folder() / name).parents:
            verified(path)
    return folder


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` at the end of the block, or is removed if the block fails.

    So ``target`` is complete or absent, also when the process is killed. One that another process has made meanwhile
    stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}-{secrets.token_hex(6)}.partial")
    partial.mkdir()
    try:
        yield partial
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; at any moment, ``path`` holds either its old or all of the new content."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(6)}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
