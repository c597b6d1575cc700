"""``llm-tutorial run``: execute notebooks from the first to the last cell, and make a site of them."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import nbformat
import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm

from llm_tutorial.commands.pages import build_pages, can_build_pages
from llm_tutorial.sources.files import replace_file, writable_folder

__all__ = [
    "RECORD", "REFERENCE_ENVIRONMENT", "Run", "chosen_notebooks", "execute_notebook", "library_versions", "main",
    "notebooks_folder", "read_notebook",
]

# The one mode in which outputs are stored and compared: the bundled models and data, on the CPU, without progress bars.
REFERENCE_ENVIRONMENT = {
    "LLM_TUTORIAL_SOURCE": "offline",
    "LLM_TUTORIAL_DEVICE": "cpu",
    "LLM_TUTORIAL_PRECISION": "fp32",
    "LLM_TUTORIAL_DISPLAY": "plain",
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "PASSIVE",  # on a busy machine threads that spin take several times as long
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
RECORD = "llm_tutorial"  # in a notebook's metadata: the versions that made the stored outputs
LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "numpy", "pandas")
PACKAGE = Path(__file__).resolve().parents[1]
PACKAGED = PACKAGE / "notebooks"  # of an installed wheel; a checkout has them two folders above the package
ANSI_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Run:
    """What came of a notebook: ``cells`` counts the code cells that began, ``error`` shows the last if it failed."""

    notebook: Path
    executed: NotebookNode = field(repr=False)
    seconds: float
    peak_memory_bytes: int
    cells: int
    error: str | None


def main(arguments: argparse.Namespace) -> int:
    """Execute the notebooks that the arguments name, in their order, and return 1 if a cell of one failed."""
    notebooks = chosen_notebooks(arguments.notebooks)
    output = writable_folder(arguments.output.resolve(), "Choose another --output.")
    if arguments.stored:
        _write_pages(output, {path: read_notebook(path) for path in notebooks})
        return 0
    cells = [cell for path in notebooks for cell in read_notebook(path).cells]
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    for name in ("masked", "causal"):
        if re.search(rf"load_{name}_lm|resolve_checkpoint\(\s*[\"']{name}", code):
            print(f"Looking for the {name} model, which is fetched the first time", flush=True)
            from llm_tutorial.checkpoints import resolve_checkpoint

            wanted = REFERENCE_ENVIRONMENT["LLM_TUTORIAL_SOURCE"] if arguments.in_place else None
            print(resolve_checkpoint(name, source=wanted).path, flush=True)
    runs = [_executed(path, arguments) for path in notebooks]
    _write_pages(output, {run.notebook: run.executed for run in runs})
    if failed := [run.notebook.stem for run in runs if run.error is not None]:
        print(f"FAILED: {', '.join(failed)}")
    return int(bool(failed))


def _write_pages(output: Path, shown: Mapping[Path, NotebookNode]) -> None:
    """Make a site of ``shown`` and of the notebooks beside them, or say how to get the libraries for it."""
    if can_build_pages():
        print("Building the pages, which takes some seconds", flush=True)
        folder = _existing_folder()
        beside = folder if folder and any(path.is_relative_to(folder) for path in shown) else None
        print(f"Pages: {build_pages(beside, output, shown)}")
    else:
        print("For web pages, install two libraries and run again: python -m pip install myst-nb sphinx-book-theme")


def notebooks_folder() -> Path:
    """Return the folder of the lessons: ``notebooks`` in the current folder, else in the checkout of this package.

    An installed wheel copies its notebooks into ``notebooks`` in the current folder if there are none.
    """
    if (found := _existing_folder()) is not None:
        return found
    folder = Path("notebooks").resolve()
    if not PACKAGED.is_dir():
        raise FileNotFoundError(f"There are no notebooks in {folder}: change to the folder of the checkout.")
    folder.mkdir(exist_ok=True)
    for path in (*PACKAGED.glob("*.ipynb"), *PACKAGED.glob("*.md")):
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    print(f"The notebooks have been copied to {folder}", flush=True)
    return folder


def _existing_folder() -> Path | None:
    here, published = Path.cwd().resolve(), {path.name for path in PACKAGED.glob("*.ipynb")}
    if published & {path.name for path in here.glob("*.ipynb")}:
        return here
    places = (here / "notebooks", PACKAGE.parents[1] / "notebooks")
    return next((place.resolve() for place in places if any(place.glob("*.ipynb"))), None)


def chosen_notebooks(names: Sequence[str]) -> list[Path]:
    """Return the notebooks named by their file, their folder, or how their name begins; all lessons without names."""
    found: list[Path] = []
    for path in map(Path, names or [notebooks_folder()]):
        if path.is_file():
            found.append(path.resolve())
            continue
        folder = path if path.is_dir() else notebooks_folder() / path.parent
        matching = sorted(folder.resolve().glob("*.ipynb" if path.is_dir() else f"{path.stem}*.ipynb"))
        if not matching:
            raise FileNotFoundError(f"There is no notebook {path}. Name a file, a folder, or a lesson, such as 01.")
        found += matching
    return list(dict.fromkeys(found))


def _executed(path: Path, arguments: argparse.Namespace) -> Run:
    if not sys.stdout.isatty():
        print(f"{path.stem}  running", flush=True)
    run = execute_notebook(path, timeout=arguments.timeout, in_place=arguments.in_place)
    result = "passed" if run.error is None else f"FAILED at cell {run.cells}"
    print(f"{path.stem}  {result}  {run.cells} cells  {run.seconds:.0f} s  peak {run.peak_memory_bytes / 1e6:.0f} MB",
          flush=True)
    if run.error is not None:
        print(f"\n{path.stem}, {run.error}\n", flush=True)
    return run


def execute_notebook(
    path: Path | str,
    *,
    folder: Path | str | None = None,
    timeout: int | None = None,
    in_place: bool = False,
    reference: bool = False,
) -> Run:
    """Execute the notebook at ``path`` in a new kernel of this interpreter, and return what came of it.

    A cell that fails, runs for more than ``timeout`` seconds or takes its kernel down ends the run; ``Run.error`` shows
    it, and nothing is raised. The kernel works in ``folder``, by default the notebook's own. With ``reference`` or
    ``in_place`` it gets ``REFERENCE_ENVIRONMENT``; with ``in_place``, if every cell passes, the outputs and the
    libraries' versions are stored in the file, which is replaced whole. A terminal shows the number of the cell.
    """
    path = Path(path).resolve()
    folder = path.parent if folder is None else Path(folder).resolve()
    notebook = read_notebook(path)
    notebook.metadata.pop("widgets", None)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
        cell.metadata.pop("execution", None)
    begun: list[NotebookNode] = []
    # Without folders to look in, the only kernel is the one that ipykernel makes up for this interpreter.
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(
        notebook, km=manager, timeout=timeout, startup_timeout=120, iopub_timeout=60, record_timing=False,
        store_widget_state=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # else a line about unencrypted local sockets
    )

    def begin(cell: NotebookNode, **_: object) -> None:
        begun.append(cell)
        client.shutdown_kernel = "immediate"

    def end(cell: NotebookNode, **_: object) -> None:
        client.shutdown_kernel = "graceful"  # only a kernel at rest can be asked to leave: its clean-up code runs
        cell.outputs = _joined(cell.outputs)

    client.on_cell_execute, client.on_cell_executed = begin, end
    environment = os.environ | (REFERENCE_ENVIRONMENT if in_place or reference else {})
    started, peak_bytes, error = time.monotonic(), 0, None
    bar = tqdm(total=sum(bool(cell.source.strip()) for cell in code), desc=path.stem, file=sys.stdout, leave=False,
               disable=None, bar_format="{desc}  cell {n_fmt} of {total_fmt}  {elapsed}")
    # In a thread of its own nbclient leaves Ctrl-C alone, which it would take for a kernel that died.
    with bar, ThreadPoolExecutor(max_workers=1) as thread:
        done = thread.submit(asyncio.run, client.async_execute(cwd=str(folder), env=environment, cleanup_kc=True))
        try:
            while wait([done], timeout=0.2).not_done:
                with suppress(psutil.Error):  # processes come and go while they are counted
                    peak_bytes = max(peak_bytes, sum(process.memory_info().rss for process in _processes(manager)))
                bar.n = len(begun)
                bar.refresh()
        except KeyboardInterrupt:
            while wait([done], timeout=0.2).not_done:  # it may still be starting
                for process in _processes(manager):
                    with suppress(psutil.Error):
                        process.kill()
            raise
    try:
        done.result()
    except CellExecutionError as raised:
        traces = [output.traceback for output in begun[-1].outputs if output.output_type == "error"]
        error = "\n".join(traces[-1]) if traces else str(raised)
    except CellTimeoutError:
        error = f"The cell ran for more than {timeout} s. Allow more time, or less work in the cell."
    except DeadKernelError:
        error = "The kernel died. The usual cause is a lack of memory: close other programs, then run it again."
    for key in ("codemirror_mode", "version"):  # they depend on the interpreter, and exporting does not need them
        notebook.metadata.get("language_info", {}).pop(key, None)
    if error is not None:
        if not any(output.output_type == "error" for output in begun[-1].outputs):  # the page shows why it ends there
            begun[-1].outputs.append(nbformat.v4.new_output("error", ename="Stopped", evalue=error, traceback=[error]))
        error = f"cell {len(begun)}:\n\n{begun[-1].source}\n\n{ANSI_CODE.sub('', error)}"
    elif in_place:
        notebook.metadata[RECORD] = library_versions()
        replace_file(path, (nbformat.writes(notebook).rstrip("\n") + "\n").encode("utf-8"))
    return Run(path, notebook, time.monotonic() - started, peak_bytes, len(begun), error)


def _joined(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Join the parts of stdout, and of stderr, as a terminal shows them; nbclient's way is quadratic in a long line."""
    streams: dict[str, NotebookNode] = {}
    kept = [output for output in outputs
            if output.output_type != "stream" or streams.setdefault(output.name, output) is output]
    for name, first in streams.items():
        parts = [output.text for output in outputs if output.output_type == "stream" and output.name == name]
        first.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in "".join(parts).split("\n"))
    return sorted(kept, key=lambda output: output.get("name") == "stderr")  # which comes at any time


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that can change an output."""
    return {name: metadata.version(name) for name in LIBRARIES}


def read_notebook(path: Path) -> NotebookNode:
    """Return the notebook of a file, in the format's version 4."""
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, AttributeError, KeyError) as error:  # text that is no JSON, or JSON that is no notebook
        raise ValueError(f"{path} is no notebook ({error}). Open it in JupyterLab to see what is wrong.") from error


def _processes(manager: AsyncKernelManager) -> list[psutil.Process]:
    """Return the kernel's process and its children, and none where there is no kernel."""
    with suppress(psutil.Error, AttributeError):
        kernel = psutil.Process(manager.provisioner.pid)
        return [*kernel.children(recursive=True), kernel]
    return []
