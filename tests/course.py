"""Write an nbgrader course with points and hidden tests: ``build/class``, described in ``docs/CLASS.md``.

    python tests/course.py
"""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import hidden_cases
import nbformat
from assignments import CONFIG, NOTEBOOKS, nbgrader, without_outputs

FOLDER = NOTEBOOKS.parent / "build" / "class"
# A cell of a lesson may take minutes on a busy machine; nbgrader's limit is 30 seconds.
CLASS_CONFIG = CONFIG + """
import os

c.Execute.timeout = 900
c.OverwriteCells.add_missing_cells = True  # test cells that a student deleted
c.FileNameCollectorPlugin.named_regexp = r"(?:.*/)?(?P<student_id>[^/_]+)_(?P<file_id>[^/]+)"  # ada_07_tokenizers.ipynb
os.environ |= {"LLM_TUTORIAL_SOURCE": "offline", "OMP_WAIT_POLICY": "PASSIVE"}  # the kernels inherit them
"""
TEST = """# {points} point{s} for a right answer. It is tested{with_more} when it is graded.
### BEGIN HIDDEN TESTS
{code}
### END HIDDEN TESTS
"""


def hidden_sources() -> dict[str, str]:
    """Return the hidden cases of each exercise as the source of a list."""
    [table] = (node.value for node in ast.parse(Path(hidden_cases.__file__).read_text(encoding="utf-8")).body
               if isinstance(node, ast.Assign) and node.targets[0].id == "CASES")
    return {key.value: ast.unparse(value) for key, value in zip(table.keys, table.values, strict=True)}


def hidden_code(module: str, given: str, name: str, answer: str) -> str:
    """Return code that makes the checks anew, whatever stands for them in the notebook, and asserts that one passes.

    ``given`` is what the notebook passes to its checks, such as "model=model, tokenizer=tokenizer".
    """
    cases = hidden_sources().get(name)
    keywords = "".join(f", {word}" for word in (given, cases and f"more={cases}") if word)
    return "\n".join((["import torch", ""] if "torch." in keywords else []) + [
        f"from llm_tutorial.exercises import Exercises, {module}", "",
        f"feedback = Exercises({module}.EXERCISES{keywords}).check({name!r}, {answer})",
        "assert feedback.correct, feedback.message"])


def with_points(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a copy of a notebook with solutions, with a locked and graded cell of hidden tests after each check."""
    copy = without_outputs(notebook)
    [setup] = (cell.source for cell in copy.cells if cell.source.startswith("exercises = Exercises("))
    module, given = re.fullmatch(r"exercises = Exercises\(\s*(\w+)\.EXERCISES(?:, (.*?))?\s*\)", setup, re.S).groups()
    exercises = import_module(f"llm_tutorial.exercises.{module}").EXERCISES
    cells = []
    for cell in copy.cells:
        cells.append(cell)
        if check := re.fullmatch(r'exercises\.check\("(\w+)", (\w+)\)', cell.source):
            name, points = check[1], exercises[check[1]].difficulty
            source = TEST.format(
                points=points, s="s" * (points > 1), with_more=" with more cases" * (name in hidden_cases.CASES),
                code=hidden_code(module, given or "", *check.groups()))
            marks = {"grade": True, "grade_id": f"test-{name}", "locked": True, "points": points, "schema_version": 3,
                     "solution": False, "task": False}
            cells.append(nbformat.v4.new_code_cell(source.rstrip(), id=f"test-{name}".replace("_", "-"),
                                                   metadata={"nbgrader": marks, "tags": ["exercise"]}))
    copy.cells = cells
    return copy


def write_course(folder: Path, solutions: Path = NOTEBOOKS / "solutions") -> list[str]:
    """Write ``source`` and ``release`` of every lesson in ``solutions`` to a new ``folder``; return the lessons."""
    lessons = sorted(path.stem for path in solutions.glob("*.ipynb"))
    folder.mkdir(parents=True)
    (folder / "nbgrader_config.py").write_text(CLASS_CONFIG, encoding="utf-8")
    for lesson in lessons:
        (folder / "source" / lesson).mkdir(parents=True)
        notebook = nbformat.read(solutions / f"{lesson}.ipynb", as_version=4)
        nbformat.write(with_points(notebook), folder / "source" / lesson / f"{lesson}.ipynb")
        nbgrader(folder, "generate_assignment", lesson, "--create")
    return lessons


if __name__ == "__main__":
    if FOLDER.exists():
        raise SystemExit(f"{FOLDER} exists, and may hold what students have submitted. Move it away first.")
    print(*write_course(FOLDER), f"The course is in {FOLDER}", sep="\n")
