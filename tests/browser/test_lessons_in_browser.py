"""The lessons in JupyterLab: nothing a reader would call broken, and the playgrounds answer.

Lessons with a playground or a live curve are executed. The others show here what they show on any page, and ``make
test`` executes them; they are opened with their stored outputs. What was seen is kept in ``build/browser``.
"""

import re
from pathlib import Path

import pytest
from notebook_page import press_button, set_slider, type_text
from playwright.sync_api import expect

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "build" / "browser"
SECONDS = 1800  # for all cells of a lesson, on a busy machine; on two quiet cores each takes about a minute


def use_mask_playground(widget):
    """Tokens by the slider; a sentence with two masks; the second of them by its button."""
    set_slider(widget)
    type_text(widget, "Sentence:", "The [MASK] rises in the [MASK].")
    press_button(widget, widget.get_by_role("button", name="mask 2"))


def use_token_playground(widget):
    """Temperature by the slider; one of the candidates by its button; back again."""
    story, picture = widget.get_by_text("Text so far:"), widget.locator("img")
    set_slider(widget)
    begun, before = story.inner_text(), picture.get_attribute("src")
    candidate = widget.locator("button[title='append this token']").nth(1)
    press_button(widget, candidate)
    appended = story.inner_text()
    assert appended.startswith(begun)
    assert len(appended) > len(begun)
    press_button(widget, widget.get_by_role("button", name="Back one token"))
    expect(story).to_have_text(begun)
    assert picture.get_attribute("src") == before
    press_button(widget, candidate)  # for the picture that is kept


def use_questions(widget):
    """An answer by the keyboard alone, and its explanation."""
    first = widget.get_by_role("radio").first
    first.focus()
    first.press("Space")
    expect(widget.get_by_role("status").first).to_contain_text(re.compile(r"Right\.|Not this one\."))


# Every lesson with its playgrounds, so that one that is lost, or new and never used here, is noticed.
LESSONS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
PLAYGROUNDS = {"01_masked_lm": [use_mask_playground, use_mask_playground], "02_causal_lm": [use_token_playground]}
LIVE = [name for name, source in LESSONS.items() if "widgets." in source or "TrainingProgress(" in source]


def test_playgrounds_and_live_curves_are_those_of_lessons():
    assert set(PLAYGROUNDS) < set(LIVE) < set(LESSONS)


@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_in_jupyterlab(open_notebook, lesson):
    page = open_notebook(f"{lesson}.ipynb")
    uses = [*PLAYGROUNDS.get(lesson, []), use_questions] if lesson in LIVE else []
    try:
        if lesson in LIVE:
            page.run(SECONDS)
        else:
            page.open()
        assert page.faults() == []
        widgets = page.widgets()
        assert len(widgets) == len(uses), "these are not the playgrounds and questions that the lesson should have"
        for widget, use in zip(widgets, uses, strict=True):
            use(widget)
        assert page.faults() == []
    finally:
        page.screenshot(PICTURES / f"{lesson}.png", at=page.widgets()[0] if page.widgets() else None)
