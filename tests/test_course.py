"""The hidden tests of a class: right answers pass them, and answers that know the visible cases alone do not."""

import inspect

import nbformat
import pytest
from assignments import NOTEBOOKS
from course import hidden_code, with_points
from exercise_answers import RIGHT
from hidden_cases import CASES
from test_exercises import MODULES

from llm_tutorial.exercises import answers

NAMES = sorted(path.name for path in (NOTEBOOKS / "solutions").glob("*.ipynb"))


def hidden_test(name, answer):
    """Run the hidden test of an exercise that needs nothing from its notebook."""
    exec(hidden_code(MODULES[name].__name__.rpartition(".")[2], "", name, "my_answer"), {"my_answer": answer})


def look_up(known):
    """An answer that finds its result in a table of calls, and is wrong for all others."""
    return lambda *given: next(
        (result for case, result in known if answers._equal(case, given)), known[0][1])


def recorded(name):
    """The calls of a right answer by the visible check, with their results."""
    known = []

    def answer(*given):
        result = RIGHT[name][0](*given)
        known.append((tuple(map(answers._copy, given)), list(result) if hasattr(result, "__next__") else result))
        return known[-1][1]

    assert MODULES[name].EXERCISES[name].find_fault(answer) is None
    return known


def test_each_exercise_that_is_checked_by_cases_has_hidden_ones():
    assert set(CASES) == {name for name, module in MODULES.items()
                          if "more" in inspect.signature(module.EXERCISES[name].find_fault).parameters}


@pytest.mark.parametrize("name", CASES)
def test_right_answers_pass_the_hidden_test(name):
    for answer in RIGHT[name]:
        hidden_test(name, answer)


@pytest.mark.parametrize("name", CASES)
def test_a_table_of_the_visible_cases_passes_the_check_but_not_the_hidden_test(name):
    answer = look_up(recorded(name))
    assert MODULES[name].EXERCISES[name].find_fault(answer) is None
    with pytest.raises(AssertionError, match="your function returns"):
        hidden_test(name, answer)


@pytest.mark.parametrize("name", NAMES)
def test_each_check_of_a_lesson_is_followed_by_a_locked_test_with_points(name):
    made = with_points(nbformat.read(NOTEBOOKS / "solutions" / name, as_version=4))
    nbformat.validate(made)
    tests = {}
    for check, test in zip(made.cells, made.cells[1:], strict=False):
        if check.source.startswith("exercises.check("):
            mark = test.metadata.nbgrader
            assert (mark.grade, mark.locked, mark.solution, mark.schema_version) == (True, True, False, 3)
            compile(test.source, name, "exec")
            exercise = mark.grade_id.removeprefix("test-")
            assert f"{exercise!r}" in test.source
            tests[exercise] = mark.points
    [module] = {MODULES[exercise] for exercise in tests}
    assert tests == {exercise: MODULES[exercise].EXERCISES[exercise].difficulty for exercise in module.EXERCISES}
