"""Make the notebooks for learners from those with solutions, by ``nbgrader generate_assignment``.

    python tests/assignments.py       # writes notebooks/*.ipynb from notebooks/solutions/*.ipynb

Outputs that are already stored for an unchanged cell stay; ``make outputs`` makes them all anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
CONFIG = """
c = get_config()
c.CourseDirectory.course_id = "tutorial"
c.ClearSolutions.code_stub = {"python": "...  # your code here"}
c.IncludeHeaderFooter.header = ""
c.Exchange.root = "exchange"
"""


def nbgrader(course: Path, *words: str) -> str:
    """Run nbgrader in the folder of a course, without what is set for the user, and return what it logged.

    Raises:
        RuntimeError: nbgrader fails, for example as it refuses a notebook; the message holds what it logged.
    """
    with tempfile.TemporaryDirectory() as settings:
        # nbgrader calls programs of its environment by name.
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
                                    "JUPYTER_CONFIG_DIR": settings, "JUPYTER_DATA_DIR": settings}
        done = subprocess.run([sys.executable, "-m", "nbgrader", *words],
                              cwd=course, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nbgrader failed with exit code {done.returncode}:\n{done.stderr}")
    return done.stderr


def generate_assignments(solutions: Path = NOTEBOOKS / "solutions") -> dict[str, nbformat.NotebookNode]:
    """Return what nbgrader makes of the notebooks in ``solutions``, by file name, without outputs."""
    with tempfile.TemporaryDirectory() as folder:
        course = Path(folder)
        (course / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
        shutil.copytree(solutions, course / "source/lessons", ignore=lambda _, names: [
            name for name in names if not name.endswith(".ipynb")])
        nbgrader(course, "generate_assignment", "lessons", "--create", "--force")
        return {path.name: nbformat.read(path, as_version=4) for path in sorted((course / "release/lessons").iterdir())
                if path.suffix == ".ipynb"}


def without_outputs(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a copy with nothing in it that an execution writes."""
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    copy.metadata.pop("language_info", None)
    return copy


def main() -> None:
    for name, notebook in generate_assignments().items():
        path = NOTEBOOKS / name
        if path.exists():
            stored = {(cell.id, cell.source): cell for cell in nbformat.read(path, as_version=4).cells}
            for cell in notebook.cells:
                same = stored.get((cell.id, cell.source))
                if cell.cell_type == "code" and same is not None:
                    cell.outputs, cell.execution_count = same.outputs, same.execution_count
        nbformat.write(notebook, path)
        print(path.relative_to(NOTEBOOKS.parent))


if __name__ == "__main__":
    main()
