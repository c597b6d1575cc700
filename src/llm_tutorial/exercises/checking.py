"""The exercises of a notebook: one message says what is wrong, and a hint follows from the second failure on."""

from __future__ import annotations

import dis
import inspect
import re
import textwrap
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Exercise", "Exercises", "Fault", "Feedback", "Unsolved", "raised", "require_function"]


class Fault(Exception):
    """What is wrong with an answer, in one sentence for the learner."""


class Unsolved(Exception):
    """The answer is the empty one of the notebook."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: a function that finds the fault of an answer, and a hint that leads on.

    ``find_fault`` takes the answer, and what the notebook gives as keywords. It returns None for a right answer, else
    one sentence that says what is wrong and not how to correct it, or raises it as a ``Fault``.
    """

    find_fault: Callable[..., str | None]
    hint: str


@dataclass(frozen=True)
class Feedback:
    """What a check found: whether the answer is right, and a sentence or two for the learner."""

    correct: bool
    message: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        text = f"{'✔' if self.correct else '✘'} {self.message}"
        # In Markdown, names such as __init__ would turn bold and <class 'x'> would vanish.
        markdown = re.sub(r"[*_`$]", r"\\\g<0>", text).replace("<", "&lt;")
        return {"text/plain": text, "text/markdown": markdown}


class Exercises:
    """The exercises of one notebook, by name; ``given`` is what their checks need from it, such as ``model``."""

    def __init__(self, exercises: Mapping[str, Exercise], **given: Any) -> None:
        self._exercises, self._given = exercises, given
        self._failures: Counter[str] = Counter()

    def check(self, name: str, answer: Any) -> Feedback:
        """Return what is wrong with ``answer``, or that it is right; an unsolved notebook runs to its end."""
        exercise = self._exercises[name]
        try:
            fault = "There is no answer yet." if _is_empty(answer) else exercise.find_fault(answer, **self._given)
        except Unsolved:
            fault = "There is no answer yet."
        except Fault as found:
            fault = str(found)
        except (Exception, SystemExit) as error:  # whatever a learner's object may raise
            fault = f"Your answer raises {raised(error, answer)}."
        if fault is None:
            self._failures.pop(name, None)
            return Feedback(True, "That is right.")
        self._failures[name] += 1
        if self._failures[name] > 1:
            fault = f"{fault} Hint: {exercise.hint}"
        return Feedback(False, fault)


def require_function(answer: Any) -> None:
    """Raise a Fault unless ``answer`` can be called."""
    if not callable(answer):
        raise Fault(f"Your answer is of type {type(answer).__name__}, but a function is needed: give its name alone, "
                    "without parentheses.")


def raised(error: BaseException, answer: Any) -> str:
    """Return the type and text of an error, with the line of ``answer`` that it comes from."""
    text = str(error).strip().partition("\n")[0].rstrip(".")
    file = getattr(getattr(inspect.unwrap(answer), "__code__", None), "co_filename", None)
    lines = [f" (line {frame.lineno}: {textwrap.shorten(frame.line, 80)})"
             for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file and frame.line]
    return f"{type(error).__name__}{text and ': '}{text}{lines[-1] if lines else ''}"


def _is_empty(answer: Any) -> bool:
    """Whether the answer is that of a new notebook: ``...``, an empty string, or a function of nothing but ``...``."""
    if not hasattr(answer, "__code__"):
        return answer is ... or (isinstance(answer, str) and answer == "")
    returning = {"LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
    steps = [step for step in dis.get_instructions(answer.__code__) if step.opname not in ("RESUME", "NOP")]
    return all(step.opname in returning and step.argval in (None, ...) for step in steps)
