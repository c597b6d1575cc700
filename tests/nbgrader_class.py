"""A class of four from release to grades, as docs/CLASS.md describes it: `make test-class`."""

import csv
import shutil

import nbformat
import pytest
from assignments import NOTEBOOKS, nbgrader
from course import write_course

from llm_tutorial.commands.summary import mistakes_named

LESSON = "07_tokenizers"
# 13 points in all. A table of the visible cases passes a check, but not the hidden test; checks can be replaced.
WRONG = {
    "utf8": "my_utf8 = len",
    "neighbors": 'my_neighbors = {"banana": "ba an na an na".split(), "low": ["lo", "ow"], "a": []}.get',
    "costly": 'my_costly = "short"\nclass Exercises:\n    check = lambda *_: type("", (), {"correct": True})',
}
HANGING = {"fewest": "def my_fewest(word, known):\n    while True:\n        pass"}
POINTS = {"ada": 13, "bob": 0, "cem": 2, "dee": 10}


def submitted(release, answers):
    """A notebook as it is released, with answers by the names of the exercises."""
    notebook = nbformat.from_dict(release)
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("solution") and mark.grade_id in answers:
            cell.source = answers[mark.grade_id]
    return notebook


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course with a released lesson, and four submissions: right, unsolved, wrong, and one whose answer hangs."""
    lessons = tmp_path_factory.mktemp("solutions")
    shutil.copy(NOTEBOOKS / "solutions" / f"{LESSON}.ipynb", lessons)
    folder = tmp_path_factory.mktemp("course") / "class"
    assert write_course(folder, lessons) == [LESSON]
    release = nbformat.read(folder / "release" / LESSON / f"{LESSON}.ipynb", as_version=4)
    right = {cell.metadata.nbgrader.grade_id: cell.source
             for cell in nbformat.read(lessons / f"{LESSON}.ipynb", as_version=4).cells if "nbgrader" in cell.metadata}
    archive = folder / "downloaded" / LESSON / "archive"
    archive.mkdir(parents=True)
    for student, answers in {"ada": right, "bob": {}, "cem": {"pair": right["pair"]} | WRONG,
                             "dee": right | HANGING}.items():
        nbformat.write(submitted(release, answers), archive / f"{student}_{LESSON}.ipynb")
    return folder


def test_the_release_holds_neither_solutions_nor_hidden_tests(course):
    released = nbformat.read(course / "release" / LESSON / f"{LESSON}.ipynb", as_version=4)
    source = "\n".join(cell.source for cell in released.cells)
    assert not any(word in source for word in ("SOLUTION", "HIDDEN", "mississippi", "feedback"))
    assert source.count("more cases when it is graded") == 5
    assert sum(cell.metadata.nbgrader.points for cell in released.cells if "test-" in cell.id) == 13


def test_collect_autograde_feedback_and_export_give_the_expected_points(course):
    for command in ("zip_collect", "autograde", "generate_feedback"):
        print(nbgrader(course, command, LESSON))
    nbgrader(course, "export")
    with (course / "grades.csv").open(encoding="utf-8") as file:
        grades = {row["student_id"]: (float(row["raw_score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert grades == {student: (points, 13) for student, points in POINTS.items()}
    pages = {student: (course / "feedback" / student / LESSON / f"{LESSON}.html").read_text() for student in POINTS}
    assert "mississippi" in pages["cem"]
    assert "does not end: it was stopped" in pages["dee"]
    table = mistakes_named(course / "autograded").set_index(["exercise", "mistake"]).times
    assert table["utf8"].to_dict() == {"none": 2, "no answer yet": 1, "characters are counted, not bytes": 1}
    assert table["neighbors"].to_dict() == {"none": 3, "no answer yet": 1}
    assert table["fewest"].to_dict() == {"no answer yet": 2, "none": 1, "does not end": 1}
