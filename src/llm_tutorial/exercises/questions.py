"""Questions on a lesson: every choice is explained, live below radio buttons or in a static page that unfolds."""

from __future__ import annotations

import os
import re
import tomllib
from html import escape

from ipywidgets import HTML, RadioButtons, VBox

from llm_tutorial.sources.files import data_folder

__all__ = ["Questions", "check_yourself", "parsed"]

# In JupyterLab a choice has the height of one line, however long it is.
STYLE = "<style>.llm-tutorial-choices label {height: auto !important; white-space: normal}</style>"


def check_yourself(name: str) -> Questions:
    """Return the questions of ``data/questions/NAME.toml``, such as "01_masked_lm", to be shown by a notebook."""
    folder = data_folder() / "questions"
    if not (folder / f"{name}.toml").is_file():
        names = ", ".join(sorted(path.stem for path in folder.glob("*.toml"))) or "none"
        raise ValueError(f"There are no questions on {name!r}. There are questions on: {names}.")
    return Questions(parsed((folder / f"{name}.toml").read_text(encoding="utf-8")))


def parsed(toml: str) -> list[dict]:
    """Return the questions of a text in TOML; a ValueError names the question whose form is wrong."""
    questions = tomllib.loads(toml).get("question", [])
    if not questions:
        raise ValueError("There is no [[question]].")
    for number, question in enumerate(questions, start=1):
        fault = _fault(question)
        if fault:
            raise ValueError(f"Question {number}: {fault}.")
    return questions


def _fault(question: dict) -> str | None:
    choices = question.get("choices", [])
    if len(choices) not in (3, 4):
        return f"it has {len(choices)} choices, but 3 or 4 are needed"
    unknown = {key for part in (question, *choices) for key in part} - {"predict", "text", "choices", "right", "why"}
    if unknown:
        return f"{min(unknown)} is unknown"
    if not all(part.get("text") for part in (question, *choices)) or not all(choice.get("why") for choice in choices):
        return "it needs a text, and each choice a text and a why"
    right = [choice.get("right") for choice in choices].count(True)
    return None if right == 1 else f"{right} choices are right, but exactly one has to be"


class Questions:
    """Questions as radio buttons, and for viewers without widgets as a page in which each answer unfolds.

    Where ``LLM_TUTORIAL_DISPLAY=plain`` there is no widget.
    """

    def __init__(self, questions: list[dict]) -> None:
        self._questions = questions
        plain = os.environ.get("LLM_TUTORIAL_DISPLAY") == "plain"
        self.widget = None if plain else VBox([HTML(STYLE), *map(_live, range(1, len(questions) + 1), questions)])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        numbered = list(enumerate(self._questions, start=1))
        # MathJax would take what stands between two dollar signs for a formula.
        page = "".join(_page(number, question) for number, question in numbered)
        data = {"text/html": f'<div class="tex2jax_ignore mathjax_ignore">{page}</div>',
                "text/plain": "\n".join(f"{number}. {question['text']}" for number, question in numbered)}
        if self.widget:
            view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
            data = {"application/vnd.jupyter.widget-view+json": view, **data}
        return data


def _live(number: int, question: dict) -> VBox:
    choices = question["choices"]
    labels = [(choice["text"].replace("`", ""), place) for place, choice in enumerate(choices)]
    buttons = RadioButtons(options=labels, value=None, layout={"width": "auto"})
    buttons.add_class("llm-tutorial-choices")
    why = HTML()
    buttons.observe(lambda _: setattr(why, "value", f'<p role="status">{_why(choices[buttons.value])}</p>'), "value")
    return VBox([HTML(f"<p>{_headline(number, question)}</p>"), buttons, why])


def _page(number: int, question: dict) -> str:
    texts, reasons = (
        "".join(f"<li>{show(choice)}</li>" for choice in question["choices"])
        for show in (lambda choice: _html(choice["text"]), _why))
    return (f"<details><summary>{_headline(number, question)}</summary><ol type='A'>{texts}</ol>"
            f"<details><summary>Answer</summary><ol type='A'>{reasons}</ol></details></details>")


def _headline(number: int, question: dict) -> str:
    predict = "<b>Predict, then run.</b> " if question.get("predict") else ""
    return f"<b>{number}.</b> {predict}{_html(question['text'])}"


def _why(choice: dict) -> str:
    return f"<b>{'✔ Right.' if choice.get('right') else '✘ Not this one.'}</b> {_html(choice['why'])}"


def _html(text: str) -> str:
    return re.sub("`([^`]+)`", r'<code style="white-space: pre-wrap">\1</code>', escape(text.strip()))
