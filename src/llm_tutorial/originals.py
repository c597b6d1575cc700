"""The notebooks as they were published, to put back what a learner has changed without losing it."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from llm_tutorial.files import replace_file

__all__ = ["PACKAGED", "SAVED", "original_notebooks", "packaged_documents", "reset_notebook"]

SAVED = "saved"
PACKAGED = Path(__file__).resolve().parent / "notebooks"  # of an installed wheel; a checkout has no such folder


def original_notebooks(folder: Path) -> dict[str, bytes]:
    """Return the notebooks of ``folder`` as published: file names with the content of each file.

    An installed wheel carries them; in a checkout they are those of the last commit.

    Raises:
        FileNotFoundError: neither is there, for example in an unpacked archive of the repository.
    """
    if PACKAGED.is_dir():
        return {path.name: path.read_bytes() for path in sorted(PACKAGED.glob("*.ipynb"))}
    if shutil.which("git") is not None and folder.is_dir():
        listed = _git(folder, "ls-tree", "--name-only", "HEAD", "./")
        if listed is not None:
            names = [name for name in listed.decode().splitlines() if name.endswith(".ipynb")]
            stored = {name: _git(folder, "show", f"HEAD:./{name}") for name in names}
            if stored and None not in stored.values():
                return stored
    raise FileNotFoundError(
        f"The original notebooks are not known: in {folder} git has no committed notebooks (or is not installed), and "
        "the installed package carries none. Download the repository again, or work in a clone of it."
    )


def packaged_documents() -> dict[str, bytes]:
    """Return the glossary and its like that an installed wheel carries: file names with the content of each file."""
    return {path.name: path.read_bytes() for path in sorted(PACKAGED.glob("*.md"))}


def reset_notebook(path: Path, original: bytes) -> Path | None:
    """Make the notebook at ``path`` the ``original`` again, and return where the changed one was kept.

    The changed file is copied into the folder ``saved`` beside it first. A notebook that equals the original is left
    alone, and one that is missing is written; both give None.

    Raises:
        OSError: a file cannot be read or written; the notebook is then as it was.
    """
    kept = None
    if path.is_file():
        if path.read_bytes() == original:
            return None
        folder = path.parent / SAVED
        folder.mkdir(exist_ok=True)
        moment = time.strftime("%Y-%m-%d-%H%M%S")
        kept, number = folder / f"{path.stem}-{moment}.ipynb", 1
        while kept.exists():
            number += 1
            kept = folder / f"{path.stem}-{moment}-{number}.ipynb"
        shutil.copy2(path, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, original)
    return kept


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Return what git prints in ``folder``, or None if it fails there."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None
