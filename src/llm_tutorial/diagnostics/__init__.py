"""``llm-tutorial doctor``: what is installed, what the notebooks will use, and what to do about what is missing.

Importing the package imports no large library, so that the doctor starts where one of them is broken.
"""

from llm_tutorial.diagnostics.finding import Finding
from llm_tutorial.diagnostics.report import doctor

__all__ = ["Finding", "doctor"]
