"""Environment variables that change what the network and the hub's libraries do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from llm_tutorial.diagnostics.finding import Finding
from llm_tutorial.redaction import redacted

__all__ = ["certificate_findings", "hub_variable_findings", "is_true", "proxy_findings"]

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SWITCHES = {
    "HF_HUB_OFFLINE": "the hub is never asked, only its cache",
    "TRANSFORMERS_OFFLINE": "the hub is never asked, only its cache",
    "HF_DATASETS_OFFLINE": "no dataset is downloaded",
    "HF_HUB_DISABLE_XET": "downloads do without the Xet protocol",
}
_VALUES = {
    "HF_ENDPOINT": "is asked in place of the hub",
    "HF_HOME": "holds the caches of the hub",
    "HF_HUB_CACHE": "is the cache of models",
    "HF_DATASETS_CACHE": "is the cache of datasets",
    "HF_HUB_ETAG_TIMEOUT": "seconds to wait for the facts about a file",
    "HF_HUB_DOWNLOAD_TIMEOUT": "seconds to wait for the next piece of a file",
}
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_IGNORED = {"TRANSFORMERS_CACHE": "HF_HUB_CACHE", "PYTORCH_TRANSFORMERS_CACHE": "HF_HUB_CACHE",
            "PYTORCH_PRETRAINED_BERT_CACHE": "HF_HUB_CACHE"}


def proxy_findings(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Report the proxies, without user names and passwords."""
    found = [f"{name}={redacted(environ[name], environ)}" for upper in _PROXIES for name in (upper, upper.lower())
             if environ.get(name) and (os.name != "nt" or name == upper)]  # Windows knows no lower case
    for upper in _PROXIES[:3]:
        values = {environ[name] for name in (upper, upper.lower()) if environ.get(name)}
        if len(values) > 1:
            yield Finding("note", "proxy", f"{upper} and {upper.lower()} differ, and programs disagree which counts",
                          f"set both to the same address, or unset {upper}")
    yield Finding("ok", "proxy", ", ".join(found) or "no variable names one")


def certificate_findings(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Report the variables that name certificates; each must lead to something, else every download fails."""
    named = [name for name in _CERTIFICATES if environ.get(name)]
    missing = [name for name in named if not _leads_somewhere(name, environ[name])]
    for name in missing:
        kind = "folder" if name == "SSL_CERT_DIR" else "file"
        yield Finding("FAIL", "certificates", f"{name}={environ[name]}: there is no such {kind}, so downloads fail",
                      f"unset {name}, or name the {kind} of your network's certificates")
    if not missing:
        listed = ", ".join(f"{name}={environ[name]}" for name in named)
        yield Finding("ok", "certificates", listed or "no variable names any: those of the libraries are used")


def hub_variable_findings(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Report each variable that changes what the hub's libraries do; a token is said to be set, and never shown."""
    found = []
    for name, effect in _SWITCHES.items():
        if is_true(environ.get(name, "")):
            found.append(Finding("note", name, effect, "" if name == "HF_HUB_DISABLE_XET" else f"unset {name} to ask"))
    for name, effect in _VALUES.items():
        if environ.get(name):
            found.append(Finding("note", name, f"{redacted(environ[name], environ)} {effect}"))
    if environ.get("HF_ENDPOINT") and not re.match(r"https?://", environ["HF_ENDPOINT"]):
        found.append(Finding("note", "HF_ENDPOINT", "does not begin with https:// or http://, so nothing can be asked",
                             "correct the address, or unset HF_ENDPOINT"))
    found += [Finding("note", name, "set (not shown); sent only for repositories that you name yourself")
              for name in _TOKENS if environ.get(name)]
    found += [Finding("note", name, "has no effect any more", f"set {instead} instead")
              for name, instead in _IGNORED.items() if environ.get(name)]
    yield from found or [Finding("ok", "HF_ variables", "none is set that changes anything")]


def is_true(value: str) -> bool:
    """Return whether the hub's libraries take the value of a variable for yes."""
    return value.strip().upper() in {"1", "ON", "YES", "TRUE"}


def _leads_somewhere(name: str, value: str) -> bool:
    if name == "SSL_CERT_DIR":
        return any(Path(part).is_dir() for part in value.split(os.pathsep))
    # The variables of requests and curl may also name a folder.
    return Path(value).is_file() or (name != "SSL_CERT_FILE" and Path(value).is_dir())
