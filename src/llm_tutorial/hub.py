"""Talk to the model hub: whether it answers, what the cache already holds, and how files arrive.

Left alone, the hub's libraries retry for 23 seconds per file where no hub can be reached.  Everything here asks once,
with a deadline, and says what happened.  How a download is watched is in ``transfers``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import queue
import re
import threading
import time
from pathlib import Path
from typing import NoReturn

import huggingface_hub
from huggingface_hub import HfApi, constants
from safetensors import SafetensorError, safe_open

from llm_tutorial import transfers
from llm_tutorial.files import sha256_of
from llm_tutorial.redaction import redacted

__all__ = ["CHECKPOINT_FILES", "cached_snapshot", "download_snapshot", "forget_answers", "refuse_damaged",
           "why_unreachable"]

CHECKPOINT_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                    "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "vocab.txt", "merges.txt")
_NEEDED_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
FAILURE_SECONDS = 60.0


def why_unreachable(
    repo: str, revision: str | None, kind: str = "model", deadline: float = 4.0, token: bool | None = False
) -> str | None:
    """Ask the hub once for ``repo`` at ``revision`` (a commit hash); return None if it answers, else the reason.

    The request runs in a thread of its own, because an HTTP timeout does not cover a name look-up that stalls, nor an
    answer that comes byte by byte.  A good answer holds until the end of the process or ``forget_answers()``, a bad one
    for a minute: so a notebook waits once, and finds a network that was repaired.

    Args:
        revision: None takes any.
        kind: ``"model"`` or ``"dataset"``.
        deadline: seconds to wait for the answer.
        token: None sends the user's own token if there is one, False none.
    """
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    question = (repo, revision, kind, deadline, token)
    trouble, answered = _answer(*question)
    if trouble is not None and time.monotonic() - answered > FAILURE_SECONDS:
        forget_answers()
        trouble, _ = _answer(*question)
    return trouble


@functools.cache
def _answer(
    repo: str, revision: str | None, kind: str, deadline: float, token: bool | None
) -> tuple[str | None, float]:
    """Return what ``why_unreachable`` does, and the time of the answer."""
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
        trouble = answers.get(timeout=deadline)
    except queue.Empty:
        trouble = f"{constants.ENDPOINT} did not answer within {deadline:g} s"
    # The address of a mirror may hold a password, and the reason is shown in a notebook.
    return trouble and redacted(trouble, os.environ), time.monotonic()


# For who insists on the hub, and tries again at once.
forget_answers = _answer.cache_clear


def cached_snapshot(repo: str, revision: str) -> Path | None:
    """Return the folder of a complete model snapshot in the hub's cache, or None; never touches the network.

    Files of which no published hash is known count as not cached: without symbolic links (on Windows) those that
    another program downloaded one by one.

    Raises:
        OSError: a cached file is truncated or damaged.
    """
    try:
        # With the same patterns as the download: the repository's other files never arrive, and are not missed.
        folder = Path(huggingface_hub.snapshot_download(
            repo, revision=revision, allow_patterns=list(CHECKPOINT_FILES), local_files_only=True))
    except FileNotFoundError:
        return None
    complete = all((folder / name).is_file() for name in _NEEDED_FILES)
    return folder if complete and not _unknown_files(folder) else None


def download_snapshot(repo: str, revision: str, *, token: bool | None = False) -> Path:
    """Download the files a checkpoint needs into the hub's cache and return their folder.

    Raises:
        ConnectionError: the transfer broke or was too slow; files that arrived whole stay in the cache, the next call
            fetches the rest.
        FileNotFoundError: the repository lacks a file that is needed.
        OSError: what arrived is damaged, cannot be checked, or cannot be stored.
    """
    endpoint = redacted(constants.ENDPOINT, os.environ)
    try:
        folder = transfers.fetch_snapshot(repo, revision, CHECKPOINT_FILES, token)
    except ConnectionError as error:
        raise ConnectionError(
            f"The download of {repo} from {endpoint} broke off ({error}). "
            "Run the cell again (files that arrived whole are kept), or set LLM_TUTORIAL_SOURCE=offline."
        ) from error
    absent = [name for name in _NEEDED_FILES if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(f"{repo} at {revision} has no {', '.join(absent)}; only repositories with safetensors "
                                "weights in one file, model.safetensors, and a tokenizer.json can be used.")
    unknown = _unknown_files(folder)
    if unknown:
        raise OSError(f"{', '.join(unknown)} in {folder} cannot be checked: the hub's list of their hashes was not "
                      f"stored. Delete {folder} and run the cell again, or set LLM_TUTORIAL_SOURCE=offline.")
    return folder


def refuse_damaged(path: Path, damage: str, *records: Path) -> NoReturn:
    """Remove a downloaded file that is damaged, so that the next download brings it anew, and raise an OSError.

    Args:
        damage: what is wrong with it.
        records: files about it, which go with it.
    """
    size = path.stat().st_size
    try:
        path.resolve().unlink()
        for leftover in (path, *records):
            leftover.unlink(missing_ok=True)
        state = "and has been removed. Run"
    except OSError:  # a cache that several users share, or that is mounted read-only
        state = "and cannot be removed. Delete it, then run"
    raise OSError(f"The downloaded {path} was damaged ({damage}; {size:,} bytes) {state} the cell again to "
                  "download it anew, or set LLM_TUTORIAL_SOURCE=offline.")


def _unknown_files(folder: Path) -> list[str]:
    """Refuse a file whose hash is not the published one, and weights whose header does not fit.

    Returns:
        the files of which no hash is known.
    """
    listing = folder.parents[1] / "trees" / f"{folder.name}.json"
    hashes, unknown = _listed_hashes(listing), []
    for path in (folder / name for name in CHECKPOINT_FILES if (folder / name).is_file()):
        # The first link leads to the file named by its published hash; that may be a link to a store shared by all
        # repositories, where other names hold. Without links the file itself is here.
        name = path.readlink().name if path.is_symlink() else ""
        known = name if _HASH.fullmatch(name) else hashes.get(path.name, "")
        damage = _damage(path, known)
        if damage:
            refuse_damaged(path, damage, *([] if known == name else [listing]))  # either of the two may be wrong
        if not known:
            unknown.append(path.name)
    return unknown


def _listed_hashes(listing: Path) -> dict[str, str]:
    """Return the hash of each file in the list that the hub's library stores with a snapshot, if it did.

    For large files it is the sha256 of the content, for others git's hash.
    """
    try:
        files = json.loads(listing.read_text(encoding="utf-8"))["files"]
        return {name: facts.get("lfs_sha256") or facts["blob_id"] for name, facts in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # the format is the library's own
        return {}


def _damage(path: Path, known: str) -> str | None:
    if len(known) == 64 and sha256_of(path) != known:
        return "its sha256 is not the published one"
    if len(known) == 40:
        content = path.read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() != known:
            return "its git hash is not the published one"
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            return str(error)
    return None
