"""A stand-in for the model hub on 127.0.0.1: small repositories, the hub's paths and headers, and faults to switch on.

It answers what ``huggingface_hub`` and ``datasets`` ask: repository information, file trees, and files with byte
ranges, the large ones behind a redirect as on the hub.  Every answer is logged with the bytes that left.  A process
other than the test's switches a fault with ``GET /-/fault/NAME?file=PART&repository=NAME&to=URL``, and sees the paths
that were answered with ``GET /-/answers``; both are always answered.
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
    "missing": "404 with an HTML page",
    "no-revision": "404, as for a commit that the hub does not have",
    "throttled": "429 with Retry-After: an hour",
    "broken": "500",
    "other-commit": "answer with another commit than the one asked for",
    "drip": "one byte every tenth of a second",
    "elsewhere": "redirect to another server, where the content of large files would be",
    "cut": "send the first half, then break off, now and at every attempt to resume",
    "hang": "send the first half, then nothing more on an open connection",
    "short": "send the first half as if it were all",
    "long": "send another byte after the last",
    "corrupt": "change one byte in the middle",
}
OF_FILES = {"cut", "hang", "short", "long", "corrupt"}
DRIP_SECONDS = 0.1
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
class Fault:
    """What goes wrong: with requests of which ``part`` is in the file's name, or in ``"revision/..."``, ``"tree/..."``.

    An empty part means every request, except that the faults ``OF_FILES`` want one.  ``to`` is a URL for "elsewhere".
    """

    name: str
    part: str = ""
    to: str = ""

    def concerns(self, subject: str) -> bool:
        return self.part in subject and (bool(self.part) or self.name not in OF_FILES)


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
        self.faults = {"": Fault("none")}

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

    def set_fault(self, name: str, part: str = "", repository: str = "", to: str = "") -> None:
        """Switch to one of ``FAULTS`` for one repository, or for all that have none of their own."""
        if name not in FAULTS:
            raise ValueError(f"Unknown fault {name!r}: use one of {', '.join(FAULTS)}.")
        self.faults[repository] = Fault(name, part, to)

    def fault(self, repository: str, subject: str) -> Fault:
        """Return what goes wrong with a request."""
        fault = self.faults.get(repository, self.faults[""])
        return fault if fault.concerns(subject) else Fault("none")

    def wait_until_stopped(self) -> None:
        self._stopped.wait(60)

    def pause(self, seconds: float) -> bool:
        """Return whether the server was stopped meanwhile."""
        return self._stopped.wait(seconds)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that hangs up is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer
    fault = Fault("none")

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
        self.fault = Fault("none")
        path, query = unquote(url.path), parse_qs(url.query)
        if switch := re.fullmatch(r"/-/fault/([a-z-]+)", path):
            options = {name: query.get(name, [""])[0] for name in ("file", "repository", "to")}
            self.server.set_fault(switch[1], options["file"], options["repository"], options["to"])
            return self._send(200, b"ok")
        if path == "/-/answers":
            return self._send_json(200, [answer.path for answer in self.server.answers])
        if large := re.fullmatch(r"/-/large/([^/]+/[^/]+)/([0-9a-f]{64})", path):
            found = [entry for (_, name), repository in self.server.repositories.items() if name == large[1]
                     for entry in repository.files.values() if entry.large and entry.sha256 == large[2]]
            if not found:
                return self._send(404, b"")
            self.fault = self.server.fault(large[1], found[0].path)
            return self._fail() or self._send_file(found[0], {})
        if info := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(.+))?", path):
            self.fault = self.server.fault(info[2], f"{info[3] or 'revision'}/{info[4] or ''}")
            return self._fail() or self._answer_api(*info.groups(), query, body)
        if file := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.fault = self.server.fault(file[2], file[4])
            return self._fail() or self._answer_file("datasets" if file[1] else "models", *file.groups()[1:])
        self.server.unknown.append(f"{self.command} {self.path}")
        return self._send(404, b"")

    def _fail(self) -> bool:
        """Answer wrongly, if that is what the fault wants of the whole request; return whether it was."""
        page = {"kind": "text/html; charset=utf-8"}
        match self.fault.name:
            case "silence":
                self.server.wait_until_stopped()
                self.close_connection = True
            case "forbidden":
                self._send(403, PAGE, **page)
            case "page":
                self._send(200, PAGE, **page)
            case "missing":
                self._send(404, PAGE, **page)
            case "no-revision":
                self._send_json(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
            case "throttled":
                self._send_json(429, {"error": "Too many requests"}, {"Retry-After": "3600"})
            case "broken":
                self._send_json(500, {"error": "Internal Server Error"})
            case _:
                return False
        return True

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
            commit = OTHER_COMMIT if self.fault.name == "other-commit" else repository.commit
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
            elsewhere = f"http://localhost:{self.server.server_address[1]}/-/large/{name}/{entry.sha256}"
            location = self.fault.to if self.fault.name == "elsewhere" else elsewhere
            self._send(302, b"", commit | linked | {"Location": location})
        else:
            self._send_file(entry, commit)

    def _send_file(self, entry: Entry, headers: dict[str, str]) -> None:
        content, fault = entry.content, self.fault.name
        half = len(content) // 2
        if fault == "corrupt":
            content = content[:half] + bytes([content[half] ^ 0x01]) + content[half + 1 :]
        elif fault == "short":
            content = content[:half]
        elif fault == "long":
            content += b"\0"
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
        stop = max(start, min(end, half)) if fault in {"cut", "hang"} else end
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
        if self.command == "HEAD":
            self.server.answers.append(Answer(self.command, self.path, status, 0))
            return
        sent = body[:cut]
        with suppress(OSError):
            if self.fault.name == "drip":
                return self._drip(status, sent)
            self.server.answers.append(Answer(self.command, self.path, status, len(sent)))
            self.wfile.write(sent)
            if self.fault.name == "hang" and len(sent) < len(body):
                self.server.wait_until_stopped()
        if len(sent) < len(body):
            self.close_connection = True

    def _drip(self, status: int, body: bytes) -> None:
        self.close_connection = True
        sent = 0
        try:
            while sent < len(body) and not self.server.pause(DRIP_SECONDS):
                self.wfile.write(body[sent : sent + 1])
                sent += 1
        finally:
            self.server.answers.append(Answer(self.command, self.path, status, sent))
