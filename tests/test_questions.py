"""Questions: the form of the bundled ones, radio buttons that explain each choice, and the same as a static page."""

import re
from html import unescape

import pytest
from ipywidgets import HTML, RadioButtons, Widget

from llm_tutorial.exercises import questions
from llm_tutorial.exercises.questions import check_yourself, parsed
from llm_tutorial.sources.files import data_folder

FILES = sorted((data_folder() / "questions").glob("*.toml"))
EXAMPLE = """
[[question]]
predict = true
text = 'What does `"<b>" * 2` give?'
choices = [
  {text = "`<b>2`", why = "A string times a number is not a sum & costs $2."},
  {text = "`<b><b>`", right = true, why = "`*` repeats a string."},
  {text = "An error", why = "Only a string times a *string* is one."},
]

[[question]]
text = "Which one?"
choices = [{text = "A", right = true, why = "Yes."}, {text = "B", why = "No."}, {text = "C", why = "No."}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of data with the example alone, as in JupyterLab."""
    monkeypatch.delenv("LLM_TUTORIAL_DISPLAY", raising=False)
    monkeypatch.setattr(questions, "data_folder", lambda: tmp_path)
    (tmp_path / "questions").mkdir()
    (tmp_path / "questions" / "00_example.toml").write_text(EXAMPLE, encoding="utf-8")


@pytest.fixture
def quiz(folder):  # noqa: ARG001
    return check_yourself("00_example")


def parts(quiz, number=0):
    """The text of a question, its buttons and the explanation."""
    text, buttons, why = quiz.widget.children[number + 1].children
    assert (type(text), type(buttons), type(why)) == (HTML, RadioButtons, HTML)
    return text, buttons, why


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_questions_of_each_lesson_have_one_form(path):
    asked = parsed(path.read_text(encoding="utf-8"))
    places = [[choice.get("right", False) for choice in question["choices"]].index(True) for question in asked]
    longest = [max(question["choices"], key=lambda choice: len(choice["text"])) for question in asked]
    assert 6 <= len(asked) <= 10
    assert 1 / 3 <= sum(question.get("predict", False) for question in asked) / len(asked) <= 2 / 3
    assert len(set(places)) > 2
    assert all(places.count(place) <= len(asked) * 2 / 3 for place in places), "the right choice is mostly at one place"
    assert sum(choice.get("right", False) for choice in longest) <= len(asked) * 2 / 3, "it is mostly the longest one"
    for question in asked:
        texts = [question["text"], *(choice[key] for choice in question["choices"] for key in ("text", "why"))]
        assert all(text.count("`") % 2 == 0 for text in texts)
        assert len({choice["text"] for choice in question["choices"]}) == len(question["choices"])


def test_nothing_is_chosen_and_each_choice_gets_its_explanation(quiz):
    text, buttons, why = parts(quiz)
    assert (buttons.value, why.value) == (None, "")
    assert [label for label, _ in buttons.options] == ["<b>2", "<b><b>", "An error"]  # a label takes no markup
    assert "<b>1.</b> <b>Predict, then run.</b> What does <code" in text.value
    for value, verdict, reason in ((0, "✘", "not a sum & costs"), (1, "✔", "repeats"), (2, "✘", "string")):
        buttons.value = value
        assert verdict in why.value
        assert reason in unescape(why.value)
    assert parts(quiz, 1)[2].value == "", "the questions do not depend on each other"
    assert "Predict" not in parts(quiz, 1)[0].value


def test_the_static_page_unfolds_and_holds_everything_without_markup_of_the_texts(quiz, monkeypatch):
    live = quiz._repr_mimebundle_()
    assert live.pop("application/vnd.jupyter.widget-view+json")["model_id"] == quiz.widget.model_id
    monkeypatch.setenv("LLM_TUTORIAL_DISPLAY", "plain")
    monkeypatch.setattr(Widget, "open", lambda _: pytest.fail("a widget was made"))
    assert check_yourself("00_example")._repr_mimebundle_() == live
    page = live["text/html"]
    assert set(re.findall(r"<(\w+)", page)) == {"div", "details", "summary", "b", "code", "ol", "li"}
    assert page.count("<details>") == 2 * page.count("<summary>Answer</summary>") == 4
    assert "color" not in page, "it is readable on any background"
    assert re.findall("[✔✘]", page) == [*"✘✔✘✔✘✘"]
    assert "mathjax_ignore" in page
    assert "&lt;b&gt;&lt;b&gt;</code>" in page
    assert live["text/plain"].splitlines() == ['1. What does `"<b>" * 2` give?', "2. Which one?"]


@pytest.mark.parametrize(("old", "new", "message"), [
    ("right = true, why = \"Yes.\"", "why = \"Yes.\"", "Question 2: 0 choices are right"),
    (", {text = \"C\", why = \"No.\"}", "", "Question 2: it has 2 choices"),
    ("{text = \"B\", why = \"No.\"}", "{text = \"B\"}", "Question 2: .* each choice a text and a why"),
    ("text = \"Which one?\"", "", "Question 2: it needs a text"),
    ("predict = true", "predicts = true", "Question 1: predicts is unknown"),
    ("[[question]]", "[[questions]]", "no .*question"),
])
def test_a_wrong_form_is_told(old, new, message):
    with pytest.raises(ValueError, match=message):
        parsed(EXAMPLE.replace(old, new))


@pytest.mark.usefixtures("folder")
def test_an_unknown_lesson_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no questions on '01'\. There are questions on: 00_example"):
        check_yourself("01")
