"""Every solution passes its check with the models of the lesson, and every stub is told that there is no answer.

A lesson is not executed for this: only its imports and its exercises are, with a few given objects.
"""

import ast

import nbformat
import pytest
from assignments import NOTEBOOKS
from IPython.core.inputtransformer2 import TransformerManager
from test_exercises import LESSONS

from llm_tutorial.checkpoints import load_causal_lm, load_gpt2_tokenizer, load_masked_lm
from llm_tutorial.exercises import Feedback

NAMES = sorted(path.name for path in (NOTEBOOKS / "solutions").glob("*.ipynb"))
MODULES = {lesson.__name__.rpartition(".")[2]: lesson for lesson in LESSONS}


@pytest.fixture(scope="module")
def given():
    """What the lesson has made before its exercises begin, by the name of their module."""
    loaded = {"masked": load_masked_lm(source="offline"), "causal": load_causal_lm(source="offline")}
    models = {name: {"tokenizer": tokenizer, "model": model} for name, (tokenizer, model) in loaded.items()}
    return {name: {} for name in MODULES} | models | {"tokenization": {"gpt2": load_gpt2_tokenizer()}}


def run_exercises(path, given):
    """Run the exercises of a notebook; return the name of their module, and the feedback on each."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    names = {}
    for cell in cells:
        statements = ast.parse(TransformerManager().transform_cell(cell.source)).body  # which knows %pip
        imports = [statement for statement in statements if isinstance(statement, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), path.name, "exec"), names)
    sources = [cell.source for cell in cells if "exercise" in cell.metadata.get("tags", [])]
    setup = next(source for source in sources if source.startswith("exercises = Exercises("))
    module = next(name for name in MODULES if f"{name}.EXERCISES" in setup)
    names |= given[module]
    exec(setup, names)
    feedback = {}
    for source in sources:
        if source.startswith("exercises.check("):
            feedback[ast.parse(source).body[0].value.args[0].value] = eval(source, names)
        elif "### BEGIN SOLUTION" in source or "...  # your code here" in source:
            exec(source, names)
    return module, feedback


@pytest.mark.parametrize("name", NAMES)
def test_solutions_are_right_and_stubs_are_unsolved(given, name):
    for folder, expected in ((NOTEBOOKS / "solutions", Feedback(True, "That is right.")),
                             (NOTEBOOKS, Feedback(False, "There is no answer yet."))):
        module, feedback = run_exercises(folder / name, given)
        assert feedback == dict.fromkeys(MODULES[module].EXERCISES, expected)


def test_every_module_of_exercises_has_its_notebook():
    sources = [(NOTEBOOKS / "solutions" / name).read_text(encoding="utf-8") for name in NAMES]
    assert all(sum(f"{module}.EXERCISES" in source for source in sources) == 1 for module in MODULES)
