"""The sources of models and texts: the bundled files, the model hub, and the package index."""

from __future__ import annotations

import os

__all__ = ["chosen_source"]

_SOURCES = ("auto", "hub", "offline")


def chosen_source(source: str | None = None) -> tuple[str, str]:
    """Return the source to use (``auto``, ``hub`` or ``offline``), and who chose it.

    The argument has priority over ``LLM_TUTORIAL_SOURCE``; without both the source is ``auto``.
    """
    variable = os.environ.get("LLM_TUTORIAL_SOURCE", "").strip().lower()
    chosen = source or variable or "auto"
    origin = f"source={source!r}" if source else f"LLM_TUTORIAL_SOURCE={variable}" if variable else "the default"
    if chosen not in _SOURCES:
        raise ValueError(f"Unknown source {chosen!r} ({origin}): use one of {', '.join(_SOURCES)}.")
    return chosen, origin
