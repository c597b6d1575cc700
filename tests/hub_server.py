"""A stand-in for the model hub on 127.0.0.1: small repositories, the hub's paths and headers, and faults to switch on.

It answers what ``huggingface_hub`` and ``datasets`` ask: repository information, file trees, and files with byte
ranges, the large ones behind a redirect as on the hub.  Every answer is logged with the bytes that left.  A process
other than the test's switches a fault with ``GET /-/fault/NAME?file=PART``, which is always answered.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

LARGE_SUFFIXES = {".safetensors", ".parquet", ".bin"}
FAULTS = {
    "none": "answer properly",
    "silence": "accept connections and never answer",
    "forbidden": "403 with an HTML page, as a filtering proxy sends",
    "page": "200 with an HTML page, as the log-in page of a network sends",
    "throttled": "429",
    "broken": "500",
    "other-commit": "answer with another commit than the one asked for",
    "cut": "send the first half of files whose name contains PART, then break off, now and at every attempt to resume",
    "corrupt": "change one byte in the middle of files whose name contains PART",
}
PAGE = b"<!DOCTYPE html><html><head><title>Blocked</title></head><body><h1>Access denied</h1></body></html>"
OTHER_COMMIT = "f" * 40


@dataclass(frozen=True)
class Entry:
    """One file of a repository with the names its content has on the hub."""

    path: str
    content: bytes = field(repr=False)

    @property
    def large(self) -> bool:
        return PurePosixPath(self.path).suffix in LARGE_SUFFIXES

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def blob(self) -> str:
        """The id git gives to the content; for a large file, whose pointer git stores, the hub shows the pointer's."""
        content = self.content
        if self.large:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(content)}\n"
            content = pointer.encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.blob

    def described(self) -> dict:
        facts = {"type": "file", "oid": self.blob, "size": len(self.content), "path": self.path}
        if self.large:
            facts["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return facts


@dataclass(frozen=True)
class Repository:
    """The files of one commit; ``kind`` is ``models`` or ``datasets`` and ``main`` means the same commit."""

    name: str
    commit: str
    files: dict[str, Entry]
    kind: str = "models"

    @classmethod
    def of_folder(cls, name: str, commit: str, folder: Path, kind: str = "models") -> Repository:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        entries = [Entry(path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths]
        return cls(name, commit, {entry.path: entry for entry in entries}, kind)

    def information(self, commit: str) -> dict:
        key = {"models": "modelId", "datasets": "id"}[self.kind]
        return {
            "_id": "0" * 24, "id": self.name, key: self.name, "sha": commit, "private": False, "gated": False,
            "disabled": False, "downloads": 0, "likes": 0, "tags": [], "author": self.name.split("/")[0],
            "lastModified": "2024-02-19T11:06:12.000Z", "createdAt": "2022-03-02T23:29:04.000Z",
            "siblings": [{"rfilename": path} for path in self.files],
        }  # fmt: skip

    def tree(self, folder: str, recursive: bool) -> list[dict] | None:
        """Return what lies below ``folder``, or None if there is no such folder."""
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in self.files if path.startswith(prefix)]
        if not inside:
            return None
        folders = {str(parent) for path in inside for parent in PurePosixPath(path).parents if str(parent) != "."}
        found = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": name} for name in sorted(folders)]
        found = [entry for entry in found if entry["path"].startswith(prefix)]
        found += [self.files[path].described() for path in inside]
        return [entry for entry in found if recursive or "/" not in entry["path"].removeprefix(prefix)]


@dataclass(frozen=True)
class Answer:
    """One answered request; ``sent`` counts the bytes of the body that were sent."""

    method: str
    path: str
    status: int
    sent: int


class HubServer(ThreadingHTTPServer):
    """Serve ``repositories`` at ``url`` between ``with`` and the end of its block, or until ``stop()``."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, repositories: Iterable[Repository]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = {(repository.kind, repository.name): repository for repository in repositories}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.answers: list[Answer] = []
        self.unknown: list[str] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._stopped = threading.Event()
        self.set_fault("none")

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port: further connections are refused."""
        if not self._stopped.is_set():
            self._stopped.set()
            self.shutdown()
            self._thread.join()
            self.server_close()

    def set_fault(self, name: str, file: str = "") -> None:
        """Switch to one of ``FAULTS``; ``cut`` and ``corrupt`` concern the files whose name contains ``file``."""
        if name not in FAULTS:
            raise ValueError(f"Unknown fault {name!r}: use one of {', '.join(FAULTS)}.")
        self.fault, self.fault_file = name, file

    def wait_until_stopped(self) -> None:
        self._stopped.wait(60)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that hangs up is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: object) -> None:
        """Keep the console quiet; ``server.answers`` has it all."""

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        if fault := re.fullmatch(r"/-/fault/([a-z-]+)", path):
            self.server.set_fault(fault[1], query.get("file", [""])[0])
            return self._send(200, b"ok")
        match self.server.fault:
            case "silence":
                self.server.wait_until_stopped()
                self.close_connection = True
                return None
            case "forbidden":
                return self._send(403, PAGE, kind="text/html; charset=utf-8")
            case "page":
                return self._send(200, PAGE, kind="text/html; charset=utf-8")
            case "throttled":
                return self._send_json(429, {"error": "Too many requests"})
            case "broken":
                return self._send_json(500, {"error": "Internal Server Error"})
        if large := re.fullmatch(r"/-/large/([0-9a-f]{64})", path):
            found = [entry for repository in self.server.repositories.values() for entry in repository.files.values()
                     if entry.large and entry.sha256 == large[1]]
            return self._send_file(found[0], {}) if found else self._send(404, b"")
        if info := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(.+))?", path):
            return self._answer_api(*info.groups(), query, body)
        if file := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._answer_file("datasets" if file[1] else "models", *file.groups()[1:])
        self.server.unknown.append(f"{self.command} {self.path}")
        return self._send(404, b"")

    def _repository(self, kind: str, name: str, revision: str) -> Repository | None:
        """Return the repository, or answer why there is none."""
        repository = self.server.repositories.get((kind, name))
        if repository is None or revision not in {repository.commit, repository.commit[:12], "main"}:
            what = "Repo" if repository is None else "Revision"
            self._send_json(404, {"error": f"{what} not found"}, {"X-Error-Code": f"{what}NotFound"})
            return None
        return repository

    def _answer_api(
        self, kind: str, name: str, what: str | None, rest: str | None, query: dict[str, list[str]], body: bytes
    ) -> None:
        revision, _, folder = (rest or "main").partition("/")
        repository = self._repository(kind, name, revision)
        if repository is None:
            return
        if what in {None, "revision"}:
            commit = OTHER_COMMIT if self.server.fault == "other-commit" else repository.commit
            self._send_json(200, repository.information(commit))
        elif what == "tree":
            entries = repository.tree(folder.rstrip("/"), query.get("recursive", ["false"])[0].lower() == "true")
            if entries is None:
                self._send_json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            else:
                self._send_json(200, entries)
        else:
            is_json = "json" in self.headers.get("Content-Type", "")
            wanted = json.loads(body)["paths"] if is_json else parse_qs(body.decode()).get("paths", [])
            entries = [entry for entry in repository.tree("", recursive=True) or [] if entry["path"] in wanted]
            self._send_json(200, entries)

    def _answer_file(self, kind: str, name: str, revision: str, path: str) -> None:
        repository = self._repository(kind, name, revision)
        if repository is None:
            return
        entry = repository.files.get(path)
        commit = {"X-Repo-Commit": repository.commit}
        if entry is None:
            self._send_json(404, {"error": "Entry not found"}, commit | {"X-Error-Code": "EntryNotFound"})
        elif entry.large:
            linked = {"X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(len(entry.content))}
            # Another host name, as on the hub: the client takes what it needs to know from the redirect itself.
            elsewhere = f"http://localhost:{self.server.server_address[1]}/-/large/{entry.sha256}"
            self._send(302, b"", commit | linked | {"Location": elsewhere})
        else:
            self._send_file(entry, commit)

    def _send_file(self, entry: Entry, headers: dict[str, str]) -> None:
        content, fault = entry.content, self.server.fault
        hit = bool(self.server.fault_file) and self.server.fault_file in entry.path
        half = len(content) // 2
        if fault == "corrupt" and hit:
            content = content[:half] + bytes([content[half] ^ 0x01]) + content[half + 1 :]
        start, end, status = 0, len(content), 200
        headers = headers | {"ETag": f'"{entry.etag}"', "Accept-Ranges": "bytes"}
        if part := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last = part.groups()
            start = int(first) if first else max(len(content) - int(last), 0)
            end = min(int(last) + 1, len(content)) if first and last else len(content)
            if start >= len(content):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            status = 206
        stop = max(start, min(end, half)) if fault == "cut" and hit else end
        self._send(status, content[start:end], headers, kind="application/octet-stream", cut=stop - start)
        return None

    def _send_json(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), headers, kind="application/json; charset=utf-8")

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, *, kind: str = "text/plain",
        cut: int | None = None,
    ) -> None:  # fmt: skip
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        sent = b"" if self.command == "HEAD" else body[:cut]
        self.server.answers.append(Answer(self.command, self.path, status, len(sent)))
        with suppress(OSError):
            self.wfile.write(sent)
        if self.command != "HEAD" and len(sent) < len(body):
            self.close_connection = True
