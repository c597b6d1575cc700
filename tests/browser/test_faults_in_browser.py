"""Small notebooks with faults, to see that the tests of the lessons would find them."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebook_page import RUN_ALL, press_button, set_slider

CONTROLS = """
from ipywidgets import HTML, Button, IntSlider, VBox

def picture(width):
    svg = f"<svg xmlns=%22http://www.w3.org/2000/svg%22 width=%22{width}%22 height=%2220%22/>"
    return f'<img alt="a bar" src="data:image/svg+xml,{svg}">'

view, slider, button = HTML(picture(20)), IntSlider(1, 1, 5), Button(description="wider")
slider.observe(lambda event: setattr(view, "value", picture(20 * event["new"])), "value")
VBox([slider, button, view])
"""
GONE = 'from IPython.display import HTML\nHTML(\'<img alt="gone" src="https://example.org/gone.png">\')'
NO_MODEL = 'display({"application/vnd.jupyter.widget-view+json": {"model_id": "none"}}, raw=True)'


@pytest.fixture
def run_cells(lab, open_notebook):
    """A function that runs cells in a page."""
    def run(*sources, seconds=60, **stored):
        notebook = new_notebook(cells=[new_code_cell(source, **stored) for source in sources], metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
        nbformat.write(notebook, lab.folder / "small.ipynb")
        page = open_notebook("small.ipynb")
        page.run(seconds)
        return page

    return run


def test_every_fault_of_a_notebook_is_found(run_cells):
    assert run_cells(GONE, NO_MODEL, "1 / 0", "2 + 2").faults() == [
        "code cell 3 failed: ZeroDivisionError: division by zero: 1 / 0", "code cell 4 did not run: 2 + 2",
        "widget: Error displaying widget: model not found", "picture that does not load: gone",
        "request to the network: https://example.org/gone.png"]


def test_outputs_that_a_notebook_came_with_are_no_run(run_cells, monkeypatch):
    monkeypatch.setattr("notebook_page.RUN_ALL", RUN_ALL.replace("run-all-cells", "undo-cell-action"))  # runs no cell
    page = run_cells("1 + 1", execution_count=1, outputs=[new_output("stream", text="2")])
    assert page.faults() == ["code cell 1 did not run: 1 + 1"]


def test_a_cell_that_does_not_end_is_found(run_cells):
    with pytest.raises(AssertionError, match=r"small\.ipynb is still running after 3 s, .* begins with: import time"):
        run_cells("import time\ntime.sleep(600)", seconds=3)


def test_a_control_that_does_nothing_is_found(run_cells, monkeypatch):
    page = run_cells(CONTROLS)
    assert page.faults() == []
    [widget] = page.widgets()
    set_slider(widget)
    monkeypatch.setattr("notebook_page.WIDGET_SECONDS", 3)
    with pytest.raises(AssertionError, match="the picture is the same after a click on 'wider'"):
        press_button(widget, widget.get_by_role("button", name="wider"))
