"""Titles of documents, compared so that no text stands on both sides of a split under two spellings of its name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from datasets import Dataset

__all__ = ["title_key", "without_titles"]

_QUALIFIER = re.compile(r"\s*\([^()]*\)\s*$")  # "Python (programming language)"
_IGNORED = {"M", "P", "Z", "C"}  # first letters of the Unicode categories: accents, punctuation, spaces, controls


def title_key(title: str) -> str:
    """Return what near-identical titles have in common: letters, digits and symbols, without case and accents.

    A qualifier in brackets at the end does not count, so "Mercury (planet)" is taken for "Mercury": better to leave
    out a document too many than to train on one that is validated with.
    """
    for text in (_QUALIFIER.sub("", title), title):
        decomposed = unicodedata.normalize("NFKD", text).casefold()
        key = "".join(sign for sign in decomposed if unicodedata.category(sign)[0] not in _IGNORED)
        if key:
            return key
    return title


def without_titles(documents: Dataset, titles: Iterable[str]) -> Dataset:
    """Return the documents, in their order, whose titles are not near-identical with one of ``titles``."""
    keys = {title_key(title) for title in titles}
    return documents.select([row for row, title in enumerate(documents["title"]) if title_key(title) not in keys])
