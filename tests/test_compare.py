"""Which outputs differ from the stored ones, by how much, and whether settings or versions are the cause."""

import argparse

import nbformat
import pytest

from llm_tutorial.commands import compare
from llm_tutorial.commands.compare import differences
from llm_tutorial.commands.run import RECORD, library_versions

SETTING = "import os\nprint('loss', 2.5 if os.environ['LLM_TUTORIAL_SOURCE'] == 'offline' else 2.0)"


def code(source, text=None, *tags):
    outputs = [] if text is None else [nbformat.v4.new_output("stream", text=text + "\n")]
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata={"tags": list(tags)})


def book(*cells, **metadata):
    return nbformat.v4.new_notebook(cells=list(cells), metadata=metadata)


@pytest.mark.parametrize(("before", "now", "detail"), [
    ("loss 2.50, 1,000 tokens", "loss 2.40, 1,000 tokens", "numbers differ by up to 4.0%: 2.50 stored, 2.40 here"),
    ("0 of -4", "0 of 4", "numbers differ by up to 200.0%: -4 stored, 4 here"),
    ("a\ntown", "a\nvillage", "'town' stored, 'village' here"),
    ("a\nb", "a", "'b' stored, '' here"),
])
def test_a_difference_says_how_much(before, now, detail):
    stored = book(nbformat.v4.new_markdown_cell("# T"), code("1", "x"), code("show()\n2", before))
    executed = book(nbformat.v4.new_markdown_cell("# T"), code("1", "x"), code("show()\n2", now))
    assert differences(stored, executed) == {2: f"show()\n      {detail}"}


def test_ignored_cells_and_pictures_are_not_compared():
    picture = [nbformat.v4.new_output("display_data", {"image/png": data, "text/plain": "Figure"}) for data in "ab"]
    stored, executed = (book(code("1", text, "nbval-ignore-output"), code("2")) for text in "ab")
    stored.cells[1].outputs, executed.cells[1].outputs = picture[:1], picture[1:]
    assert differences(stored, executed) == {}


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """What the command prints on a notebook, with the hub's models and without; and its exit status."""
    def told(notebook, source):
        monkeypatch.setenv("LLM_TUTORIAL_SOURCE", source)
        monkeypatch.setattr(compare, "_settings", lambda: compare.STORED | {"source": source})
        nbformat.write(notebook, tmp_path / "01.ipynb")
        status = compare.main(argparse.Namespace(notebook=str(tmp_path / "01.ipynb")))
        return status, capsys.readouterr().out

    return told


def test_settings_and_versions_are_told_apart_by_a_second_run(told):
    old = {RECORD: library_versions() | {"numpy": "1.0"}}
    status, out = told(book(code(SETTING, "loss 2.5"), code("print('equal')", "equal"), code("print(3)", "4"), **old),
                       "hub")
    assert status == 1
    assert "Because of the settings (source hub here, offline stored): [1]. Both outputs are right." in out
    assert "With equal settings too: [3]. Likely because of other versions: numpy " in out
    assert "1.0 stored" in out


def test_equal_outputs_and_equal_versions_are_said(told):
    assert told(book(code(SETTING, "loss 2.5")), "offline")[0] == 0
    status, out = told(book(code("print(3)", "4"), **{RECORD: library_versions()}), "offline")
    assert status == 1
    assert "another processor or a changed cell" in out
    assert "again" not in out
