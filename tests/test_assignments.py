"""The notebooks for learners are what nbgrader makes of the solutions, and nothing of a solution is left in them."""

import nbformat
import pytest
from assignments import NOTEBOOKS, generate_assignments, without_outputs

NAMES = sorted(path.name for path in (NOTEBOOKS / "solutions").glob("*.ipynb"))


@pytest.fixture(scope="module")
def generated():
    return generate_assignments()


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_equals_what_nbgrader_makes_of_the_solutions(generated, name):
    stored = without_outputs(nbformat.read(NOTEBOOKS / name, as_version=4))
    made = without_outputs(generated[name])
    assert [cell.source for cell in stored.cells] == [cell.source for cell in made.cells], "run `make assignments`"
    assert stored.cells == made.cells
    assert (stored.metadata, stored.nbformat_minor) == (made.metadata, made.nbformat_minor)


@pytest.mark.parametrize("name", NAMES)
def test_at_least_four_exercises_and_every_one_is_emptied(generated, name):
    solved = nbformat.read(NOTEBOOKS / "solutions" / name, as_version=4).cells
    solutions = [index for index, cell in enumerate(solved) if "### BEGIN SOLUTION" in cell.source]
    assert len(solutions) >= 4
    for index in solutions:
        stub = generated[name].cells[index].source
        assert "...  # your code here" in stub
        assert "SOLUTION" not in stub
        assert solved[index + 1].source.startswith("exercises.check("), "a check follows each answer"


def texts(cell):
    return [output.get("text") or output.data.get("text/plain") for output in cell.outputs]


@pytest.mark.parametrize("name", NAMES)
def test_cells_that_are_the_same_have_the_same_stored_outputs(name):
    """So that nbval, which runs the notebooks for learners, proves those with solutions too."""
    pairs = zip(*(nbformat.read(folder / name, as_version=4).cells for folder in (NOTEBOOKS / "solutions", NOTEBOOKS)),
                strict=True)
    for solved, stub in pairs:
        differs = "nbval-ignore-output" in solved.metadata.get("tags", []) or solved.source.startswith("exercises.")
        if solved.cell_type == "code" and not differs:
            assert texts(solved) == texts(stub), f"run `make outputs`: {solved.source}"


@pytest.mark.parametrize("name", NAMES)
def test_solutions_pass_and_stubs_fail_in_the_stored_outputs(name):
    for folder, mark in ((NOTEBOOKS / "solutions", "✔"), (NOTEBOOKS, "✘")):
        cells = nbformat.read(folder / name, as_version=4).cells
        checks = [cell for cell in cells if cell.source.startswith("exercises.check(")]
        shown = [cell.outputs[0].data["text/plain"] for cell in checks]
        assert all(text.startswith(mark) for text in shown), shown
