"""The exercises of a notebook: one message says what is wrong, and three hints lead on."""

from __future__ import annotations

import dis
import inspect
import io
import re
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

__all__ = ["Exercise", "Exercises", "Fault", "Feedback", "TimeUp", "Unsolved", "limited", "raised", "require_function"]

SECONDS, WAITED_SECONDS = 10, 120  # for one call of an answer: that it computes, and that pass meanwhile
TICK = 0.5  # seconds between two looks at the clock
PRINTED_LINES = 20  # of all that an answer prints during one check


class Fault(Exception):
    """What is wrong with an answer, in one sentence; ``mistake`` says it without the values of one answer."""

    def __init__(self, sentence: str, mistake: str = "") -> None:
        super().__init__(sentence)
        self.mistake = mistake


class Unsolved(Exception):
    """The answer is the empty one of the notebook."""


class TimeUp(BaseException):
    """A call of an answer takes too long; no ``except Exception`` of the answer stops it."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: a function that finds the fault of an answer, three hints, and what it asks of a learner.

    ``find_fault`` takes the answer, and what the notebook gives as keywords. It returns None for a right answer, else
    one sentence that says what is wrong and not how to correct it, or returns or raises it as a ``Fault``.  The third
    hint leads nearly to the answer, but is not its code.  ``difficulty`` is 1, 2 or 3.
    """

    find_fault: Callable[..., Fault | str | None]
    hints: tuple[str, str, str]
    minutes: int
    difficulty: int


@dataclass(frozen=True)
class Feedback:
    """What a check found: whether the answer is right (None for a hint), and a sentence or two for the learner.

    The name of the exercise and the mistake, without the answer's values, are stored in the metadata of the output.
    """

    correct: bool | None
    message: str
    exercise: str = field(default="", compare=False)
    mistake: str = field(default="", compare=False)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        text = f"{({True: '✔', False: '✘'}).get(self.correct, '→')} {self.message}"
        # In Markdown, names such as __init__ would turn bold and <class 'x'> would vanish.
        markdown = re.sub(r"[*_`$]", r"\\\g<0>", text).replace("<", "&lt;")
        found = {} if self.correct is None else {"text/plain": {"exercise": self.exercise, "mistake": self.mistake}}
        return {"text/plain": text, "text/markdown": markdown}, found


class Exercises:
    """The exercises of one notebook, by name; ``given`` is what their checks need from it, such as ``model``."""

    def __init__(self, exercises: Mapping[str, Exercise], **given: Any) -> None:
        self._exercises, self._given = exercises, given
        self._failures: Counter[str] = Counter()
        self._hints: Counter[str] = Counter()
        self._solved: set[str] = set()

    def check(self, name: str, answer: Any) -> Feedback:
        """Return what is wrong with ``answer``, or that it is right; an unsolved notebook runs to its end."""
        exercise = self._named(name)
        try:
            if _is_empty(answer):
                raise Unsolved
            with redirect_stdout(_FirstLines(sys.stdout)), _exit_raises():
                fault = exercise.find_fault(answer, **self._given)
        except Unsolved:
            return Feedback(False, "There is no answer yet.", name, "no answer yet")
        except Fault as found:
            fault = found
        except (Exception, SystemExit) as error:  # whatever a learner's object may raise
            fault = Fault(f"Your answer raises {raised(error, answer)}.", f"raises {type(error).__name__}")
        if fault is None:
            self._solved.add(name)
            return Feedback(True, "That is right.", name)
        self._failures[name] += 1
        pointer = f' Type exercises.hint("{name}") for a hint.' if self._failures[name] > 1 else ""
        return Feedback(False, f"{fault}{pointer}", name, getattr(fault, "mistake", "") or "another mistake")

    def hint(self, name: str) -> Feedback:
        """Return the next of three hints; after the third one they begin again."""
        hints = self._named(name).hints
        step = self._hints[name] % len(hints)
        self._hints[name] += 1
        return Feedback(None, f"Hint {step + 1} of {len(hints)}: {hints[step]}")

    def progress(self) -> pd.DataFrame:
        """Return a table with the difficulty, the minutes and the state of each exercise."""
        rows = {name: ("●" * exercise.difficulty + "○" * (3 - exercise.difficulty), exercise.minutes, self._state(name))
                for name, exercise in self._exercises.items()}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["difficulty", "minutes", "state"])
        return table.rename_axis("exercise")

    def _state(self, name: str) -> str:
        tries = self._failures[name]
        return "solved" if name in self._solved else f"tried {tries} time{'s' * (tries > 1)}" if tries else "not begun"

    def _named(self, name: str) -> Exercise:
        if name not in self._exercises:
            raise ValueError(f"There is no exercise {name!r}: choose one of {', '.join(self._exercises)}.")
        return self._exercises[name]


def require_function(answer: Any) -> None:
    """Raise a Fault unless ``answer`` can be called."""
    if not callable(answer):
        raise Fault(f"Your answer is of type {type(answer).__name__}, but a function is needed: give its name alone, "
                    "without parentheses.", "is no function")


@contextmanager
def limited() -> Iterator[None]:
    """Raise TimeUp if the block takes too long, where the system and the thread have a timer.

    It counts what this thread computes, since a busy machine may need ten times as long for a right answer.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    computed, began = time.thread_time(), time.monotonic()

    def look(*_) -> None:
        if time.thread_time() - computed > SECONDS:
            raise TimeUp(f"{SECONDS} seconds of computing")
        if time.monotonic() - began > WAITED_SECONDS:
            raise TimeUp(f"{WAITED_SECONDS} seconds of waiting")

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)  # again and again, for a loop that catches everything
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def raised(error: BaseException, answer: Any) -> str:
    """Return the type and text of an error, with the line of ``answer`` that it comes from."""
    text = str(error).strip().partition("\n")[0].rstrip(".")
    file = getattr(getattr(inspect.unwrap(answer), "__code__", None), "co_filename", None)
    lines = [f" (line {frame.lineno}: {textwrap.shorten(frame.line, 80)})"
             for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file and frame.line]
    return f"{type(error).__name__}{text and ': '}{text}{lines[-1] if lines else ''}"


@contextmanager
def _exit_raises() -> Iterator[None]:
    """Let ``exit()`` raise SystemExit in a notebook too, where it would end the kernel."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        yield
        return
    shell.ask_exit = sys.exit  # beside the method of this name, which is there again in the end
    try:
        yield
    finally:
        del shell.ask_exit


class _FirstLines(io.TextIOBase):
    """Standard output that passes on the first lines only."""

    def __init__(self, out: Any) -> None:
        self._out, self._left, self._told = out, PRINTED_LINES, False

    def write(self, text: str) -> int:
        lines = text.splitlines(keepends=True)
        self._out.write("".join(lines[:self._left]))
        if len(lines) > self._left and not self._told:
            self._told = True
            self._out.write(f"(Your answer prints more than {PRINTED_LINES} lines; the others are not shown.)\n")
        self._left = max(0, self._left - text.count("\n"))
        return len(text)


def _is_empty(answer: Any) -> bool:
    """Whether the answer is that of a new notebook: ``...``, an empty string, or a function of nothing but ``...``."""
    if not hasattr(answer, "__code__"):
        return answer is ... or (isinstance(answer, str) and answer == "")
    returning = {"LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
    steps = [step for step in dis.get_instructions(answer.__code__) if step.opname not in ("RESUME", "NOP")]
    return all(step.opname in returning and step.argval in (None, ...) for step in steps)
