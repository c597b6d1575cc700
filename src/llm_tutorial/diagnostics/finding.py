"""What a check reports: one line with a verdict, without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

__all__ = ["Finding", "one_line", "redacted"]

_SECRET_NAME = re.compile(r"(TOKEN|PASSWORD|SECRET|API_KEY|ACCESS_KEY)$", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=://)[^\s/]*@")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_SHORTEST_SECRET = 4  # to mask every "no" of a report would hide more than the password


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        verdict: ``"ok"``, ``"note"`` (good to know, nothing fails) or ``"FAIL"`` (notebooks will fail).
        what: what was looked at.
        detail: what was found.
        remedy: what to do, empty if there is nothing to do.
    """

    verdict: str
    what: str
    detail: str
    remedy: str = ""


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def redacted(text: str, environ: Mapping[str, str]) -> str:
    """Return ``text`` with ``***`` in place of user names and passwords in addresses, and of tokens.

    Libraries put the address of a proxy, with its password, into the messages of their errors.

    Args:
        environ: where passwords and tokens may be set; what is set there is masked wherever it appears.
    """
    for secret in sorted(_secrets(environ), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _HUB_TOKEN.sub("***", _CREDENTIALS.sub("***@", text))


def _secrets(environ: Mapping[str, str]) -> set[str]:
    found = {value for name, value in environ.items() if _SECRET_NAME.search(name)}
    for name, value in environ.items():
        if name.lower().endswith("_proxy") or name == "HF_ENDPOINT":
            # Up to the last @: a password may hold one that nobody has quoted.
            credentials = re.match(r"(?:\w+://)?(.*)@", value)
            if credentials:
                password = credentials[1].partition(":")[2]
                found |= {credentials[1], password, unquote(password)}
    return {secret for secret in found if len(secret) >= _SHORTEST_SECRET}
