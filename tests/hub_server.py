"""A stand-in for the model hub on 127.0.0.1: small repositories, the hub's paths and headers, and faults to switch on.

It answers the requests of ``huggingface_hub`` and ``datasets``: repository information, file trees, and files with byte
ranges, where large files are behind a redirect as on the hub.
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
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import HfFileSystem, constants

LARGE_SUFFIXES = {".safetensors", ".parquet", ".bin"}
PAGE = b"<!DOCTYPE html><html><head><title>Blocked</title></head><body><h1>Access denied</h1></body></html>"
OTHER_COMMIT = "f" * 40
FAULTS = {  # of the whole answer: status, body, headers
    "forbidden": (403, PAGE, {"Content-Type": "text/html; charset=utf-8"}),  # as a filtering proxy sends
    "login page": (200, PAGE, {"Content-Type": "text/html; charset=utf-8"}),
    "throttled": (429, b'{"error": "Too many requests"}', {"Retry-After": "3600"}),
    "broken": (500, b'{"error": "Internal Server Error"}', {}),
}
OTHER_FAULTS = {  # of the answer to the first question, and of a file
    "none", "silence", "other commit",
    "cut", "hang", "short", "corrupt",  # break off or stop in the middle; half as if it were all; one changed byte
}


@dataclass(frozen=True)
class Entry:
    """One file of a repository; the hub would name small ones by git's hash instead."""

    path: str
    content: bytes = field(repr=False)

    @property
    def large(self) -> bool:
        return PurePosixPath(self.path).suffix in LARGE_SUFFIXES

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def described(self) -> dict:
        facts = {"oid": self.sha256, "size": len(self.content)}
        lfs = {"lfs": facts | {"pointerSize": 134}} if self.large else {}
        return {"type": "file", "path": self.path} | facts | lfs


@dataclass(frozen=True)
class Repository:
    """The files of one commit; ``kind`` is ``models`` or ``datasets``, and ``main`` means the same commit."""

    name: str
    commit: str
    files: dict[str, Entry]
    kind: str = "models"

    @classmethod
    def of(cls, name: str, commit: str, contents: dict[str, bytes], kind: str = "models") -> Repository:
        return cls(name, commit, {path: Entry(path, contents[path]) for path in sorted(contents)}, kind)

    def information(self, commit: str) -> dict:
        return {"id": self.name, "sha": commit, "siblings": [{"rfilename": path} for path in self.files]}

    def tree(self, folder: str, recursive: bool) -> list[dict]:
        """Return the description of everything below ``folder``."""
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in self.files if path.startswith(prefix)]
        folders = {str(parent) for path in inside for parent in PurePosixPath(path).parents} - {".", folder}
        found = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": name} for name in sorted(folders)]
        found += [self.files[path].described() for path in inside]
        return [entry for entry in found if entry["path"].startswith(prefix)
                and (recursive or "/" not in entry["path"].removeprefix(prefix))]


@dataclass(frozen=True)
class Answer:
    """One answered request; ``sent`` counts the bytes of the body that were sent."""

    path: str
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
        self.stopped = threading.Event()
        self.set_fault("none")
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port: further connections are refused."""
        if not self.stopped.is_set():
            self.stopped.set()
            self.shutdown()
            self._thread.join()
            self.server_close()

    def set_fault(self, name: str, part: str = "") -> None:
        """Let requests fail if ``part`` is in ``"revision/..."``, in ``"tree/..."``, or in the name of the file."""
        assert name in OTHER_FAULTS.union(FAULTS), name
        self.fault = (name, part)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that hangs up is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer
    fault = "none"

    def log_message(self, *_: object) -> None:
        """Keep the console quiet; ``server.answers`` has it all."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        if large := re.fullmatch(r"/-/large/[^/]+/[^/]+/([0-9a-f]{64})", path):
            [entry, *_] = [entry for repository in self.server.repositories.values()
                           for entry in repository.files.values() if entry.sha256 == large[1]]
            if not self._failed(entry.path):
                self._send_file(entry, {})
        elif info := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(.+))?", path):
            kind, name, what, rest = info.groups()
            revision, _, folder = (rest or "main").partition("/")
            if not self._failed(f"{what or 'revision'}/{rest}"):
                self._send_api(self._repository(kind, name, revision), what, folder, query, body)
        elif file := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if not self._failed(file[4]):
                self._send_resolved(self._repository("datasets" if file[1] else "models", file[2], file[3]), file[4])
        else:
            if path != "/api/agent-harnesses":  # the library's own question, once a day
                self.server.unknown.append(f"{self.command} {self.path}")
            self._send(404, b"")

    do_HEAD = do_POST = do_GET

    def _failed(self, subject: str) -> bool:
        """Answer with the fault of the whole request, if it is to fail; return whether it was."""
        name, part = self.server.fault
        self.fault = name if part in subject else "none"
        if self.fault in FAULTS:
            self._send(*FAULTS[self.fault])
        elif self.fault == "silence":
            self.server.stopped.wait(60)
            self.close_connection = True
        return self.fault in {*FAULTS, "silence"}

    def _repository(self, kind: str, name: str, revision: str) -> Repository | None:
        repository = self.server.repositories.get((kind, name))
        return repository if repository and revision in {repository.commit, "main"} else None

    def _send_api(self, repository: Repository | None, what: str | None, folder: str, query: dict, body: bytes) -> None:
        if repository is None:
            self._send_json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif what == "tree":
            recursive = query.get("recursive", ["false"])[0].lower() == "true"
            self._send_json(200, repository.tree(folder.rstrip("/"), recursive))
        elif what == "paths-info":
            wanted = parse_qs(body.decode())["paths"]
            self._send_json(200, [entry for entry in repository.tree("", recursive=True) if entry["path"] in wanted])
        else:
            commit = OTHER_COMMIT if self.fault == "other commit" else repository.commit
            self._send_json(200, repository.information(commit))

    def _send_resolved(self, repository: Repository | None, path: str) -> None:
        entry = repository and repository.files.get(path)
        if not entry:
            return self._send_json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": repository.commit}
        if not entry.large:
            return self._send_file(entry, headers)
        # Another host name, as on the hub: the client takes size and hash from the redirect itself.
        location = f"http://localhost:{self.server.server_address[1]}/-/large/{repository.name}/{entry.sha256}"
        headers |= {"X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(len(entry.content))}
        return self._send(302, b"", headers | {"Location": location})

    def _send_file(self, entry: Entry, headers: dict[str, str]) -> None:
        content, half = entry.content, len(entry.content) // 2
        if self.fault == "corrupt":
            content = content[:half] + bytes([content[half] ^ 0x01]) + content[half + 1 :]
        elif self.fault == "short":
            content = content[:half]
        start, end, status = 0, len(content), 200
        headers |= {"ETag": f'"{entry.sha256}"', "Accept-Ranges": "bytes"}
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(part[1]), min(int(part[2]) + 1, end) if part[2] else end
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            status = 206
        stop = max(start, min(end, half)) if self.fault in {"cut", "hang"} else end
        return self._send(status, content[start:end], headers, cut=stop - start)

    def _send_json(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        sent = b"" if self.command == "HEAD" else body[:cut]
        self.server.answers.append(Answer(self.path, len(sent)))
        with suppress(OSError):
            self.wfile.write(sent)
            if self.fault == "hang" and len(sent) < len(body):
                self.server.stopped.wait(60)
        if len(sent) < len(body) and self.command != "HEAD":
            self.close_connection = True


def use_server(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's library in this process ask ``url``, with empty caches below ``folder``."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(folder / "ours"))
    monkeypatch.delenv("LLM_TUTORIAL_SOURCE", raising=False)
    HfFileSystem.clear_instance_cache()  # an instance keeps the address that it was made with
