"""Texts without passwords and tokens: for notebooks, which are stored and shared, and for the doctor's report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

__all__ = ["redacted"]

_SECRET_NAME = re.compile(r"(TOKEN|PASSWORD|SECRET|API_KEY|ACCESS_KEY)$", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=://)[^\s/]*@")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_SHORTEST_SECRET = 4  # to mask every "no" of a report would hide more than the password


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
