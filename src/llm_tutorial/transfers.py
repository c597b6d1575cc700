"""Downloads from the model hub in a process of their own, which is ended when too little arrives.

The hub's libraries wait as long as a server asks them to, an hour if need be, and read on as long as a byte comes now
and then.  A thread that waits cannot be stopped; a process can, and its locks go with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import HfFileSystem, constants, snapshot_download

from llm_tutorial.disks import DISK_FULL
from llm_tutorial.processes import PATIENCE_SECONDS, package_environment, watch_process
from llm_tutorial.redaction import redacted

__all__ = ["fetch_rows", "fetch_snapshot"]

ROWS_SECONDS = 180.0  # for a few megabytes in all
_STALE_SECONDS = 3600.0
_CHUNK_BYTES = 1 << 18  # the library's 10 MB would reach the disk as rarely as every few minutes
_PIECE_BYTES = 1 << 20


def fetch_snapshot(repo: str, revision: str, patterns: Sequence[str], token: bool | None) -> Path:
    """Download the files of a model repository that match ``patterns`` into the hub's cache; return their folder.

    Args:
        token: None sends the user's own token if there is one, False none.

    Raises:
        ConnectionError: the transfer broke, or came to a stand-still.
        OSError: the files cannot be stored: the disk is full, or the folder is not to be written to.
    """
    cache = Path(constants.HF_HUB_CACHE)
    # Newer libraries keep the content of all repositories in one place beside them.
    folders = [cache / f"models--{repo.replace('/', '--')}" / "blobs", cache / "blobs"]
    _remove_stale(folders[0], "*.incomplete")
    options = {"repo_id": repo, "revision": revision, "allow_patterns": list(patterns), "token": token,
               "cache_dir": str(cache), "endpoint": constants.ENDPOINT}
    return Path(_fetch("snapshot", options, repo, cache, lambda: sum(map(_size, folders))))


def fetch_rows(pattern: str, columns: Sequence[str], rows: int, target: Path) -> None:
    """Read the first rows of the first parquet file on the hub that matches ``pattern`` into the file ``target``.

    ``target`` appears whole or not at all.  Only the pages that hold these rows travel; ``load_dataset`` as a stream
    asks for 32 MB at once, and tries 20 times when the stream breaks.

    Args:
        pattern: as ``HfFileSystem`` takes it, ``"datasets/owner/name@commit/folder/*.parquet"``.

    Raises:
        ConnectionError, OSError: as ``fetch_snapshot``.
    """
    _remove_stale(target.parent, f".{target.stem}-*.partial")
    handle, partial = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=".partial", dir=target.parent)
    os.close(handle)
    options = {"pattern": pattern, "columns": list(columns), "rows": rows, "target": partial,
               "endpoint": constants.ENDPOINT}
    try:
        _fetch("rows", options, pattern.split("@")[0].removeprefix("datasets/"), target.parent, None)
        Path(partial).chmod(0o644)  # mkstemp's own mode would lock other users of the cache out
        os.replace(partial, target)
    finally:
        Path(partial).unlink(missing_ok=True)


def _fetch(task: str, options: dict, name: str, folder: Path, arrived: Callable[[], int] | None) -> str | None:
    """Run a task in a new process; ``arrived`` tells how many bytes there are so far, None that nobody can know."""
    # Without Xet, whose storage has hosts of its own. Large files still come from another host, to which the hub
    # redirects, so a network may let the hub answer and block them: then the error names that host.
    environment = package_environment(PYTHONUTF8="1", HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as log:  # not pipes: nobody has to read them
        # Without a buffer, which would be written once more when the pipe is closed.
        with subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=answer, stderr=log,
                              bufsize=0, env=environment) as process:
            try:
                with suppress(BrokenPipeError):  # it ended already; its answer says why
                    process.stdin.write(json.dumps({"task": task} | options).encode() + b"\n")
                patience = PATIENCE_SECONDS if arrived else ROWS_SECONDS
                stopped = watch_process(process, f"{name}: downloading", arrived=arrived, patience=patience)
            finally:
                process.kill()  # after Ctrl-C nothing keeps on working; no effect on a finished process
        answer.seek(0)
        log.seek(0)
        said, told = answer.read().decode("utf-8", "replace"), log.read().decode("utf-8", "replace")
    # The address of a mirror may hold a password, and what is raised ends in a stored notebook.
    told = redacted(told, os.environ).splitlines()
    lines = [line.strip()[:300] for line in told if line.strip()] or ["nothing"]
    if stopped:
        raise ConnectionError(f"{stopped}; the library's last words: {', '.join(lines[-2:])}")
    if not said:
        raise ConnectionError(f"the process ended with status {process.returncode}; its last words: {lines[-1]}")
    found = json.loads(said)
    error = redacted(found.get("error", ""), os.environ)
    if found.get("storage"):
        raise OSError(f"{name} cannot be stored below {folder} ({error}). Free some space, or "
                      "choose another folder: HF_HOME for models, LLM_TUTORIAL_CACHE for articles. Or set "
                      "LLM_TUTORIAL_SOURCE=offline.")
    if error:
        raise ConnectionError(error)
    return found["value"]


def _remove_stale(folder: Path, pattern: str) -> None:
    """Remove what downloads left that were killed: nothing goes on with it; young files may belong to one at work."""
    for path in folder.glob(pattern):
        with suppress(OSError):  # another process may be at it too; what stays only takes room
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # files are renamed while they are counted
            total += path.lstat().st_size
    return total


def _snapshot(options: dict) -> str:
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
    return snapshot_download(**options)


def _rows(options: dict) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    hub_files = HfFileSystem(endpoint=options["endpoint"], token=False)
    first = min(hub_files.glob(options["pattern"]), default=None)
    if first is None:
        raise FileNotFoundError(f"no file on the hub is called {options['pattern']}")
    with hub_files.open(first, cache_type="none") as file, pq.ParquetFile(
            file, buffer_size=_PIECE_BYTES, page_checksum_verification=True) as table:
        # One row group at a time: asked for all of them, pyarrow would read ahead to the end of the file.
        batches = (batch for group in range(table.num_row_groups)
                   for batch in table.iter_batches(100, row_groups=[group], columns=options["columns"],
                                                   use_threads=False))
        rows = list(islice((row for batch in batches for row in batch.to_pylist()), options["rows"]))
    pq.write_table(pa.Table.from_pylist(rows).select(options["columns"]), options["target"])


def _described(error: BaseException) -> dict[str, object]:
    """Name an error, what is behind it and the host, and whether that is a full disk, or a file that does not open."""
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    told = [f"{type(each).__name__}: {' '.join(str(each).split()).rstrip('.') or 'no details'}" for each in chain]
    behind = f", because of {told[-1]}" if told[-1].partition(": ")[2] not in told[0] else ""
    host = next(filter(None, map(_asked_host, chain)), "")
    where = f"; the host that was asked is {host}" if host and host not in told[0] + behind else ""
    storage = [each for each in chain if isinstance(each, OSError) and (each.errno in DISK_FULL or each.filename)]
    return {"error": told[0] + behind + where, "storage": bool(storage)}  # errors of sockets have no file name


def _asked_host(error: BaseException) -> str:
    """Return the host that a client's error is about, without its port, or an empty string."""
    with suppress(RuntimeError):  # the error has no request
        url = getattr(getattr(error, "request", None), "url", "")
        return urlsplit(str(url)).hostname or ""
    return ""


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # nothing follows, and it returns when the other end is closed or killed
        pass
    os._exit(1)


def _main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task = {"snapshot": _snapshot, "rows": _rows}[request.pop("task")]
    try:
        found = {"value": task(request)}
    except Exception as error:  # the libraries' versions share no common type; the caller sorts them
        found = _described(error)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    _main()
