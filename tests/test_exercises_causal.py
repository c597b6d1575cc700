"""Checks of the exercises on causal language models: right answers pass, each typical mistake gets its message."""

# ruff: noqa: ARG005  (an answer takes all arguments, right or wrong)

import random

import pytest
import torch
from exercise_feedback import assert_named

from llm_tutorial.exercises import Exercises, causal


def my_top_k(logits, k):
    worst_kept = logits.topk(k).values[-1]
    return torch.where(logits >= worst_kept, logits, -torch.inf)


def my_loss(logits, ids):
    log_probabilities = logits[0, :-1].log_softmax(dim=-1)
    return -log_probabilities.gather(1, ids[0, 1:, None]).mean()


def my_sample(logits, temperature, generator):
    probabilities = (logits / temperature).softmax(dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator).item()


@torch.no_grad()
def my_cached_greedy(model, ids, new_tokens):
    step, cache = ids, None
    for _ in range(new_tokens):
        output = model(step, past_key_values=cache, use_cache=True)
        step = output.logits[:, -1].argmax(dim=-1, keepdim=True)
        cache = output.past_key_values
        ids = torch.cat([ids, step], dim=1)
    return ids


SOLUTIONS = {"top_k": my_top_k, "loss": my_loss, "sample": my_sample, "cached_greedy": my_cached_greedy}


@pytest.fixture
def exercises(causal_lm, causal_tokenizer):
    return Exercises(causal.EXERCISES, model=causal_lm, tokenizer=causal_tokenizer)


@pytest.fixture
def prompts(causal_lm, causal_tokenizer):
    """Pairs (probability of the first candidate, prompt), the least sure first; the model is made surer than it was."""
    causal_lm.transformer.ln_f.weight.data *= 3
    words = [token for token in causal_tokenizer.get_vocab() if token.isascii() and token.isalnum()]
    texts = [f"{one} {other}" for one in words[::3] for other in words[::4]]
    with torch.no_grad():
        return sorted(
            (causal_lm(causal_tokenizer(text, return_tensors="pt").input_ids).logits[0, -1].softmax(-1).max().item(),
             text) for text in texts)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solutions_are_right(exercises, name):
    assert exercises.check(name, SOLUTIONS[name]).message == "That is right."


def test_a_sure_prompt_is_right_and_an_unsure_one_is_told_the_candidate(
        exercises, prompts, causal_lm, causal_tokenizer):
    probability, sure = prompts[-1]
    assert probability > 0.9
    assert exercises.check("sure_prompt", sure).correct
    probability, unsure = prompts[0]
    with torch.no_grad():
        best = causal_lm(causal_tokenizer(unsure, return_tensors="pt").input_ids).logits[0, -1].argmax()
    message = exercises.check("sure_prompt", unsure).message
    assert repr(causal_tokenizer.decode([best.item()])) in message
    assert f"{int(probability * 1000) / 1000:.3f}" in message


def test_a_probability_of_nine_tenths_is_not_enough(exercises, prompts, monkeypatch):
    just_below = 0.89999
    monkeypatch.setattr(causal, "_candidate", lambda *_: (" box", just_below))
    message = exercises.check("sure_prompt", prompts[-1][1]).message
    assert "0.899" in message
    assert "' box'" in message


@pytest.mark.parametrize(("prompt", "fragment"), [
    (" ", "is empty"),
    (" \n", "is empty"),
    ("box " * 61, "tokens, but at most 60"),
    (None, "of type NoneType, but a string"),
    (3, "of type int, but a string"),
    (my_loss, "of type function, but a string"),
])
def test_prompts_that_do_not_count_are_named(exercises, prompt, fragment):
    feedback = exercises.check("sure_prompt", prompt)
    assert not feedback.correct
    assert fragment in feedback.message


def kth_excluded(logits, k):
    return torch.where(logits > logits.topk(k).values[-1], logits, -torch.inf)


def top_k_in_place(logits, k):
    logits[logits < logits.topk(k).values[-1]] = -torch.inf
    return logits


def cross_entropies(logits, ids):
    return torch.nn.functional.cross_entropy(logits, ids, reduction="none")


def drawn(probabilities, generator):
    return torch.multinomial(probabilities, 1, generator=generator)


@torch.no_grad()
def without_cache(model, ids, new_tokens):
    for _ in range(new_tokens):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(dim=-1)], dim=1)
    return ids


@torch.no_grad()
def cache_not_passed_on(model, ids, new_tokens):
    step = ids
    for _ in range(new_tokens):
        step = model(step, use_cache=True).logits[:, -1:].argmax(dim=-1)
        ids = torch.cat([ids, step], dim=1)
    return ids


@torch.no_grad()
def all_tokens_with_cache(model, ids, new_tokens):
    cache = None
    for _ in range(new_tokens):
        output = model(ids, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        ids = torch.cat([ids, output.logits[:, -1:].argmax(dim=-1)], dim=1)
    return ids


@torch.no_grad()
def least_probable(model, ids, new_tokens):
    for _ in range(new_tokens):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmin(dim=-1)], dim=1)
    return ids


WRONG = [
    ("top_k", "zeros", lambda logits, k: torch.where(logits >= logits.topk(k).values[-1], logits, 0)),
    ("top_k", "smallest",
     lambda logits, k: torch.where(logits <= logits.topk(k, largest=False).values[-1], logits, -torch.inf)),
    ("top_k", "changes the logits", top_k_in_place),
    ("top_k", "only the kept ones", lambda logits, k: logits.topk(k).values),
    ("top_k", "a tuple of 2 tensors", lambda logits, k: logits.topk(k)),
    ("top_k", "probabilities", lambda *given: my_top_k(*given).softmax(dim=-1)),
    ("top_k", "2 of 7 logits", kth_excluded),
    ("top_k", "7 of 7 logits", lambda logits, k: logits),
    ("top_k", "not those given", lambda *given: my_top_k(*given) + 1),
    ("loss", "its own token", lambda logits, ids: cross_entropies(logits[0], ids[0]).mean()),
    ("loss", "wrong way", lambda logits, ids: cross_entropies(logits[0, 1:], ids[0, :-1]).mean()),
    ("loss", "a sum ", lambda logits, ids: cross_entropies(logits[0, :-1], ids[0, 1:]).sum()),
    ("loss", "the last place", lambda logits, ids: cross_entropies(logits[0], ids[0].roll(-1)).mean()),
    ("loss", "the last place",
     lambda logits, ids: cross_entropies(logits[0], torch.cat([ids[0, 1:], torch.tensor([0])])).mean()),
    ("loss", "as many terms as tokens",
     lambda logits, ids: cross_entropies(logits[0, :-1], ids[0, 1:]).sum() / ids.shape[1]),
    ("loss", "sign", lambda *given: -my_loss(*given)),
    ("loss", "perplexity", lambda *given: my_loss(*given).exp()),
    ("loss", "one number is needed", lambda logits, ids: logits.tolist()),
    ("loss", "not the loss", lambda logits, ids: 0.0),
    ("sample", "multiplied", lambda logits, heat, generator: drawn((logits * heat).softmax(-1), generator)),
    ("sample", "no effect", lambda logits, heat, generator: drawn(logits.softmax(-1) / heat, generator)),
    ("sample", "always the most probable", lambda logits, heat, generator: logits.argmax()),
    ("sample", "another source", lambda logits, heat, generator: drawn((logits / heat).softmax(-1), None)),
    ("sample", "another source", lambda logits, heat, generator: random.randrange(len(logits))),
    ("sample", "always the same token", lambda logits, heat, generator: 1),
    ("sample", "equally often", lambda logits, heat, generator: torch.randint(len(logits), (1,), generator=generator)),
    ("sample", "twice", lambda logits, heat, generator: drawn((logits / heat).softmax(-1).softmax(-1), generator)),
    ("sample", "0.7", lambda logits, heat, generator: 0.7),
    ("sample", "99, but the logits are those of 6 tokens", lambda logits, heat, generator: 99),
    ("sample", "-1, but the logits", lambda logits, heat, generator: -1),
    ("sample", "one token", lambda logits, heat, generator: logits),
    ("sample", "one token", lambda logits, heat, generator: "the"),
    ("cached_greedy", "fed 26 tokens", without_cache),
    ("cached_greedy", "the cache is not passed on", cache_not_passed_on),
    ("cached_greedy", "fed 26 tokens", all_tokens_with_cache),
    ("cached_greedy", "the new tokens alone",
     lambda model, ids, new: my_cached_greedy(model, ids, new)[:, ids.shape[1]:]),
    ("cached_greedy", "not the most probable", least_probable),
    ("cached_greedy", "the prompt is changed", lambda *given: my_cached_greedy(*given).roll(1)),
    ("cached_greedy", "shape (1, 5)", lambda model, ids, new: ids),
    ("cached_greedy", "shape (9,)", lambda *given: my_cached_greedy(*given)[0]),
    ("cached_greedy", "'the box', but a tensor", lambda *given: "the box"),
]


@pytest.mark.parametrize(("name", "fragment", "answer"), WRONG)
def test_typical_mistakes_are_named(exercises, name, fragment, answer):
    assert_named(exercises.check(name, answer), fragment)


def gumbel(logits, temperature, generator):
    return (logits / temperature - torch.empty_like(logits).exponential_(generator=generator).log()).argmax()


def inverse_cdf(logits, temperature, generator):
    below = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)
    return torch.searchsorted(below, torch.rand(1, generator=generator) * below[-1], right=True)


@pytest.mark.parametrize("sample", [gumbel, inverse_cdf])
def test_other_correct_ways_to_draw_are_right(exercises, sample):
    assert exercises.check("sample", sample).correct


def test_other_correct_forms_are_right(exercises):
    assert exercises.check("top_k", lambda *given: my_top_k(*given).tolist()).correct
    assert exercises.check("loss", lambda *given: my_loss(*given).item()).correct
    assert exercises.check("cached_greedy", lambda *given: my_cached_greedy(*given).tolist()).correct


def fed_once_more(model, ids, new_tokens):
    """The last token is fed too: one token more than needed."""
    written = my_cached_greedy(model, ids, new_tokens)
    model(written[:, -1:])
    return written


def test_one_token_more_is_tolerated_but_not_two(exercises):
    assert exercises.check("cached_greedy", fed_once_more).correct
    feedback = exercises.check("cached_greedy", lambda model, ids, new: (
        model(ids[:, :1]), fed_once_more(model, ids, new))[1])
    assert "fed 10 tokens" in feedback.message


def test_tokens_are_counted_however_they_are_fed_and_by_no_hook_that_stays(exercises, causal_lm):
    def embedded(model, ids, new_tokens):
        with torch.no_grad():
            for _ in range(new_tokens):
                logits = model(inputs_embeds=model.get_input_embeddings()(ids)).logits
                ids = torch.cat([ids, logits[:, -1:].argmax(dim=-1)], dim=1)
        return ids

    assert "fed 26 tokens" in exercises.check("cached_greedy", embedded).message
    assert "fed 26 tokens" in exercises.check("cached_greedy", without_cache).message
    assert "ZeroDivisionError" in exercises.check("cached_greedy", lambda model, ids, new: 1 / 0).message
    assert not causal_lm._forward_pre_hooks


def test_a_model_in_training_mode_is_left_in_it(exercises, causal_lm):
    causal_lm.train()
    assert exercises.check("cached_greedy", my_cached_greedy).correct
    assert causal_lm.training


def test_a_right_sampler_passes_whatever_its_luck(exercises, monkeypatch):
    for seed in range(5):
        monkeypatch.setattr(causal, "_SEED", seed)
        assert exercises.check("sample", my_sample).correct
