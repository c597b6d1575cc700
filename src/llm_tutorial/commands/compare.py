"""``llm-tutorial compare``: why is my number different?"""

from __future__ import annotations

import argparse
import re

import torch
from nbformat import NotebookNode

from llm_tutorial.checkpoints import resolve_checkpoint
from llm_tutorial.commands.run import (
    RECORD,
    REFERENCE_ENVIRONMENT,
    Run,
    chosen_notebooks,
    execute_notebook,
    library_versions,
    read_notebook,
)
from llm_tutorial.device import pick_device

__all__ = ["differences", "main"]

NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
STORED = {setting: REFERENCE_ENVIRONMENT[variable] for setting, variable in {
    "source": "LLM_TUTORIAL_SOURCE", "device": "LLM_TUTORIAL_DEVICE", "precision": "LLM_TUTORIAL_PRECISION",
    "threads": "OMP_NUM_THREADS"}.items()}


def main(arguments: argparse.Namespace) -> int:
    """Execute a notebook here, list the cells whose output is not the stored one, and return 1 if there are any."""
    path = chosen_notebooks([arguments.notebook])[0]
    stored = read_notebook(path)
    print(f"Executing {path.name} with the settings of this machine", flush=True)
    found = _compared(stored, execute_notebook(path))
    if not found:
        print("Every output that is compared is the stored one; timings and the like are not compared.")
        return 0
    for number, detail in found.items():
        print(f"[{number}]  {detail}")
    settings = {name: value for name, value in _settings().items() if value != STORED[name]}
    if settings:
        print("Executing it again with the settings of the stored outputs", flush=True)
    left = _compared(stored, execute_notebook(path, reference=True)) if settings else found
    if gone := [f"[{cell}]" for cell in found if cell not in left]:
        here = "; ".join(f"{name} {value} here, {STORED[name]} stored" for name, value in settings.items())
        print(f"Because of the settings ({here}): {', '.join(gone)}. Both outputs are right.")
    if left:
        recorded = stored.metadata.get(RECORD, {})
        versions = "; ".join(f"{name} {version} here, {recorded[name]} stored"
                             for name, version in library_versions().items() if recorded.get(name, version) != version)
        print(f"With equal settings too: {', '.join(f'[{cell}]' for cell in left)}. "
              + (f"Likely because of other versions: {versions}." if versions else
                 "The versions are equal, so another processor or a changed cell is left as the cause."))
    return 1


def differences(stored: NotebookNode, executed: NotebookNode) -> dict[int, str]:
    """Return what differs in the output of each code cell, counted as Jupyter counts, between two executions.

    As for nbval, pictures and the output of cells tagged ``nbval-ignore-output`` are not compared.
    """
    pairs = [(old, new) for old, new in zip(stored.cells, executed.cells, strict=True)
             if old.cell_type == "code" and old.source.strip()]
    found = {}
    for number, (old, new) in enumerate(pairs, 1):
        before, now = _text(old), _text(new)
        if before != now and "nbval-ignore-output" not in old.metadata.get("tags", []):
            found[number] = f"{old.source.strip().splitlines()[0][:60]}\n      {_how_much(before, now)}"
    return found


def _compared(stored: NotebookNode, run: Run) -> dict[int, str]:
    """Return the differences in the cells that were executed."""
    if run.error is not None:
        print(f"Execution ended at {run.error}")
    return {number: detail for number, detail in differences(stored, run.executed).items() if number <= run.cells}


def _text(cell: NotebookNode) -> str:
    """Everything that a cell printed or showed, as plain text."""
    parts = [output.get("text") or output.get("evalue") or output.get("data", {}).get("text/plain", "")
             for output in cell.outputs]
    return "\n".join(part.strip() for part in parts)


def _how_much(before: str, now: str) -> str:
    """Say by how much the numbers differ if only numbers do, else show the first lines that do."""
    if NUMBER.sub("0", before) == NUMBER.sub("0", now):
        pairs = [(float(a.replace(",", "")), float(b.replace(",", "")), a, b)
                 for a, b in zip(NUMBER.findall(before), NUMBER.findall(now), strict=True)]
        share, a, b = max((abs(x - y) / max(abs(x), abs(y), 1e-12), a, b) for x, y, a, b in pairs)
        return f"numbers differ by up to {share:.1%}: {a} stored, {b} here"
    lines = zip((before + "\n").split("\n"), (now + "\n").split("\n"), strict=False)
    old, new = next(((old, new) for old, new in lines if old != new), ("", "more lines"))
    return f"{old.strip()[:70]!r} stored, {new.strip()[:70]!r} here"


def _settings() -> dict[str, str]:
    device = pick_device()
    return {"source": resolve_checkpoint("masked").source, "device": device.name,
            "precision": "bf16" if device.bf16 else "fp16" if device.fp16 else "fp32",
            "threads": str(torch.get_num_threads())}
