"""Checks of the exercises on masked language models: right answers pass, each typical mistake gets its message."""

# ruff: noqa: ARG005  (an answer takes all arguments, right or wrong)

import math

import pytest
import torch
from exercise_feedback import assert_named

from llm_tutorial.checkpoints import load_masked_lm
from llm_tutorial.exercises import Exercises, masked

PARIS = "Paris is the [MASK] of France."


def my_softmax(logits):
    powers = torch.exp(logits - logits.max(dim=-1, keepdim=True).values)
    return powers / powers.sum(dim=-1, keepdim=True)


def my_labels(original_ids, masked_ids, mask_token_id):
    return torch.where(masked_ids == mask_token_id, original_ids, -100)


@torch.no_grad()
def my_pseudo_perplexity(model, tokenizer, text):
    ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
    losses = []
    for place in range(1, ids.shape[1] - 1):
        hidden = ids.clone()
        hidden[0, place] = tokenizer.mask_token_id
        log_probabilities = model(hidden).logits[0, place].log_softmax(dim=-1)
        losses.append(-log_probabilities[ids[0, place]].item())
    return math.exp(sum(losses) / len(losses))


def my_two_masks(logits, labels):
    labelled = labels != -100
    log_probabilities = logits[labelled].log_softmax(dim=-1)
    return -log_probabilities.gather(1, labels[labelled][:, None]).mean()


SOLUTIONS = {"softmax": my_softmax, "labels": my_labels, "pseudo_perplexity": my_pseudo_perplexity,
             "two_masks": my_two_masks}  # fmt: skip


@pytest.fixture
def exercises(masked_lm, masked_tokenizer):
    return Exercises(masked.EXERCISES, model=masked_lm, tokenizer=masked_tokenizer)


def choices(model, tokenizer, text):
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[inputs.input_ids == tokenizer.mask_token_id]
    return torch.distributions.Categorical(logits=logits).entropy().exp().item()


@pytest.fixture
def sentences(masked_lm, masked_tokenizer):
    """The sentences of the tiny vocabulary by the number of choices that they leave."""
    words = [word for word in masked_tokenizer.get_vocab() if word.isalpha()]
    texts = [f"the {one} is a [MASK] of {other}." for one in words for other in words[::5]]
    return sorted(texts, key=lambda text: choices(masked_lm, masked_tokenizer, text))


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solutions_are_right(exercises, name):
    assert exercises.check(name, SOLUTIONS[name]).message == "That is right."


def test_a_surer_sentence_is_right_and_an_unsurer_one_is_told_both_numbers(
        exercises, sentences, masked_lm, masked_tokenizer):
    assert exercises.check("surer", sentences[0]).correct
    message = exercises.check("surer", sentences[-1]).message
    for sentence in (sentences[-1], PARIS):
        assert f"{choices(masked_lm, masked_tokenizer, sentence):.4g} choices" in message


def test_solutions_are_right_for_the_model_of_the_notebook():
    tokenizer, model = load_masked_lm(source="offline")
    exercises = Exercises(masked.EXERCISES, model=model, tokenizer=tokenizer)
    assert exercises.check("surer", "He lives in the United [MASK] of America.").correct
    assert exercises.check("pseudo_perplexity", my_pseudo_perplexity).correct
    assert "choices" in exercises.check("surer", "My cat is [MASK].").message


@pytest.mark.parametrize(("sentence", "fragment"), [
    ("The beach is great.", "no [MASK]"),
    ("Paris is the mask of France.", "no [MASK]"),
    ("Paris is the [mask] of France.", "capital letters"),
    ("The [MASK] is a [MASK].", "2 masks"),
    (PARIS, "the Paris sentence itself"),
    ("  paris is the  [MASK] of FRANCE!", "the Paris sentence itself"),
    ("[MASK]", "only 0 words"),
    ("Great [MASK].", "only 1 word "),
    ("the " * 40 + "[MASK].", "44 tokens, but the model reads at most 32"),
    (" ", "no [MASK]"),
    (None, "of type NoneType, but a string"),
    (["The [MASK] is here."], "of type list, but a string"),
    (lambda: PARIS, "of type function, but a string"),
])
def test_sentences_that_do_not_count_are_named(exercises, sentence, fragment):
    feedback = exercises.check("surer", sentence)
    assert not feedback.correct
    assert fragment in feedback.message


def without_maximum(logits):
    return logits.exp() / logits.exp().sum(dim=-1, keepdim=True)


def everything_masked(model, tokenizer, text):
    return asked_once(model, tokenizer, text, hide=True)


def asked_once(model, tokenizer, text, hide=False):
    ids = tokenizer(text, return_tensors="pt").input_ids
    seen = ids.clone()
    if hide:
        seen[0, 1:-1] = tokenizer.mask_token_id
    with torch.no_grad():
        logits = model(seen).logits[0, 1:-1]
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:-1]).exp()


def losses(model, tokenizer, text, first=1, last=1):
    ids = tokenizer(text, return_tensors="pt").input_ids
    found = []
    for place in range(first, ids.shape[1] - last):
        hidden = ids.clone()
        hidden[0, place] = tokenizer.mask_token_id
        with torch.no_grad():
            found.append(-model(hidden).logits[0, place].log_softmax(dim=-1)[ids[0, place]].item())
    return torch.tensor(found)


def in_place(original_ids, masked_ids, mask_token_id):
    original_ids[masked_ids != mask_token_id] = -100
    return original_ids


def cross_entropies(logits, labels):
    return torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="none", ignore_index=-100)


def indexed(logits, labels):
    rows = logits[0].log_softmax(dim=-1)
    return -sum(rows[place, label] for place, label in enumerate(labels[0])) / len(rows)


WRONG = [
    ("softmax", "too large a number", without_maximum),
    ("softmax", "all rows together", lambda logits: logits.exp() / logits.exp().sum()),
    ("softmax", "another dimension than the last", lambda logits: logits.softmax(dim=0)),
    ("softmax", "logarithms", lambda logits: logits.log_softmax(dim=-1)),
    ("softmax", "not divided by their sum", lambda logits: logits.exp()),
    ("softmax", "without the exponential", lambda logits: logits / logits.sum(dim=-1, keepdim=True)),
    ("softmax", "shape (), ", lambda logits: logits.softmax(dim=-1).sum()),
    ("softmax", "add up to 2, ", lambda logits: logits.softmax(dim=-1) * 2),
    ("softmax", "not those of a softmax", lambda logits: (logits / 2).softmax(dim=-1)),
    ("labels", "0 is the number of a token",
     lambda original, hidden, mask: torch.where(hidden == mask, original, 0)),
    ("labels", "the mask's own number", lambda original, hidden, mask: torch.where(hidden == mask, hidden, -100)),
    ("labels", "wrong way round", lambda original, hidden, mask: torch.where(hidden == mask, -100, original)),
    ("labels", "changes original_ids", in_place),
    ("labels", "by another one than the mask",
     lambda original, hidden, mask: torch.where(hidden != original, original, -100)),
    ("labels", "at every place", lambda original, hidden, mask: original),
    ("labels", "torch.float32", lambda *given: my_labels(*given).float()),
    ("labels", "torch.int32", lambda *given: my_labels(*given).int()),
    ("labels", "shape (2,), ", lambda original, hidden, mask: original[hidden == mask]),
    ("pseudo_perplexity", "all tokens are hidden at once", everything_masked),
    ("pseudo_perplexity", "no token is hidden", asked_once),
    ("pseudo_perplexity", "[CLS] and [SEP]", lambda *given: losses(*given, 0, 0).mean().exp().item()),
    ("pseudo_perplexity", "a sum ", lambda *given: losses(*given).sum().exp().item()),
    ("pseudo_perplexity", "still a loss", lambda *given: losses(*given).mean().item()),
    ("pseudo_perplexity", "sign", lambda *given: (-losses(*given).mean()).exp()),
    ("pseudo_perplexity", "not the pseudo-perplexity", lambda *given: 1.0),
    ("pseudo_perplexity", "one number is needed", losses),
    ("two_masks", "by all places", lambda logits, labels: cross_entropies(logits, labels).mean()),
    ("two_masks", "-100 is taken for a token", indexed),
    ("two_masks", "-100 is taken for a token",
     lambda logits, labels: torch.nn.functional.cross_entropy(logits[0], labels[0].clamp(min=0))),
    ("two_masks", "a sum ", lambda logits, labels: cross_entropies(logits, labels).sum()),
    ("two_masks", "first labelled place", lambda logits, labels: cross_entropies(logits, labels)[labels[0] != -100][0]),
    ("two_masks", "sign", lambda logits, labels: -my_two_masks(logits, labels)),
    ("two_masks", "one number is needed", cross_entropies),
    ("two_masks", "not the loss", lambda logits, labels: 0.5),
]


@pytest.mark.parametrize(("name", "fragment", "answer"), WRONG)
def test_typical_mistakes_are_named(exercises, name, fragment, answer):
    assert_named(exercises.check(name, answer), fragment)


def test_maxima_over_the_wrong_rows_do_no_harm(exercises):
    assert exercises.check("softmax", lambda logits: without_maximum(logits - logits.max())).correct


def test_lists_and_arrays_are_read_too(exercises):
    assert exercises.check("softmax", lambda logits: my_softmax(logits).tolist()).correct
    assert exercises.check("softmax", lambda logits: my_softmax(logits).numpy()).correct
    assert exercises.check("labels", lambda *given: my_labels(*given).tolist()).correct
    assert exercises.check("two_masks", lambda *given: my_two_masks(*given).item()).correct


def test_a_model_in_training_mode_is_asked_without_dropout_and_left_as_it_was(masked_lm, masked_tokenizer, sentences):
    masked_lm.train()
    exercises = Exercises(masked.EXERCISES, model=masked_lm, tokenizer=masked_tokenizer)
    assert exercises.check("pseudo_perplexity", my_pseudo_perplexity).correct
    assert exercises.check("surer", sentences[0]).correct
    assert masked_lm.training


def test_a_sum_that_overflows_is_named_too(exercises, masked_lm, masked_tokenizer):
    masked_lm.cls.predictions.transform.LayerNorm.weight.data *= 3
    given = masked_lm, masked_tokenizer, "Life is like a box of chocolates."
    assert losses(*given).sum().exp().item() == math.inf
    assert exercises.check("pseudo_perplexity", my_pseudo_perplexity).correct
    assert "a sum " in exercises.check("pseudo_perplexity", lambda *given: losses(*given).sum().exp().item()).message
