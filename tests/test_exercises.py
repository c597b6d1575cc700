"""The checks of the exercises: right answers pass, each typical mistake is named, and nothing else happens."""

# ruff: noqa: ARG005  (an answer takes all arguments, right or wrong)

import copy
import math
import random
import re
import sys
from collections import Counter

import exercise_answers
import pytest
import torch
from exercise_answers import RIGHT, WRONG
from transformers import GPT2Config, GPT2LMHeadModel

from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.decoding import Prediction
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

MODULES = {name: module for module in (masked, causal, pretraining, tokenization, scaling) for name in module.EXERCISES}
TEXTS = {"surer", "sure_prompt", "costly"}
FUNCTIONS = [name for name in MODULES if name not in TEXTS]
PARIS = "Paris is the [MASK] of France."


@pytest.fixture(scope="module")
def gpt2():
    return load_gpt2_tokenizer()


@pytest.fixture
def given(masked_lm, masked_tokenizer, causal_lm, causal_tokenizer, gpt2):
    return {masked: {"model": masked_lm, "tokenizer": masked_tokenizer},
            causal: {"model": causal_lm, "tokenizer": causal_tokenizer},
            pretraining: {}, tokenization: {"tokenizer": gpt2}, scaling: {}}  # fmt: skip


@pytest.fixture
def check(given):
    """Check an answer to an exercise of any notebook."""
    notebooks = {module: Exercises(module.EXERCISES, **objects) for module, objects in given.items()}
    return lambda name, answer: notebooks[MODULES[name]].check(name, answer)


def is_even(answer, *, truth, **_):
    return None if call(answer, 2, names="number") is truth else "Two is even."


@pytest.fixture
def exercises():
    return Exercises({"even": Exercise(is_even, "Divide by two.")}, truth=True, other=1)


def test_there_are_right_and_wrong_answers_for_each_exercise():
    assert len(MODULES) == 25
    assert set(RIGHT) == set(WRONG) == set(FUNCTIONS)


@pytest.mark.parametrize(("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers])
def test_right_answers_are_right(check, name, answer):
    assert check(name, answer).message == "That is right."


@pytest.mark.parametrize(
    ("name", "fragment", "answer"), [(name, *wrong) for name, answers in WRONG.items() for wrong in answers])
def test_typical_mistakes_are_named(check, name, fragment, answer):
    feedback = check(name, answer)
    assert not feedback.correct
    assert fragment in feedback.message
    assert " raises " not in feedback.message


def test_the_hint_comes_with_the_second_failure_and_again_after_a_success(exercises):
    for _ in range(2):
        assert exercises.check("even", lambda number: False) == Feedback(False, "Two is even.")
        assert exercises.check("even", lambda number: False) == Feedback(False, "Two is even. Hint: Divide by two.")
        assert exercises.check("even", lambda number: True) == Feedback(True, "That is right.")


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

    assert check("rows", leaving).message.startswith("Your answer raises SystemExit (line ")


def test_arguments_are_copies_that_an_answer_must_not_change():
    original = [[1], [2]]
    with pytest.raises(Fault, match=r"For rows = \[\[1\], \[2\]\], your function changes rows itself"):
        call(lambda rows: rows[0].append(3) or rows, original, names="rows")
    assert call(lambda rows: rows[0].append(3) or rows, original, names="rows", in_place=True) == [[1, 3], [2]]
    assert original == [[1], [2]]


def test_the_message_is_shown_as_it_is():
    shown = Feedback(False, "Your function raises NameError: __init__ of <class 'x'> is 2 * 3 * 4 $ or $.")
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"].startswith("✘ Your function raises NameError: __init__ of <class 'x'>")
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


@pytest.mark.parametrize("name", MODULES)
def test_empty_answers_are_unsolved_and_get_the_hint_next(check, name):
    hint = MODULES[name].EXERCISES[name].hint
    assert 20 < len(hint) < 230
    assert check(name, "" if name in TEXTS else body_of_dots).message == "There is no answer yet."
    assert check(name, ... if name in TEXTS else not_yet).message == f"There is no answer yet. Hint: {hint}"
    assert check(name, ...).message.startswith("There is no answer yet.")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exceptions_are_told_with_what_was_given(check, name):
    def broken(*_):
        raise ZeroDivisionError("no")

    assert re.fullmatch(
        r'For .+ = .+, your function raises ZeroDivisionError: no \(line \d+: raise ZeroDivisionError\("no"\)\)\.',
        check(name, broken).message)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_of_the_wrong_kind_are_named(check, name):
    for result in ("a string", None, {}, [], object(), torch.zeros(2, 2, 2, 2), [[1], [2, 3]], [[]], float("nan"), True,
                   torch.tensor([]), [None], ["a", "b"], ((1, 2), 3)):
        feedback = check(name, lambda *_: result)  # noqa: B023
        assert not feedback.correct
        assert feedback.message.startswith(("Your function", "For ", "What your function returns"))
        assert " raises " not in feedback.message


@pytest.mark.parametrize("name", FUNCTIONS)
def test_answers_that_are_no_function_are_named(check, name):
    for answer in ("a string", None, 3, torch.zeros(2)):
        assert "but a function is needed" in check(name, answer).message


@pytest.mark.parametrize("name", MODULES)
def test_checks_leave_everything_as_it_was_and_say_the_same_again(check, given, name):
    model, tokenizer = (given[MODULES[name]].get(key) for key in ("model", "tokenizer"))
    weights = copy.deepcopy(model.state_dict()) if model else {}
    before = torch.get_rng_state(), random.getstate(), tokenizer and tokenizer.backend_tokenizer.to_str()
    answer = "the [MASK] is a great box" if name in TEXTS else lambda *_: 0
    first, again = (check(name, answer).message for _ in range(2))
    assert again == f"{first} Hint: {MODULES[name].EXERCISES[name].hint}" or first == "That is right."
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


@pytest.mark.parametrize(("name", "text", "fragment"), [
    ("surer", "Paris is the mask of France.", "0 [MASK] tokens"),
    ("surer", "Paris is the [mask] of France.", "in capital letters"),
    ("surer", "The [MASK] is a [MASK].", "2 [MASK] tokens"),
    ("surer", "  paris is the  [MASK] of FRANCE!", "the Paris sentence itself"),
    ("surer", "Great [MASK].", "only 1 word "),
    ("surer", ["The [MASK] is here."], "of type list, but a string"),
    ("sure_prompt", " \n", "is empty"),
    ("sure_prompt", "box " * 61, "tokens, but at most 60"),
    ("costly", "ᚠᛇᚻ", "a length of 3, but at least 10"),
    ("costly", "the box at the beach is like a pool", "35 characters and only 9 tokens"),
])
def test_texts_that_do_not_count_are_named(check, name, text, fragment):
    feedback = check(name, text)
    assert not feedback.correct
    assert fragment in feedback.message


def test_a_text_of_rare_letters_is_costly(check):
    assert check("costly", "ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ").correct


def test_an_overflow_and_an_error_in_a_later_case_hide_no_mistake(check, masked_lm):
    masked_lm.cls.predictions.transform.LayerNorm.weight.data *= 3
    losses = exercise_answers.hidden_losses
    assert "a sum " in check("pseudo_perplexity", lambda *given: losses(*given).sum().exp()).message

    def one_token_too_few(model, tokenizer, text):
        found = losses(model, tokenizer, text)[:-1].tolist()
        return math.exp(sum(found) / len(found))  # the last text has one token

    assert "Life is like" in check("pseudo_perplexity", one_token_too_few).message


def test_a_right_sampler_passes_whatever_its_luck(check, monkeypatch):
    for seed in range(5):
        monkeypatch.setattr(causal, "_SEED", seed)
        assert check("sample", RIGHT["sample"][0]).correct


def test_the_number_of_parameters_is_that_of_the_library():
    for vocabulary, positions, width, layers in ((11, 7, 6, 2), (5, 4, 8, 3)):
        model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=positions, n_embd=width, n_layer=layers,
                                           n_head=2, bos_token_id=None, eos_token_id=None))  # fmt: skip
        count = sum(parameter.numel() for parameter in model.parameters())
        assert count == pretraining._parameters(vocabulary, positions, width, layers)


def test_the_gradient_of_the_whole_batch_is_the_weighted_mean():
    weight, inputs = torch.ones(3, requires_grad=True), torch.arange(12.0).reshape(4, 3).sin()
    gradients = [torch.autograd.grad((part @ weight).square().mean(), weight)[0] for part in (inputs[:3], inputs[3:])]
    whole = torch.autograd.grad((inputs @ weight).square().mean(), weight)[0]
    assert torch.allclose(scaling._weighted_sum(gradients, [3, 1]) / 4, whole)


@pytest.mark.parametrize("options", [{}, {"weigh": False}, {"once": True}])
def test_the_most_frequent_pairs_and_the_mistaken_ones_have_no_ties(options):
    for words in tokenization._WORDS:
        first, second = Counter(tokenization._pair_counts(words, **options)).most_common(2)
        assert first[1] > second[1] or options, words


def test_the_fewest_pieces_are_those_of_an_exhaustive_search_and_all_kinds_of_words_occur():
    kinds = Counter()
    for word, known in tokenization._FEWEST_CASES[:-1]:
        right, taken = list(tokenization._shortest(word, known)), exercise_answers.greedy(word, known)
        cuts = list(exercise_answers.all_cuts(word, known)) or [["[UNK]"]]
        assert right in cuts
        assert len(right) == len(cuts[0])
        kinds["unknown" if right == ["[UNK]"] else "stuck" if taken == ["[UNK]"] else
              "longer" if len(taken) > len(right) else "greedy"] += 1
        kinds["several"] += [len(cut) for cut in cuts].count(len(right)) > 1
    assert set(kinds) == {"unknown", "stuck", "longer", "greedy", "several"}


def test_all_bytes_occur_in_the_texts_to_give_back_and_some_characters_are_split(gpt2):
    assert {byte for text in tokenization._TEXTS for byte in text.encode()} >= {*range(0xC0), 0xC3, 0xE4, 0xF0}
    pieces = [gpt2.convert_ids_to_tokens(gpt2(text).input_ids) for text in tokenization._TEXTS]
    alone = [exercise_answers.decoded_alone(cut) for cut in pieces]
    assert sum(one != text for one, text in zip(alone, tokenization._TEXTS, strict=True)) >= 3
    assert {character for character in gpt2.get_vocab() if len(character) == 1} == set(exercise_answers.byte_table())


def test_no_tokenizer_may_give_the_text_back_but_one_may_be_named(check, gpt2):
    box = {"tokenizer": gpt2}

    def by_name(pieces, tokenizer=gpt2):
        return tokenizer.convert_tokens_to_string(pieces)

    for answer in (by_name, gpt2.convert_tokens_to_string, lambda pieces: by_name(pieces, box["tokenizer"]),
                   lambda pieces: gpt2.decode(gpt2.convert_tokens_to_ids(pieces)),
                   lambda pieces: load_gpt2_tokenizer().convert_tokens_to_string(pieces)):
        assert "uses a tokenizer" in check("text_back", answer).message
    assert check("text_back", lambda pieces: gpt2 and RIGHT["text_back"][0](pieces)).correct
    assert gpt2.convert_tokens_to_string(["Ġa"]) == " a"
