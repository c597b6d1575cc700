"""Talk to the model hub: whether it answers, what the cache already holds, and how files arrive.

Left alone, the hub's libraries retry for 23 seconds per file where no hub can be reached.  Everything here asks once,
with a deadline, and says what happened.  How a download is watched is in ``transfers``.
"""

from __future__ import annotations

import functools
import hashlib
import queue
import re
import threading
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi, constants
from safetensors import SafetensorError, safe_open

from llm_tutorial import transfers
from llm_tutorial.files import sha256_of

__all__ = ["CHECKPOINT_FILES", "cached_snapshot", "download_snapshot", "forget_answers", "why_unreachable"]

CHECKPOINT_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                    "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "vocab.txt", "merges.txt")
_NEEDED_FILES = ("config.json", "model.safetensors", "tokenizer.json")


@functools.cache
def why_unreachable(
    repo: str, revision: str | None, kind: str = "model", deadline: float = 4.0, token: bool | None = False
) -> str | None:
    """Ask the hub once for ``repo`` at ``revision`` (a commit hash); return None if it answers, else the reason.

    The request runs in a thread of its own, because an HTTP timeout does not cover a name look-up that stalls, nor an
    answer that comes byte by byte.  The answer holds until ``forget_answers()`` or the end of the process.

    Args:
        revision: None takes any.
        kind: ``"model"`` or ``"dataset"``.
        deadline: seconds to wait for the answer.
        token: None sends the user's own token if there is one, False none.
    """
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    answers: queue.Queue[str | None] = queue.Queue()

    def ask() -> None:
        try:
            info = HfApi().repo_info(repo, repo_type=kind, revision=revision, timeout=deadline, token=token)
        except Exception as error:  # the type differs with the hub library's version; every failure means the same
            first_line = (str(error).strip() or "no details").splitlines()[0].rstrip(".")
            answers.put(f"{type(error).__name__}: {first_line}")
        else:
            matches = revision in {None, info.sha}
            answers.put(None if matches else f"{constants.ENDPOINT} answered with another commit, {info.sha}")

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=deadline)
    except queue.Empty:
        return f"{constants.ENDPOINT} did not answer within {deadline:g} s"


# For who insists on the hub, and tries again once the network is repaired.
forget_answers = why_unreachable.cache_clear


def cached_snapshot(repo: str, revision: str) -> Path | None:
    """Return the folder of a complete model snapshot in the hub's cache, or None; never touches the network.

    Raises:
        OSError: a cached file is truncated or damaged.
    """
    try:
        # With the same patterns as the download: the repository's other files never arrive, and are not missed.
        folder = Path(huggingface_hub.snapshot_download(
            repo, revision=revision, allow_patterns=list(CHECKPOINT_FILES), local_files_only=True))
    except FileNotFoundError:
        return None
    if not all((folder / name).is_file() for name in _NEEDED_FILES):
        return None
    _check_files(folder)
    return folder


def download_snapshot(repo: str, revision: str, *, token: bool | None = False) -> Path:
    """Download the files a checkpoint needs into the hub's cache and return their folder.

    Raises:
        ConnectionError: the transfer broke or was too slow; files that arrived whole stay in the cache, the next call
            fetches the rest.
        FileNotFoundError: the repository lacks a file that is needed.
        OSError: what arrived is damaged, or cannot be stored.
    """
    try:
        folder = transfers.fetch_snapshot(repo, revision, CHECKPOINT_FILES, token)
    except ConnectionError as error:
        raise ConnectionError(
            f"The download of {repo} from {constants.ENDPOINT} broke off ({error}). "
            "Run the cell again (files that arrived whole are kept), or set LLM_TUTORIAL_SOURCE=offline."
        ) from error
    absent = [name for name in _NEEDED_FILES if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(f"{repo} at {revision} has no {', '.join(absent)}; only repositories with safetensors "
                                "weights and a tokenizer.json can be used.")
    _check_files(folder)
    return folder


def _check_files(folder: Path) -> None:
    """Refuse a file whose hash is not the one that names it in the cache, and weights whose header does not fit.

    A damaged file is removed, so that the next download brings it anew.
    """
    for path in (folder / name for name in CHECKPOINT_FILES if (folder / name).is_file()):
        damage = _damage(path)
        if damage:
            size = path.stat().st_size
            try:
                path.resolve().unlink()
                path.unlink(missing_ok=True)
                state = "and has been removed. Run"
            except PermissionError:  # a cache that several users share
                state = "and cannot be removed. Delete it, then run"
            raise OSError(f"The downloaded {path} was damaged ({damage}; {size:,} bytes) {state} the cell again to "
                          "download it anew, or set LLM_TUTORIAL_SOURCE=offline.")


def _damage(path: Path) -> str | None:
    # The first link leads to the file named by its published hash; that may be a link to a store shared by all
    # repositories, where other names hold.
    name = path.readlink().name if path.is_symlink() else ""
    if re.fullmatch(r"[0-9a-f]{64}", name) and sha256_of(path) != name:
        return "its sha256 is not the published one"
    if re.fullmatch(r"[0-9a-f]{40}", name):
        content = path.read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() != name:
            return "its git hash is not the published one"
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            return str(error)
    return None
