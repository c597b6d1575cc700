"""Checks for the exercises in the notebooks: they say what is wrong, never the answer, and never stop a notebook."""

from llm_tutorial.exercises.checking import Exercise, Exercises, Feedback, call

__all__ = ["Exercise", "Exercises", "Feedback", "call"]
