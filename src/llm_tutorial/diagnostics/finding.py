"""What a check reports: one line with a verdict."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding", "one_line"]


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
