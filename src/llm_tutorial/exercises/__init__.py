"""Checks for the exercises in the notebooks: they say what is wrong, never the answer, and never stop a notebook.

One module per notebook holds its exercises: ``masked``, ``causal``, ``pretraining``, ``inside``,
``training_well``, ``reuse``, ``tokenization`` and ``scaling``; ``questions`` shows those at the end of each notebook.
"""

from llm_tutorial.exercises.answers import call, compare
from llm_tutorial.exercises.checking import Exercise, Exercises, Fault, Feedback

__all__ = ["Exercise", "Exercises", "Fault", "Feedback", "call", "compare"]
