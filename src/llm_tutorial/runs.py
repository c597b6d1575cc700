"""Figures of trainings that take longer than a lesson: made once, bundled, and checked before they are shown."""

from __future__ import annotations

import json
from typing import Any

from llm_tutorial import files

__all__ = ["load_run"]


def load_run(name: str) -> dict[str, Any]:
    """Return what ``data/runs/<name>.json`` keeps: commands, figures, losses by step, samples, versions.

    ``"more_data"`` compares a training on 50 articles with one on ten thousand introductions; losses are in nats per
    token.

    Raises:
        ValueError: no run of this name is bundled.
        FileNotFoundError, OSError: the bundled file is missing or damaged.
    """
    folder = files.data_folder() / "runs"
    try:
        path = files.verified(folder / f"{name}.json")
    except ValueError as error:
        names = ", ".join(sorted(file.stem for file in folder.glob("*.json")))
        raise ValueError(f"No run {name!r} is bundled: use one of {names}. ({error})") from error
    return json.loads(path.read_text(encoding="utf-8"))
