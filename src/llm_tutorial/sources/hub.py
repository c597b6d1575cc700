"""The model hub: whether it answers, which snapshots its cache holds, and how they are downloaded."""

from __future__ import annotations

import errno
import functools
import queue
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from llm_tutorial.sources import chosen_source
from llm_tutorial.sources.files import sha256_of

__all__ = ["CHECKPOINT_FILES", "cached_snapshot", "download_snapshot", "hub_errors", "redacted", "use_hub",
           "why_unreachable"]

CHECKPOINT_FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                    "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "vocab.txt", "merges.txt"]
_NEEDED_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_DEADLINE = 4.0  # seconds; the libraries would try for 23 seconds per file
_STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


def use_hub(repo: str, revision: str, kind: str = "model", *, source: str | None = None) -> tuple[bool, str]:
    """Return whether to take ``repo``, a ``"model"`` or a ``"dataset"``, from the hub, and why.

    If the source is ``hub`` and the hub cannot be reached, this raises a ConnectionError.
    """
    chosen, origin = chosen_source(source)
    if chosen == "offline":
        return False, origin
    trouble = why_unreachable(repo, revision, kind)
    if trouble is None:
        return True, "the hub answered"
    if chosen == "hub":
        _answer.cache_clear()  # the next attempt asks again
        raise ConnectionError(f"{repo} must come from the hub ({origin}), but the hub cannot be reached: {trouble}. "
                              "Check the connection, or set LLM_TUTORIAL_SOURCE=auto or offline to go on without it.")
    return False, f"hub not reachable: {trouble}"


def why_unreachable(
    repo: str, revision: str | None, kind: str = "model", *, token: bool | None = False
) -> str | None:
    """Return None if the hub answers within four seconds with this commit (None: any) of ``repo``, else the reason.

    An answer holds for a minute. ``token=None`` sends the user's token if there is one.
    """
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    return _answer(repo, revision, kind, token, minute=int(time.monotonic() // 60))


@functools.lru_cache(maxsize=16)
def _answer(repo: str, revision: str | None, kind: str, token: bool | None, minute: int) -> str | None:  # noqa: ARG001
    answers: queue.Queue[str | None] = queue.Queue()

    def ask() -> None:
        try:
            info = HfApi().repo_info(repo, repo_type=kind, revision=revision, timeout=_DEADLINE, token=token)
        except Exception as error:  # the type depends on the version of the hub's library
            answers.put(_described(error))
        else:
            answered = revision in {None, info.sha}
            answers.put(None if answered else f"{constants.ENDPOINT} answered with another commit, {info.sha}")

    # In a thread, because the HTTP timeout covers neither a name look-up that stalls nor an answer that drips.
    threading.Thread(target=ask, daemon=True).start()
    try:
        trouble = answers.get(timeout=_DEADLINE)
    except queue.Empty:
        trouble = f"{constants.ENDPOINT} did not answer within {_DEADLINE:g} s"
    return trouble and redacted(trouble)


def cached_snapshot(repo: str, revision: str, sha256: str = "") -> Path | None:
    """Return the folder of a complete model snapshot in the hub's cache, or None; never touches the network.

    ``sha256`` is the hash of ``model.safetensors``, by default the one that the hub published. If the weights have
    another hash, this raises an OSError.
    """
    try:
        folder = Path(huggingface_hub.snapshot_download(
            repo, revision=revision, allow_patterns=CHECKPOINT_FILES, local_files_only=True))
    except FileNotFoundError:
        return None
    return None if _absent(folder) else _checked(folder, repo, sha256)


def download_snapshot(repo: str, revision: str, sha256: str = "", *, token: bool | None = False) -> Path:
    """Download the files of a checkpoint into the hub's cache, check the weights, and return their folder."""
    with hub_errors(repo), _progress_bars():
        folder = Path(huggingface_hub.snapshot_download(
            repo, revision=revision, allow_patterns=CHECKPOINT_FILES, token=token))
    if absent := _absent(folder):
        raise FileNotFoundError(f"{repo} at {revision} has no {', '.join(absent)}: choose a repository with a "
                                "tokenizer.json, and with all weights in one file model.safetensors.")
    return _checked(folder, repo, sha256)


def _absent(folder: Path) -> list[str]:
    return [name for name in _NEEDED_FILES if not (folder / name).is_file()]


def _checked(folder: Path, repo: str, sha256: str) -> Path:
    weights = folder / "model.safetensors"
    # A link in the cache leads to a file with the published hash as its name; on Windows there are no links.
    expected = sha256 or (weights.readlink().name if weights.is_symlink() else "")
    if len(expected) == 64 and sha256_of(weights) != expected:
        raise OSError(
            f"{weights} is damaged: its sha256 is not {expected}. Remove it with: hf cache rm model/{repo} (or delete "
            f"the folder {folder.parents[1]}), then run the cell again; or set LLM_TUTORIAL_SOURCE=offline.")
    return folder


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turn every error of the hub's library into a ConnectionError, or an OSError about the disk, with a remedy."""
    if "@" in constants.ENDPOINT:
        huggingface_hub.logging.set_verbosity_error()  # its warnings show the address of a mirror, with the password
    try:
        yield
    except Exception as error:  # the type depends on the version of the library
        # "from None": a traceback would show the original message, which may have a password too.
        if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS:
            raise OSError(f"{repo} cannot be stored ({_described(error)}). Free some space, or choose another folder "
                          "(HF_HOME for models), or set LLM_TUTORIAL_SOURCE=offline.") from None
        raise ConnectionError(f"The download of {repo} from {redacted(constants.ENDPOINT)} failed "
                              f"({_described(error)}). Run the cell again, or set LLM_TUTORIAL_SOURCE=offline."
                              ) from None


@contextmanager
def _progress_bars() -> Iterator[None]:
    """Show the library's progress bars, which lessons hide for short work, unless the user's environment hides them."""
    hidden = are_progress_bars_disabled() and not constants.HF_HUB_DISABLE_PROGRESS_BARS
    if hidden:
        enable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            disable_progress_bars()


def redacted(text: str) -> str:
    """Return ``text`` with ``***`` in place of the user names and passwords in addresses, and of the hub's tokens."""
    return re.sub(r"(?<=://)[^\s/]+(?=@)|\bhf_\w{8,}", "***", text)


def _described(error: BaseException) -> str:
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:  # the library's "an error happened"
        error = error.__cause__
    first_line = (str(error).strip() or "no details").splitlines()[0].rstrip(".")
    return redacted(f"{type(error).__name__}: {first_line}")
