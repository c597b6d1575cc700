"""How answers are checked: one message for what is wrong, and a hint from the second failure on."""

from __future__ import annotations

import copy
import dis
import inspect
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Exercise", "Exercises", "Fault", "Feedback", "call", "require_function"]


class Fault(Exception):
    """What is wrong with an answer, in one sentence for the learner; a check may raise it instead of returning it."""


class Unsolved(Exception):
    """The answer is the empty one of the notebook."""


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        find_fault: called with the answer and the notebook's ``given`` objects as keywords; returns None for a right
            answer, else one sentence that says what is wrong without saying how it is put right.  It may also raise
            that sentence as a ``Fault``.
        hint: one sentence that leads on; shown from the second failure on.
    """

    find_fault: Callable[..., str | None]
    hint: str


@dataclass(frozen=True)
class Feedback:
    """What a check found; shown as a line of text below the cell.

    Attributes:
        correct: whether the answer is right.
        message: a sentence or two for the learner.
    """

    correct: bool
    message: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        text = f"{'✔' if self.correct else '✘'} {self.message}"
        # In Markdown, names such as __init__ would turn bold and <class 'x'> would vanish.
        markdown = re.sub(r"[*_`$]", r"\\\g<0>", text).replace("<", "&lt;")
        return {"text/plain": text, "text/markdown": markdown}


class Exercises:
    """The exercises of one notebook, which count the failures of each answer.

    Args:
        exercises: by name.
        given: what the checks need from the notebook, such as ``model`` and ``tokenizer``.

    Raises:
        TypeError: something that a check needs is not given.
    """

    def __init__(self, exercises: Mapping[str, Exercise], **given: Any) -> None:
        self._exercises, self._given = dict(exercises), given
        self._failures: Counter[str] = Counter()
        for name, exercise in self._exercises.items():
            try:
                inspect.signature(exercise.find_fault).bind(..., **given)
            except TypeError as error:
                raise TypeError(f"The exercise {name!r} needs more from the notebook: {error}.") from None

    def check(self, name: str, answer: Any) -> Feedback:
        """Return what is wrong with ``answer``, or that it is right.

        An exception that the answer raises becomes a message: an unsolved notebook runs to its end.

        Raises:
            KeyError: there is no exercise of this name.
        """
        if name not in self._exercises:
            raise KeyError(f"There is no exercise {name!r} here, only {', '.join(self._exercises)}.")
        exercise = self._exercises[name]
        try:
            fault = "There is no answer yet." if _is_empty(answer) else exercise.find_fault(answer, **self._given)
        except Unsolved:
            fault = "There is no answer yet."
        except Fault as found:
            fault = str(found)
        except Exception as error:  # whatever a learner's code may raise
            text = str(error).strip().partition("\n")[0].rstrip(".")
            fault = f"Your code raises {type(error).__name__}{text and ': '}{text}."
        if fault is None:
            self._failures.pop(name, None)
            return Feedback(True, "That is right.")
        self._failures[name] += 1
        if self._failures[name] > 1:
            fault = f"{fault} Hint: {exercise.hint}"
        return Feedback(False, fault)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a learner's function makes of copies of ``arguments``, so that it cannot change the originals.

    What is too large for a copy, such as a model, is bound before: ``call(partial(function, model), text)``.

    Raises:
        Unsolved: it returns ``...``, as an empty answer may.
        Fault: it is no function, or returns None.
    """
    require_function(function)
    result = function(*copy.deepcopy(arguments))
    if result is ...:
        raise Unsolved
    if result is None:
        raise Fault("Your function returns None: does it end with a return?")
    return result


def require_function(answer: Any) -> None:
    """Raise a Fault unless ``answer`` can be called."""
    if not callable(answer):
        raise Fault(f"Your answer is of type {type(answer).__name__}, but a function is needed: give its name alone, "
                    "without brackets.")


def _is_empty(answer: Any) -> bool:
    """Whether the answer is that of a new notebook: ``...``, an empty string, or a function of nothing but ``...``."""
    if not hasattr(answer, "__code__"):
        return answer is ... or (isinstance(answer, str) and answer == "")
    returning = {"LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
    steps = [step for step in dis.get_instructions(answer.__code__) if step.opname not in ("RESUME", "NOP")]
    return all(step.opname in returning and step.argval in (None, ...) for step in steps)
