"""``llm-tutorial summary``: which mistakes the checks named in the notebooks of a class, and how often."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import nbformat
import pandas as pd

__all__ = ["main", "mistakes_named"]


def main(arguments: argparse.Namespace) -> int:
    """Print the table of the notebooks in a folder."""
    table = mistakes_named(arguments.folder)
    print(table.to_string(index=False))
    return 0


def mistakes_named(folder: Path) -> pd.DataFrame:
    """Return how many `times` each `mistake` in each `exercise` is named in the outputs of all notebooks in ``folder``.

    An answer that is right counts as the mistake "none". The most frequent mistake of an exercise comes first.
    """
    notebooks = sorted(path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    outputs = [output for path in notebooks for cell in nbformat.read(path, as_version=4).cells
               for output in cell.get("outputs", [])]
    found = [output.get("metadata", {}).get("text/plain", {}) for output in outputs]
    counts = Counter((about["exercise"], about["mistake"] or "none") for about in found if "exercise" in about)
    if not counts:
        raise ValueError(f"No check has been run in the {len(notebooks)} notebooks below {folder}: execute them first.")
    order = list(dict.fromkeys(exercise for exercise, _ in counts))
    rows = sorted(((*key, times) for key, times in counts.items()), key=lambda row: (order.index(row[0]), -row[2]))
    return pd.DataFrame(rows, columns=["exercise", "mistake", "times"])
