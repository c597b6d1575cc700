"""Small notebooks with a fault each, to see that the tests of the lessons would find it."""

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
"""
MOVED = 'slider.observe(lambda event: setattr(view, "value", picture(20 * event["new"])), "value")'
CLICKED = 'button.on_click(lambda _: setattr(view, "value", picture(200)))'
SHOWN = "VBox([slider, button, view])"


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


def test_a_notebook_without_a_fault(run_cells):
    page = run_cells(CONTROLS, MOVED, CLICKED, SHOWN)
    assert page.faults() == []
    [widget] = page.widgets()
    set_slider(widget)
    press_button(widget, widget.get_by_role("button", name="wider"))


def test_an_error_is_found_and_what_was_not_run_after_it(run_cells):
    assert run_cells("1 + 1", "1 / 0", "2 + 2").faults() == [
        "code cell 2 failed: ZeroDivisionError: division by zero: 1 / 0", "code cell 3 did not run: 2 + 2"]


@pytest.mark.parametrize(("command", "fault"), [
    ("notebook:no-such-command", ["run all cells: Error: Command 'notebook:no-such-command' not registered."]),
    ("notebook:undo-cell-action", []),  # any that runs no cell
])
def test_outputs_that_a_notebook_came_with_are_no_run(run_cells, monkeypatch, command, fault):
    monkeypatch.setattr("notebook_page.RUN_ALL", RUN_ALL.replace("notebook:run-all-cells", command))
    page = run_cells("1 + 1", execution_count=1, outputs=[new_output("stream", text="2")])
    assert page.faults() == [*fault, "code cell 1 did not run: 1 + 1"]
    assert page.cells()[0]["outputs"] == []


@pytest.mark.parametrize(("source", "fault"), [
    ('display({"application/vnd.jupyter.widget-view+json": {"model_id": "none"}}, raw=True)',
     "Error displaying widget: model not found"),
    ('from ipywidgets import HTML\nHTML("", _view_name="NoView")', "NoView"),
], ids=["no model", "no view"])
def test_a_widget_that_cannot_be_shown_is_found(run_cells, source, fault):
    [found] = run_cells(source).faults()
    assert found.startswith("widget:")
    assert fault in found


def test_a_widget_that_keeps_loading_is_found(run_cells, monkeypatch):
    monkeypatch.setattr("notebook_page.WIDGET_SECONDS", 2)
    page = run_cells("from IPython.display import HTML\nHTML('Loading widget...')")  # what such a widget leaves there
    assert page.faults() == ["widget: Loading widget..."]


def test_a_picture_that_does_not_load_and_a_request_to_the_network_are_found(run_cells):
    page = run_cells('from IPython.display import HTML\nHTML(\'<img alt="gone" src="https://example.org/gone.png">\')')
    assert page.faults() == ["picture that does not load: gone", "request to the network: https://example.org/gone.png"]


def test_a_cell_that_does_not_end_is_found(run_cells):
    with pytest.raises(AssertionError, match=r"small\.ipynb is still running after 3 s; .* begins with: import time"):
        run_cells("import time\ntime.sleep(600)", seconds=3)


@pytest.mark.parametrize("dead", ["slider", "button"])
def test_a_control_that_does_nothing_is_found(run_cells, monkeypatch, dead):
    monkeypatch.setattr("notebook_page.WIDGET_SECONDS", 3)
    page = run_cells(CONTROLS, CLICKED if dead == "slider" else MOVED, SHOWN)
    assert page.faults() == []
    [widget] = page.widgets()
    button = widget.get_by_role("button", name="wider")
    if dead == "slider":
        press_button(widget, button)
        with pytest.raises(AssertionError, match="the picture is the same after ArrowRight on the slider"):
            set_slider(widget)
    else:
        set_slider(widget)
        with pytest.raises(AssertionError, match="the picture is the same after a click on 'wider'"):
            press_button(widget, button)
