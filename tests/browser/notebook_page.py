"""A notebook in JupyterLab, as a reader sees it: run all cells, look for what went wrong, use the controls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
from lab_server import LabServer
from nbconvert.preprocessors import ClearOutputPreprocessor
from playwright.sync_api import Locator, Page, Request, expect
from playwright.sync_api import TimeoutError as Waited

OPEN_SECONDS = 120  # to load JupyterLab and to start a kernel, on a busy machine
WIDGET_SECONDS = 30  # for a widget to appear, and for a picture to follow a control
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
OUTPUT = ".jp-OutputArea-output"
READY = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    return panel?.context?.isReady && panel.sessionContext.session?.kernel?.status === "idle";
}"""
# The promise of the command ends when the last cell has, or the first one that fails.
RUN_ALL = """() => {
    window.allCells = null;
    window.jupyterapp.commands.execute("notebook:run-all-cells").then(
        () => { window.allCells = "run"; }, error => { window.allCells = String(error); });
}"""
AT_REST = """() => window.allCells !== null
    && window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === "idle"
    && ![...document.querySelectorAll(".jp-InputArea-prompt")].some(prompt => prompt.textContent.includes("*"))"""
LOADED = """() => ![...document.querySelectorAll(".jp-OutputArea-output")]
    .some(output => output.textContent.startsWith("Loading widget"))"""
SAVE = "() => window.jupyterapp.shell.currentWidget.context.save()"
BROKEN_PICTURES = """() => [...document.querySelectorAll(".jp-OutputArea-output img")]
    .filter(image => image.complete && image.naturalWidth === 0).map(image => image.alt || image.src.slice(0, 80))"""


class NotebookPage:
    """One notebook of a server's folder, ``name``, in a new page of a browser."""

    def __init__(self, page: Page, server: LabServer, name: str) -> None:
        self.page, self._server, self._path = page, server, server.folder / name
        self._found: list[str] = []
        page.on("request", self._note_request)
        page.on("pageerror", lambda error: self._found.append(f"JavaScript: {error}"))

    def open(self) -> None:
        """Open the notebook as it is stored."""
        server = self._server  # "reset": a workspace without tabs
        self.page.goto(f"{server.url}/lab/tree/{self._path.name}?token={server.token}&reset",
                       timeout=OPEN_SECONDS * 1000)
        self._wait(READY, OPEN_SECONDS, "has no kernel at rest")

    def run(self, seconds: float) -> None:
        """Open the notebook without the outputs it came with, run all its cells, and save it."""
        notebook, _ = ClearOutputPreprocessor().preprocess(nbformat.read(self._path, as_version=4), {})
        nbformat.write(notebook, self._path)
        self.open()
        self.page.evaluate(RUN_ALL)
        self._wait(AT_REST, seconds, "is still running")
        self.page.evaluate(SAVE)

    def faults(self) -> list[str]:
        """Return what a reader would call wrong, a line each: errors, cells not run, dead widgets, requests."""
        broken = [f"picture that does not load: {name}" for name in self.page.evaluate(BROKEN_PICTURES)]
        return [*self._cell_faults(), *self._widget_faults(), *broken, *dict.fromkeys(self._found)]

    def widgets(self) -> list[Locator]:
        """Return the outputs that are widgets, in their order."""
        return self.page.locator(f"{OUTPUT}:has(.jupyter-widgets)").all()

    def screenshot(self, path: Path, at: Locator | None = None) -> None:
        """Store what the window shows, with one output in its middle, or else the last picture."""
        target = at or self.page.locator(f"{OUTPUT} img").last
        if target.count():
            target.evaluate("node => node.scrollIntoView({block: 'center'})")
        self.page.wait_for_timeout(300)  # JupyterLab draws what comes into view
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)

    def _wait(self, condition: str, seconds: float, problem: str) -> None:
        try:
            self.page.wait_for_function(condition, timeout=seconds * 1000, polling=250)
        except Waited as error:
            raise AssertionError(f"{self._path.name} {problem} after {seconds:.0f} s") from error

    def _code_cells(self) -> list[nbformat.NotebookNode]:
        cells = nbformat.read(self._path, as_version=4).cells
        return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]

    def _cell_faults(self) -> list[str]:
        cells = self._code_cells()
        return [f"did not run: {cell.source[:60]}" for cell in cells if cell.execution_count is None] + [
            f"failed: {output.ename}: {output.evalue}: {cell.source[:60]}"
            for cell in cells for output in cell.outputs if output.output_type == "error"]

    def _widget_faults(self) -> list[str]:
        with suppress(Waited):  # what does not load is named below
            self.page.wait_for_function(LOADED, timeout=WIDGET_SECONDS * 1000, polling=250)
        texts = [" ".join(text.split()) for text in self.page.locator(OUTPUT).all_inner_texts()]
        found = [f"widget: {text[:200]}" for text in texts if text.startswith(("Error displaying widget", "Loading w"))]
        found += [f"widget: {text}" for text in self.page.locator(".jupyter-widgets-error-widget").all_inner_texts()]
        stored = sum(WIDGET_MIME in output.get("data", {}) for cell in self._code_cells() for output in cell["outputs"])
        if not found and stored != len(self.widgets()):
            found.append(f"widget: {stored} in the notebook, {len(self.widgets())} on the page")
        return found

    def _note_request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.hostname != "127.0.0.1":
            self._found.append(f"request to the network: {request.url}")


def set_slider(view: Locator, keys: str = "ArrowRight") -> None:
    """Move the widget's first slider with the keyboard, and see the picture follow and the focus stay."""
    handle = view.get_by_role("slider").first
    _see_picture_change(view, lambda: (handle.focus(), handle.press(keys)), f"{keys} on the slider")
    expect(handle).to_be_focused()


def press_button(view: Locator, button: Locator) -> None:
    """Click a button, and see the picture follow."""
    _see_picture_change(view, button.click, f"a click on {button.inner_text()!r}")


def type_text(view: Locator, label: str, text: str) -> None:
    """Replace the text in a field, key by key, confirm it, and see the picture follow."""
    field = view.get_by_label(label)
    _see_picture_change(view, lambda: (field.fill(""), field.press_sequentially(text), field.press("Enter")),
                        f"{text!r} in {label!r}")


def _see_picture_change(view: Locator, change: Callable[[], object], what: str) -> None:
    picture = view.locator("img").first
    before = picture.get_attribute("src", timeout=WIDGET_SECONDS * 1000)
    change()
    try:
        expect(picture).not_to_have_attribute("src", before, timeout=WIDGET_SECONDS * 1000)
    except AssertionError:
        said = view.get_by_role("alert").all_inner_texts()
        raise AssertionError(f"the picture is the same after {what}; the widget says {said}") from None  # of base64
