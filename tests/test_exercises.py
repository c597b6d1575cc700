"""The checks of the exercises: right answers pass, each typical mistake is named, and nothing else happens."""

# ruff: noqa: ARG005  (an answer takes all arguments, right or wrong)

import contextlib
import copy
import random
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import exercise_answers
import pytest
import torch
from exercise_answers import RIGHT, WRONG

from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.decoding import Prediction
from llm_tutorial.exercises import (
    answers,
    causal,
    checking,
    inside,
    masked,
    pretraining,
    reuse,
    scaling,
    tokenization,
    training_well,
)
from llm_tutorial.exercises.answers import call, compare
from llm_tutorial.exercises.checking import Exercise, Exercises, Fault, Feedback

LESSONS = [masked, causal, pretraining, inside, training_well, reuse, tokenization, scaling]
MODULES = {name: module for module in LESSONS for name in module.EXERCISES}
FUNCTIONS = [name for name in MODULES if name in RIGHT and callable(RIGHT[name][0])]
HINTS = ("Divide by two.", "What is left?", "Nothing is left of an even number.")
PARIS = "Paris is the [MASK] of France."


@pytest.fixture(scope="module")
def gpt2():
    return load_gpt2_tokenizer()


@pytest.fixture
def given(masked_lm, masked_tokenizer, causal_lm, causal_tokenizer, gpt2):
    return {masked: {"model": masked_lm, "tokenizer": masked_tokenizer},
            causal: {"model": causal_lm, "tokenizer": causal_tokenizer},
            pretraining: {}, inside: {}, training_well: {}, reuse: {}, tokenization: {"tokenizer": gpt2},
            scaling: {}}


@pytest.fixture
def check(given):
    """Check an answer to an exercise of any notebook."""
    notebooks = {module: Exercises(module.EXERCISES, **objects) for module, objects in given.items()}
    return lambda name, answer: notebooks[MODULES[name]].check(name, answer)


def is_even(answer, *, truth, **_):
    return None if call(answer, 2, names="number") is truth else "Two is even."


@pytest.fixture
def exercises():
    return Exercises({"even": Exercise(is_even, HINTS, 5, 2)}, truth=True, other=1)


@pytest.fixture
def impatient(monkeypatch):
    """Answers that never end are stopped soon."""
    monkeypatch.setattr(checking, "SECONDS", 0.1)
    monkeypatch.setattr(checking, "TICK", 0.05)


def test_each_lesson_has_two_warm_ups_and_each_exercise_right_and_wrong_answers_and_three_hints():
    assert set(WRONG) == set(MODULES) == {*RIGHT, "surer", "sure_prompt"}  # they depend on the model
    for lesson in LESSONS:
        exercises = list(lesson.EXERCISES.values())
        assert len(exercises) <= 7
        assert [exercise.difficulty for exercise in exercises[:2]] == [1, 1]
        for exercise in exercises:
            assert exercise.difficulty in (1, 2, 3)
            assert 1 <= exercise.minutes <= 30
            assert len(exercise.hints) == 3
            assert all(20 < len(hint) < 230 and "`" not in hint for hint in exercise.hints)


@pytest.mark.parametrize(("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers])
def test_right_answers_are_right(check, name, answer):
    assert check(name, answer).message == "That is right."


@pytest.mark.parametrize(
    ("name", "fragment", "answer"), [(name, *wrong) for name, answers in WRONG.items() for wrong in answers])
def test_typical_mistakes_are_named(check, request, name, fragment, answer):
    if "does not end" in fragment:
        request.getfixturevalue("impatient")
    feedback = check(name, answer)
    assert not feedback.correct
    assert fragment in feedback.message
    assert " raises " not in feedback.message


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "sample"])
def test_each_mistake_that_a_check_knows_is_told_by_its_own_sentence(given, monkeypatch, name):
    told = {}

    def compare_mistakes(_, *arguments, mistakes, **options):
        for sentence, mistake in mistakes.items():
            fault = compare(mistake, *arguments, mistakes=mistakes, **options | {"without": ()})
            told.setdefault(sentence, set()).add(fault and fault.mistake)

    for module in (answers, MODULES[name]):
        monkeypatch.setattr(module, "compare", compare_mistakes, raising=False)
    Exercises(MODULES[name].EXERCISES, **given[MODULES[name]]).check(name, lambda *_: 0)
    assert told
    assert all(found - {None} == {sentence} for sentence, found in told.items()), told


def test_the_second_failure_points_to_the_hints_and_an_empty_answer_is_no_failure(exercises):
    wrong, pointed = "Two is even.", 'Two is even. Type exercises.hint("even") for a hint.'
    for answer, message in ((..., "There is no answer yet."), (False, wrong), (..., "There is no answer yet."),
                            (False, pointed), (True, "That is right."), (False, pointed)):
        given = answer if answer is ... else lambda number, answer=answer: answer
        assert exercises.check("even", given) == Feedback(answer is True, message)


def test_hints_come_one_by_one_and_begin_again(exercises):
    for _ in range(2):
        for number, hint in enumerate(HINTS, start=1):
            assert exercises.hint("even") == Feedback(None, f"Hint {number} of 3: {hint}")
    assert exercises.hint("even")._repr_mimebundle_()[0]["text/plain"] == "→ Hint 1 of 3: Divide by two."


def test_progress_tells_what_was_tried_and_what_is_solved(exercises):
    states = []
    for answer in (..., lambda number: False, lambda number: 0, lambda number: True, lambda number: False):
        exercises.check("even", answer)
        states.append(exercises.progress().state.even)
    assert states == ["not begun", "tried 1 time", "tried 2 times", "solved", "solved"]
    assert exercises.progress().to_dict("list") == {"difficulty": ["●●○"], "minutes": [5], "state": ["solved"]}


def test_an_unknown_name_is_told_with_the_known_ones(exercises):
    for method in (exercises.hint, lambda name: exercises.check(name, 1)):
        with pytest.raises(ValueError, match="no exercise 'evne': choose one of even"):
            method("evne")


def endless(number):
    while True:
        with contextlib.suppress(BaseException):
            number += 1


@pytest.mark.usefixtures("impatient")
def test_an_answer_without_end_is_stopped_once_it_has_computed_or_waited_too_long(exercises, monkeypatch):
    before = signal.getsignal(signal.SIGALRM)
    message = "For number = 2, your function does not end: it was stopped after 0.1 seconds of computing."
    assert exercises.check("even", endless).message == message
    with pytest.raises(Fault, match="does not end"):
        call(lambda number: map(endless, [number]), 2, names="number", read=list)
    monkeypatch.setattr(checking, "WAITED_SECONDS", 0.2)
    assert "after 0.2 seconds of waiting." in exercises.check("even", lambda number: time.sleep(600)).message
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == (before, (0.0, 0.0))


def test_answers_are_checked_in_a_thread_too(exercises):
    with ThreadPoolExecutor() as threads:
        assert threads.submit(exercises.check, "even", lambda number: True).result().correct


def test_exit_in_a_notebook_is_told_and_the_kernel_goes_on(exercises, monkeypatch):
    class Shell:
        def ask_exit(self):
            pytest.fail("the kernel ends")

    shell = Shell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    assert "raises SystemExit (line " in exercises.check("even", lambda number: shell.ask_exit()).message
    assert not vars(shell)


def test_what_an_answer_prints_is_cut(exercises, capsys):
    exercises.check("even", lambda number: print("line\n" * 19 + "line"))
    assert capsys.readouterr().out == "line\n" * 20
    exercises.check("even", lambda number: [print("line") for _ in range(5000)])
    assert capsys.readouterr().out == (
        "line\n" * 20 + "(Your answer prints more than 20 lines; the others are not shown.)\n")


def test_a_function_of_ones_own_may_have_the_name_of_one_of_a_library():
    def softmax(logits):
        return logits.exp()

    assert call(lambda logits: softmax(logits), torch.zeros(1), without=("softmax",)) == 1
    assert sys.getprofile() is None
    with pytest.raises(Fault, match="calls softmax of a library"):
        call(torch.nn.functional.softmax, torch.zeros(1), without=("softmax",))


@torch.no_grad()
def dividing(number):
    half = number / 2

    return half / (number - 2)


@pytest.mark.parametrize(("answer", "message"), [
    (lambda number: [].append(number), "For number = 2, your function returns None: does each of its branches end "),
    (dividing, "For number = 2, your function raises ZeroDivisionError: float division by zero (line "),
    (dividing, ": return half / (number - 2))."),
    (lambda: True, "For number = 2, your function raises TypeError: "),
    (lambda number: exec("assert False"), "For number = 2, your function raises AssertionError (line "),
    (lambda number: sys.exit(3), "For number = 2, your function raises SystemExit: 3 (line "),
    (True, "Your answer is of type bool, but a function is needed: give its name alone, without parentheses."),
])
def test_answers_that_cannot_be_checked_get_a_message_with_input_and_line(exercises, answer, message):
    feedback = exercises.check("even", answer)
    assert not feedback.correct
    assert message in feedback.message


def test_what_an_iterator_raises_later_gets_a_message_too(check):
    def leaving(rows, *_):
        yield from range(rows)
        sys.exit()

    assert re.match(r"For rows = 10, .* your function raises SystemExit \(line ", check("rows", leaving).message)


def test_arguments_are_copies_that_an_answer_must_not_change():
    original = [[1], [2]]
    with pytest.raises(Fault, match=r"For rows = \[\[1\], \[2\]\], your function changes rows itself"):
        call(lambda rows: rows[0].append(3) or rows, original, names="rows")
    assert call(lambda rows: rows[0].append(3) or rows, original, names="rows", in_place=True) == [[1, 3], [2]]
    assert original == [[1], [2]]


def test_the_message_is_shown_as_it_is():
    shown = Feedback(False, "Your function raises NameError: __init__ of <class 'x'> is 2 * 3 * 4 $ or $.")
    bundle, _ = shown._repr_mimebundle_()
    assert bundle["text/plain"].startswith("✘ Your function raises NameError: __init__ of <class 'x'>")
    assert r"\_\_init\_\_ of &lt;class 'x'> is 2 \* 3 \* 4 \$ or \$." in bundle["text/markdown"]


@pytest.mark.parametrize(("name", "answer", "mistake"), [
    ("utf8", lambda character: 1, "characters are counted, not bytes"),
    ("utf8", lambda character: 8, "that is not the number of bytes"),
    ("utf8", lambda character: [][1], "raises IndexError"),
    ("utf8", lambda character: "two", "is or returns something of another kind"),
    ("utf8", ..., "no answer yet"),
    ("utf8", RIGHT["utf8"][0], ""),
    ("parameters", lambda *sizes: 5, "another mistake"),  # which of these messages tells a number
    ("mask_place", 5, "the special token in front of the text has a place too"),
    ("cached_greedy", exercise_answers.WRONG["cached_greedy"][0][1], "the model reads some tokens again"),
])
def test_the_output_holds_the_mistake_without_the_values_of_an_answer(check, name, answer, mistake):
    _, metadata = check(name, answer)._repr_mimebundle_()
    assert metadata == {"text/plain": {"exercise": name, "mistake": mistake}}


def body_of_dots(*_):
    ...  # your code here


def not_yet(*_):
    if len(_) > 9:
        return 1
    return ...


def test_a_function_is_empty_only_if_nothing_is_in_it(exercises):
    for empty in ("", body_of_dots, not_yet, lambda number: ...):
        assert exercises.check("even", empty).message.startswith("There is no answer yet.")
    for wrong in (lambda number: False, lambda number: "", lambda number: 3):
        assert exercises.check("even", wrong).message.startswith("Two is even.")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exceptions_results_of_the_wrong_kind_and_answers_that_are_no_function_are_named(check, name):
    assert re.match(r"For .+ = .+, your function raises ZeroDivisionError: ", check(name, lambda *_: 1 / 0).message)
    assert "but a function is needed" in check(name, 3).message
    for result in ("a string", None, {}, [], object(), torch.zeros(2, 2, 2, 2), [[1], [2, 3]], [[]], float("nan"), True,
                   torch.tensor([]), [None], ["a", "b"], ((1, 2), 3)):
        feedback = check(name, lambda *_: result)  # noqa: B023
        assert not feedback.correct
        assert feedback.message.startswith(("Your function", "For ", "What your function returns"))
        assert " raises " not in feedback.message


@pytest.mark.parametrize("name", MODULES)
def test_checks_leave_everything_as_it_was_and_say_the_same_again(check, given, name):
    model, tokenizer = (given[MODULES[name]].get(key) for key in ("model", "tokenizer"))
    weights = copy.deepcopy(model.state_dict()) if model else {}
    before = torch.get_rng_state(), random.getstate(), tokenizer and tokenizer.backend_tokenizer.to_str()
    answer = (lambda *_: 0) if name in FUNCTIONS else "the [MASK] is a great box"
    first, again = (check(name, answer).message for _ in range(2))
    assert again.removesuffix(f' Type exercises.hint("{name}") for a hint.') == first
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), tokenizer and tokenizer.backend_tokenizer.to_str()) == before[1:]
    if model:
        assert not model.training
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
        assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["pseudo_perplexity", "cached_greedy", "surer"])
def test_a_model_in_training_mode_is_asked_without_dropout_and_left_as_it_was(check, given, sentences, name):
    model = given[MODULES[name]]["model"]
    model.train()
    assert check(name, RIGHT[name][0] if name in RIGHT else sentences[0]).correct
    assert model.training


def choices(model, tokenizer, text):
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[inputs.input_ids == tokenizer.mask_token_id]
    return torch.distributions.Categorical(logits=logits).entropy().exp().item()


@pytest.fixture
def sentences(masked_lm, masked_tokenizer):
    """Some sentences of the tiny vocabulary, those with the fewest choices first."""
    words = [word for word in masked_tokenizer.get_vocab() if word.isalpha()]
    texts = [f"the {one} is a [MASK] of {other}." for one in words[::2] for other in words[::5]]
    return sorted(texts, key=lambda text: choices(masked_lm, masked_tokenizer, text))


def test_a_surer_sentence_is_right_and_another_one_is_told_both_numbers(check, sentences, masked_lm, masked_tokenizer):
    assert check("surer", sentences[0]).correct
    message = check("surer", sentences[-1]).message
    for sentence in (sentences[-1], PARIS):
        assert f"{choices(masked_lm, masked_tokenizer, sentence):.4g} choices" in message


@pytest.mark.parametrize("probability", [0.2, 0.89999, 0.91])
def test_a_prompt_is_sure_only_above_nine_tenths_and_told_its_candidate(check, monkeypatch, probability):
    monkeypatch.setattr(causal, "next_tokens", lambda *_, k: [Prediction(" box", 1, probability)])
    feedback = check("sure_prompt", "the box at")
    assert feedback.correct == (probability > 0.9)
    assert feedback.correct or feedback.message == (
        "After your prompt the first candidate is ' box' with a probability of only "
        f"{int(probability * 1000) / 1000:.3f}.")


def test_an_overflow_hides_no_mistake(check, masked_lm):
    masked_lm.cls.predictions.transform.LayerNorm.weight.data *= 3
    losses = exercise_answers.hidden_losses
    assert "a sum " in check("pseudo_perplexity", lambda *given: losses(*given).sum().exp()).message


def test_a_right_sampler_passes_whatever_its_luck(check, monkeypatch):
    for seed in range(5):
        monkeypatch.setattr(causal, "_SEED", seed)
        assert check("sample", RIGHT["sample"][0]).correct
