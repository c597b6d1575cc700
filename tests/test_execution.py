"""The notebook runner and the pages, on tiny notebooks that need neither a model nor a network."""

import json
import os
import re
import sys
import time
from html.parser import HTMLParser

import nbformat
import psutil
import pytest

from llm_tutorial.execution import execute_notebook, reported_source
from llm_tutorial.pages import title_of, write_contents, write_page

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def code(source, *outputs, **metadata):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)


def notebook(*cells, **metadata):
    cells = [nbformat.v4.new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def stored(path, *cells, **metadata):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook(*cells, **metadata), path)
    return path


def display(data, metadata=None):
    return nbformat.v4.new_output("display_data", data=data, metadata=metadata or {})


def test_a_run_reports_cells_outputs_source_and_time(tmp_path):
    table = ("import sys, os\nclass Table:\n    def __repr__(self): return '        value\\nsource  offline\\n"
             "device  cuda'\nTable()")
    path = stored(tmp_path / "01.ipynb", "# Title", code(table), code(""), code("print(sys.executable, os.getcwd())"))
    calls = []
    run = execute_notebook(path, on_cell=lambda *call: calls.append(call))
    assert (run.notebook, run.cells, run.error, run.source, run.device) == (path, 2, None, "offline", "cuda")
    assert [call[:2] for call in calls] == [(1, 2), (2, 2)]
    assert 0 <= calls[0][2] < calls[1][2] < run.seconds
    assert run.executed.cells[3].outputs[0].text.split() == [sys.executable, str(tmp_path)]
    assert nbformat.read(path, 4).cells[3].outputs == []


def test_the_kernel_is_this_interpreters_and_works_in_the_chosen_folder(tmp_path, monkeypatch):
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["no-such-python"], "display_name": "other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    other = {"name": "python3", "display_name": "other"}
    path = stored(tmp_path / "01.ipynb", code("import os; open('here', 'w').close()"), kernelspec=other)
    (tmp_path / "work").mkdir()
    assert execute_notebook(path, folder=tmp_path / "work").error is None
    assert (tmp_path / "work" / "here").is_file()


def test_peak_memory_counts_the_kernel_and_its_children(tmp_path):
    child = "import sys, time; text = b'x' * 150_000_000; time.sleep(1)"
    cell = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}], check=True)"
    run = execute_notebook(stored(tmp_path / "01.ipynb", code(cell)))
    assert run.error is None
    assert 150e6 < run.peak_memory_bytes < 1000e6


def test_a_failing_cell_ends_the_run_and_is_described(tmp_path):
    path = stored(tmp_path / "01.ipynb", code("1"), "text", code("half = 1\nhalf / 0"), code("2"))
    before = path.read_bytes()
    run = execute_notebook(path, in_place=True)
    assert (run.cells, run.error.cell, run.error.source) == (2, 2, "half = 1\nhalf / 0")
    assert "ZeroDivisionError: division by zero" in run.error.traceback
    assert "\x1b" not in run.error.traceback
    assert path.read_bytes() == before


def test_a_kernel_that_dies_ends_the_run_at_once_and_keeps_its_memory(tmp_path):
    run = execute_notebook(stored(tmp_path / "01.ipynb", code("import time; time.sleep(0.5)\nimport os; os._exit(1)")))
    assert run.error.cell == 1
    assert "kernel died" in run.error.traceback
    assert run.executed.cells[0].outputs[0].output_type == "error"
    assert run.peak_memory_bytes > 10e6
    assert run.seconds < 30


def test_a_cell_may_be_given_a_limit(tmp_path):
    run = execute_notebook(stored(tmp_path / "01.ipynb", code("import time; time.sleep(60)")), timeout=1)
    assert "more than 1 s" in run.error.traceback
    assert run.seconds < 30


def test_in_place_stores_reference_outputs_and_nothing_of_this_computer(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "hub")
    old = display({"text/plain": "old"})
    path = stored(
        tmp_path / "01.ipynb",
        code("1 + 1", old, tags=["keep"], execution={"iopub.status.busy": "2020"}),
        code("# skipped", old, tags=["skip-execution"]),
        code("import ipywidgets; ipywidgets.IntSlider()"),
        code("1 / 0", tags=["raises-exception"]),
        code("import os; os.environ['LLM_TUTORIAL_SOURCE']"),
        kernelspec={"name": "python3", "display_name": "Python 3"},
        language_info={"name": "python", "version": "3.0.0"},
        widgets={"application/vnd.jupyter.widget-state+json": {}},
    )
    path.chmod(0o644)
    ids = [cell.id for cell in nbformat.read(path, 4).cells]
    assert execute_notebook(path, in_place=True).error is None
    after = nbformat.read(path, 4)
    assert [cell.id for cell in after.cells] == ids
    assert after.cells[0].outputs[0].data["text/plain"] == "2"
    assert after.cells[0].metadata == {"tags": ["keep"]}
    assert after.cells[1].outputs == []
    assert after.cells[4].outputs[0].data["text/plain"] == "'offline'"
    assert [cell.execution_count for cell in after.cells] == [1, None, 2, 3, 4]
    assert after.metadata == {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in tmp_path.iterdir()] == ["01.ipynb"]


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = stored(tmp_path / "01.ipynb", code("1"))
    before = path.read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("llm_tutorial.execution.os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        execute_notebook(path, in_place=True)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["01.ipynb"]


def test_an_interrupt_ends_the_kernel_and_leaves_the_file(tmp_path):
    path = stored(tmp_path / "01.ipynb", code("import os; open('pid', 'w').write(str(os.getpid()))"), code("2"))
    before = path.read_bytes()

    def stop(number, _total, _seconds):
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_notebook(path, on_cell=stop, in_place=True)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["no json", "[]"])
def test_what_is_no_notebook_is_refused(tmp_path, text):
    path = tmp_path / "01.ipynb"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"01\.ipynb is no notebook"):
        execute_notebook(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no notebook"):
        execute_notebook(tmp_path / "01.ipynb")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        execute_notebook(stored(tmp_path / "01.ipynb", code("1")), folder=tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "source"),
    [("name    value\nsource  hub", "hub"), ("source    cache\nreason    x", "cache"), ("the source hub", "")],
)
def test_reported_source(text, source):
    assert reported_source(notebook("source  text", code("x", display({"text/plain": text})))) == source


class Page(HTMLParser):
    """All start tags of a page, and its text."""

    def __init__(self, path):
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags, self.text = [], ""
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture
def page(tmp_path):
    """The page of a notebook that holds all that could reach for the network."""
    folder, output = tmp_path / "notebooks", tmp_path / "build"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "a b.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    links = "[a](02_b.ipynb#Part) [b](./solutions/01_a.ipynb) [c](03_c.ipynb) [d](https://example.org/02_b.ipynb)"
    images = "![local](figures/a%20b.svg) ![badge](https://example.org/badge.svg) H<sub>2</sub>O $p_i$"
    hostile = '<script src="https://example.org/x.js"></script><img src="//example.org/y.png"><iframe src="http://z">'
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/plain": "IntSlider(value=0)"}
    described = {"alt": 'bars: "a" < b', "width": 9}
    source = notebook(
        f"intro\n\n# The *first* `heading`\n\n{links} {images}",
        code(
            "plot()",
            display({"image/png": PIXEL, "text/plain": "<Figure>"}, {"image/png": described}),
            display({"image/png": PIXEL, "text/plain": "<Figure 2>"}),
            display({"image/svg+xml": "<svg/>", "text/plain": "drawing"}),
            display({"text/html": hostile, "text/plain": ""}),
            display(view),
        ),
        widgets={"application/vnd.jupyter.widget-state+json": {"state": {"m": {}}}},
    )
    pages = {folder / "01_a.ipynb": "01_a.html", folder / "02_b.ipynb": "02_b.html"}
    pages[folder / "solutions" / "01_a.ipynb"] = "solutions/01_a.html"
    write_page(notebook("# Solved [back](../01_a.ipynb)"), folder / "solutions" / "01_a.ipynb", output, pages)
    return Page(write_page(source, folder / "01_a.ipynb", output, pages))


def test_a_page_loads_nothing_from_elsewhere(page):
    loaded = [attributes[key] for _, attributes in page.tags for key in ("src", "data", "poster") if key in attributes]
    assert len(loaded) == 4
    assert all(address.startswith("data:") for address in loaded)
    assert not page.all("script")
    assert not page.all("iframe")
    assert not page.all("link")
    styles = re.sub(r"url\(['\"]?data:[^)]*\)", "", page.html)
    assert not re.search(r"@import|url\(", styles)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_every_image_of_a_page_has_its_alt_text(page):
    assert [image["alt"] for image in page.all("img")] == ["local", 'bars: "a" < b', "<Figure 2>", "drawing"]
    assert page.all("img")[1]["width"] == "9"
    assert "badge" in page.text


def test_links_between_notebooks_lead_to_their_pages(page, tmp_path):
    links = [link["href"] for link in page.all("a")]
    assert links[0] == "index.html"
    assert links[-4:] == ["02_b.html#Part", "solutions/01_a.html", "03_c.ipynb", "https://example.org/02_b.ipynb"]
    solution = [link["href"] for link in Page(tmp_path / "build/solutions/01_a.html").all("a")]
    assert solution[:2] == ["../index.html", "../01_a.html"]


def test_a_page_has_language_title_and_readable_text(page):
    assert page.all("html")[0]["lang"] == "en"
    assert "<title>The first heading</title>" in page.html
    assert "H<sub>2</sub>O $p_i$" in page.html
    assert "IntSlider(value=0)" in page.text


@pytest.mark.usefixtures("page")
def test_contents_list_all_pages_and_nothing_else(tmp_path):
    (tmp_path / "build" / "other.html").write_text("<title>Other</title>")
    contents = Page(write_contents(tmp_path / "build"))
    assert [link["href"] for link in contents.all("a")] == ["01_a.html", "solutions/01_a.html"]
    assert "The first heading" in contents.text


def test_title_of_a_notebook_without_heading():
    assert title_of(notebook("text", code("# comment")), "01_a") == "01_a"
