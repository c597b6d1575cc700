"""What readers change in a lesson: another sentence, another number, a cell run twice. No cell may fail then.

Each lesson is executed once per edit of ``edits.toml``, which takes about an hour for all: ``make test-edits``.
"""

import tomllib
from pathlib import Path

import nbformat
import pytest

from llm_tutorial.commands.run import execute_notebook

HERE = Path(__file__).resolve().parent
LESSONS = HERE.parents[1] / "notebooks" / "solutions"
EDITS = tomllib.loads((HERE / "edits.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("lesson", "name"), [(lesson, name) for lesson, edits in EDITS.items() for name in edits])
def test_an_edited_lesson_runs_to_its_end(lesson, name, tmp_path):
    notebook = nbformat.read(LESSONS / f"{lesson}.ipynb", as_version=4)
    cells = {cell.id: cell for cell in notebook.cells}
    for cell, old, new in EDITS[lesson][name]:
        assert old in cells[cell].source, f"{cell} has no {old!r}"
        cells[cell].source = cells[cell].source.replace(old, new)
    nbformat.write(notebook, tmp_path / f"{lesson}.ipynb")
    run = execute_notebook(tmp_path / f"{lesson}.ipynb")
    assert run.error is None, run.error


def each_twice(cells):
    return [cell for cell in cells for _ in range(2)]


def again_from_the_last(cells):
    return [*cells, *reversed(cells)]


@pytest.mark.parametrize("order", [each_twice, again_from_the_last])
@pytest.mark.parametrize("lesson", EDITS)
def test_any_cell_can_be_run_again(lesson, order, tmp_path):
    notebook = nbformat.read(LESSONS / f"{lesson}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells
             if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", [])]
    notebook.cells = [nbformat.v4.new_code_cell(cell.source) for cell in order(cells)]
    nbformat.write(notebook, tmp_path / f"{lesson}.ipynb")
    run = execute_notebook(tmp_path / f"{lesson}.ipynb")
    assert run.error is None, run.error


@pytest.mark.parametrize("lesson", EDITS)
def test_a_kernel_may_be_restarted_in_the_middle_and_at_the_end(lesson, tmp_path):
    notebook = nbformat.read(LESSONS / f"{lesson}.ipynb", as_version=4)
    cells, path = notebook.cells, tmp_path / f"{lesson}.ipynb"
    for count in (len(cells) * 2 // 3, len(cells), len(cells)):  # each time in a new kernel, in the same folder
        notebook.cells = cells[:count]
        nbformat.write(notebook, path)
        run = execute_notebook(path)
        assert run.error is None, run.error
