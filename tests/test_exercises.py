"""The machinery of the exercise checks, and what all exercises have in common."""

# ruff: noqa: ARG005  (an answer takes all arguments, right or wrong)

import copy
import random
import subprocess
import sys

import pytest
import torch

from llm_tutorial.exercises import (
    Exercise,
    Exercises,
    Fault,
    Feedback,
    call,
    causal,
    masked,
    pretraining,
    scaling,
    tokenization,
)

MODULES = {"masked": masked, "causal": causal, "pretraining": pretraining, "tokenization": tokenization,
           "scaling": scaling}
ALL = [(module, name) for module, content in MODULES.items() for name in content.EXERCISES]
TEXTS = {"surer", "sure_prompt", "costly"}
FUNCTIONS = [(module, name) for module, name in ALL if name not in TEXTS]


@pytest.fixture
def given(masked_lm, masked_tokenizer, causal_lm, causal_tokenizer):
    return {"masked": {"model": masked_lm, "tokenizer": masked_tokenizer},
            "causal": {"model": causal_lm, "tokenizer": causal_tokenizer},
            "pretraining": {},
            "tokenization": {"tokenizer": causal_tokenizer},
            "scaling": {}}  # fmt: skip


@pytest.fixture
def notebooks(given):
    return {module: Exercises(MODULES[module].EXERCISES, **objects) for module, objects in given.items()}


def is_even(answer, *, truth, **_):
    return None if call(answer, 2) is truth else "Two is even."


@pytest.fixture
def exercises():
    return Exercises({"even": Exercise(is_even, "Divide by two.")}, truth=True, other=1)


def test_the_hint_comes_with_the_second_failure_and_again_after_a_success(exercises):
    for _ in range(2):
        assert exercises.check("even", lambda number: False) == Feedback(False, "Two is even.")
        assert exercises.check("even", lambda number: False) == Feedback(False, "Two is even. Hint: Divide by two.")
        assert exercises.check("even", lambda number: True) == Feedback(True, "That is right.")


def test_unknown_names_are_named(exercises):
    with pytest.raises(KeyError, match="There is no exercise 'odd' here, only even"):
        exercises.check("odd", ...)


@pytest.mark.parametrize(("answer", "message"), [
    (lambda number: [].append(number), "Your function returns None: does it end with a return?"),
    (lambda number: number.nothing, "Your code raises AttributeError: 'int' object has no attribute 'nothing'."),
    (lambda: True, "Your code raises TypeError: "),
    (lambda number: exec("assert False"), "Your code raises AssertionError."),
    (True, "Your answer is of type bool, but a function is needed: give its name alone, without brackets."),
    ("even", "Your answer is of type str, but a function is needed"),
    (None, "Your answer is of type NoneType, but a function is needed"),
])
def test_answers_that_cannot_be_checked_get_a_message(exercises, answer, message):
    feedback = exercises.check("even", answer)
    assert not feedback.correct
    assert message in feedback.message


def test_faults_found_on_the_way_become_the_message():
    def find_fault(_):
        raise Fault("That is no number.")

    assert Exercises({"x": Exercise(find_fault, "")}).check("x", 1) == Feedback(False, "That is no number.")


def test_what_a_check_needs_must_be_given(masked_lm):
    with pytest.raises(TypeError, match=r"The exercise 'even' needs more from the notebook: missing .* 'truth'"):
        Exercises({"even": Exercise(is_even, "")}, model=masked_lm)
    with pytest.raises(TypeError, match="'tokenizer'"):
        Exercises(masked.EXERCISES, model=masked_lm)


def test_half_characters_are_named(notebooks):
    for module, name in (("masked", "surer"), ("causal", "sure_prompt"), ("tokenization", "costly")):
        assert "half a character" in notebooks[module].check(name, "\ud83d [MASK] is a great box").message


def test_arguments_are_copies():
    original = [[1], [2]]
    assert call(lambda rows: rows[0].append(3) or rows, original) == [[1, 3], [2]]
    assert original == [[1], [2]]


def test_the_message_is_shown_as_it_is():
    shown = Feedback(False, "Your code raises NameError: __init__ of <class 'x'> is 2 * 3 * 4 $ or $.")
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"].startswith("✘ Your code raises NameError: __init__ of <class 'x'>")
    assert r"\_\_init\_\_ of &lt;class 'x'> is 2 \* 3 \* 4 \$ or \$." in bundle["text/markdown"]


def body_of_dots(*_):
    ...  # your code here


def only_described(*_):
    """What is to be done."""


def not_yet(*_):
    if len(_) > 9:
        return 1
    return ...


def test_a_function_is_empty_only_if_nothing_is_in_it(exercises):
    for empty in (body_of_dots, only_described, not_yet, lambda number: ...):
        assert exercises.check("even", empty).message.startswith("There is no answer yet.")
    for wrong in (lambda number: False, lambda number: "", lambda number: 3):
        assert exercises.check("even", wrong).message.startswith("Two is even.")


@pytest.mark.parametrize(("module", "name"), ALL)
def test_empty_answers_are_unsolved_and_get_the_hint_next(notebooks, module, name):
    empty = ... if name in TEXTS else lambda *_: ...
    new = "" if name in TEXTS else body_of_dots
    hint = MODULES[module].EXERCISES[name].hint
    assert notebooks[module].check(name, empty).message == "There is no answer yet."
    assert notebooks[module].check(name, empty).message == f"There is no answer yet. Hint: {hint}"
    assert notebooks[module].check(name, ...).message.startswith("There is no answer yet.")
    assert notebooks[module].check(name, new).message.startswith("There is no answer yet.")


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_exceptions_become_messages(notebooks, module, name):
    def broken(*_):
        raise ZeroDivisionError("no")

    assert notebooks[module].check(name, broken).message == "Your code raises ZeroDivisionError: no."


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
@pytest.mark.parametrize("result", ["a string", None, {}, [], object(), torch.zeros(2, 2, 2, 2), [[1], [2, 3]], [[]],
                                    float("nan"), True, torch.tensor([]), [None], ["a", "b"], ((1, 2), 3)])  # fmt: skip
def test_results_of_the_wrong_kind_are_named(notebooks, module, name, result):
    feedback = notebooks[module].check(name, lambda *_: result)
    assert not feedback.correct
    assert feedback.message.startswith(("Your function", "For ", "After ", "In "))
    assert "Your code raises" not in feedback.message


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
@pytest.mark.parametrize("answer", ["a string", None, 3, torch.zeros(2)])
def test_answers_that_are_no_function_are_named(notebooks, module, name, answer):
    assert "but a function is needed" in notebooks[module].check(name, answer).message


@pytest.mark.parametrize(("module", "name"), ALL)
def test_checks_leave_everything_as_it_was(notebooks, given, module, name):
    model = given[module].get("model")
    weights = copy.deepcopy(model.state_dict()) if model else {}
    randomness = torch.get_rng_state(), random.getstate()
    settings = given[module].get("tokenizer") and given[module]["tokenizer"].backend_tokenizer.to_str()
    answer = "the [MASK] is a great box" if name in TEXTS else lambda *_: 0
    notebooks[module].check(name, answer)
    assert torch.equal(torch.get_rng_state(), randomness[0])
    assert random.getstate() == randomness[1]
    if model:
        assert not model.training
        assert not model._forward_pre_hooks
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
        assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert (given[module].get("tokenizer") and given[module]["tokenizer"].backend_tokenizer.to_str()) == settings


@pytest.mark.parametrize(("module", "name"), ALL)
def test_hints_are_one_or_two_sentences_and_messages_never_differ_between_runs(notebooks, module, name):
    hint = MODULES[module].EXERCISES[name].hint
    assert 20 < len(hint) < 200
    assert hint[-1] in ".?"
    answer = "the box" if name in TEXTS else lambda *_: 0
    first, again = (notebooks[module].check(name, answer).message for _ in range(2))
    assert again == f"{first} Hint: {hint}"


def test_the_package_stays_cheap_to_import():
    code = ("import sys, llm_tutorial.exercises\n"
            "sys.exit(any(name in sys.modules for name in ['torch', 'transformers', 'numpy']))")
    subprocess.run([sys.executable, "-c", code], check=True)
