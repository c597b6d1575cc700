"""Run a notebook from the first cell to the last in a fresh kernel, and measure what it took."""

from __future__ import annotations

import copy
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from llm_tutorial.files import replace_file

__all__ = ["REFERENCE_ENVIRONMENT", "Failure", "Run", "execute_notebook", "read_notebook", "reported_source"]

# The one mode in which outputs are stored and compared: the bundled models and data, on the CPU, without progress bars.
REFERENCE_ENVIRONMENT = {
    "LLM_TUTORIAL_SOURCE": "offline",
    "LLM_TUTORIAL_DEVICE": "cpu",
    "LLM_TUTORIAL_PRECISION": "fp32",
    "LLM_TUTORIAL_DISPLAY": "plain",
    "OMP_NUM_THREADS": "2",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
POLL_SECONDS = 0.2
ANSI_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Failure:
    """The cell at which a run stopped; ``cell`` is the number that JupyterLab shows as ``[cell]``."""

    cell: int
    source: str
    traceback: str


@dataclass(frozen=True)
class Run:
    """What happened to one notebook; ``cells`` counts the code cells started, ``error`` is None if all passed.

    ``source`` and ``device`` are what the notebook's own first table names, ``""`` where it names none.
    """

    notebook: Path
    seconds: float
    peak_memory_bytes: int
    cells: int
    source: str
    error: Failure | None
    executed: NotebookNode = field(repr=False, compare=False)
    device: str = ""


class PeakMemory:
    """Watch a process and its children while the ``with`` block runs; ``bytes`` is the largest sum of resident memory.

    Pages that the processes share are counted once for each of them. The maximum outlives the processes.
    """

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, _resident_bytes(self._pid))
            if self._done.wait(POLL_SECONDS):
                return


def execute_notebook(
    path: Path | str,
    *,
    folder: Path | str | None = None,
    on_cell: Callable[[int, int, float], None] | None = None,
    timeout: int | None = None,
    in_place: bool = False,
) -> Run:
    """Execute the notebook at ``path`` in a new kernel of this interpreter, and return what came of it.

    A cell that fails, runs for more than ``timeout`` seconds or takes its kernel down ends the run; it is described in
    ``Run.error`` and raises nothing. The kernel works in ``folder``, by default the notebook's own, and
    ``on_cell(number, total, seconds)`` is called before each code cell with the seconds since the start. With
    ``in_place`` the kernel gets ``REFERENCE_ENVIRONMENT``, and the outputs are stored in the file once every cell has
    passed: the file is replaced whole or not touched.

    Raises:
        FileNotFoundError: there is no such notebook, or no such ``folder``.
        ValueError: the file is no notebook.
        OSError: the kernel does not start, or the file cannot be written.
        KeyboardInterrupt: the user stopped the run; the kernel has been stopped too, the file is unchanged.
    """
    path = Path(path).resolve()
    notebook = _without_outputs(read_notebook(path))
    folder = path.parent if folder is None else Path(folder).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder, so no kernel can work in it. Name a folder that exists.")
    client = NotebookClient(
        notebook,
        km=_kernel_manager(),
        timeout=timeout,
        startup_timeout=120,
        iopub_timeout=60,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        shutdown_kernel="immediate",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no line on the console about unencrypted local sockets
    )
    code = [(index, cell) for index, cell in enumerate(notebook.cells) if _is_executed(cell)]
    started = time.monotonic()
    cells, error = 0, None
    with _running_kernel(client, folder, REFERENCE_ENVIRONMENT if in_place else {}) as memory:
        # Not client.execute(): it takes SIGINT for itself, and Ctrl-C would look like a kernel that died.
        for cells, (index, cell) in enumerate(code, start=1):
            if on_cell is not None:
                on_cell(cells, len(code), time.monotonic() - started)
            error = _execute_cell(client, index, cell, cells)
            if error is not None:
                break
        else:  # only a kernel at rest can be asked to leave by itself, which lets its clean-up code run
            client.shutdown_kernel = "graceful"
    if in_place and error is None:
        replace_file(path, _storable(notebook).encode("utf-8"))
    seconds = time.monotonic() - started
    source, device = reported_source(notebook), _reported(notebook, "device")
    return Run(path, seconds, memory.bytes, cells, source, error, notebook, device)


def read_notebook(path: Path) -> NotebookNode:
    """Return the notebook stored at ``path``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no notebook.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no notebook {path}.")
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, AttributeError, KeyError) as error:  # text that is no JSON, or JSON that is no notebook
        raise ValueError(f"{path} is no notebook ({error}). Open it in JupyterLab to see what is wrong.") from error


def reported_source(notebook: NotebookNode) -> str:
    """Return the source of models and data that the notebook's first such table names, or ``""`` if none does."""
    return _reported(notebook, "source")


def _reported(notebook: NotebookNode, row: str) -> str:
    """Return the first word of the first table's ``row``, or ``""`` if no table has such a row."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found = re.search(rf"^{row}\s+(\S+)", output.get("data", {}).get("text/plain", ""), re.MULTILINE)
            if found:
                return found[1]
    return ""


def _kernel_manager() -> AsyncKernelManager:
    """Return a manager for ipykernel under ``sys.executable``, whatever kernels the user has installed."""
    # Without folders to look in, the only specification left is the one ipykernel makes up for this interpreter.
    return AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))


@contextmanager
def _running_kernel(client: NotebookClient, folder: Path, variables: Mapping[str, str]) -> Iterator[PeakMemory]:
    """Start the client's kernel in ``folder``, measure it, and see that it has ended when the block is left."""
    manager = client.km
    with ExitStack() as stack:
        stack.callback(_kill, manager)
        try:
            environment = {**os.environ, **variables}
            stack.enter_context(client.setup_kernel(cwd=str(folder), env=environment, cleanup_kc=True))
        except RuntimeError as error:
            raise OSError(
                f"No kernel started in {folder} ({error}). Check that `python -m ipykernel --version` works in this "
                "environment; if not: python -m pip install ipykernel"
            ) from error
        yield stack.enter_context(PeakMemory(manager.provisioner.pid))


def _kill(manager: AsyncKernelManager) -> None:
    """End the kernel if nbclient has not: it does not when the user stops the run while the kernel is starting."""
    if manager.has_kernel:
        run_sync(manager.shutdown_kernel)(now=True)


def _is_executed(cell: NotebookNode) -> bool:
    tags = cell.metadata.get("tags", [])
    return cell.cell_type == "code" and bool(cell.source.strip()) and "skip-execution" not in tags


def _execute_cell(client: NotebookClient, index: int, cell: NotebookNode, number: int) -> Failure | None:
    try:
        client.execute_cell(cell, index, execution_count=number)
    except CellExecutionError as error:
        raised = [output for output in cell.outputs if output.output_type == "error"]
        trace = "\n".join(raised[-1].traceback) if raised else f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        trace = f"The cell ran for more than {client.timeout} s. Allow more time, or less work in the cell."
    except DeadKernelError:
        trace = "The kernel died. The usual cause is a lack of memory: close other programs, then run it again."
    else:
        return None
    if not any(output.output_type == "error" for output in cell.outputs):  # let the page show why it ends here
        cell.outputs.append(nbformat.v4.new_output("error", ename="Stopped", evalue=trace, traceback=[trace]))
    return Failure(number, cell.source, ANSI_CODE.sub("", trace))


def _resident_bytes(pid: int) -> int:
    total = 0
    with suppress(psutil.Error):  # the processes come and go while they are counted
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += member.memory_info().rss
    return total


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    """Take out what an earlier run left, so that a cell that is not reached shows no output."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
    return notebook


def _storable(notebook: NotebookNode) -> str:
    """Return the notebook's text without what changes from one computer to the next."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.get("language_info", {}).pop("version", None)
    return nbformat.writes(notebook).rstrip("\n") + "\n"
