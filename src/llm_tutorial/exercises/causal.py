"""Exercises on causal language models; they are given the notebook's ``model`` and ``tokenizer``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.exercises.answers import call_guarded, call_with, compare, draw, number, show, string, tensor
from llm_tutorial.exercises.checking import Exercise, Fault, call, require_function
from llm_tutorial.inference import evaluating

__all__ = ["EXERCISES"]

_LONGEST_PROMPT = 60
_SURE = 0.9
_SEED = 42
_DRAWS = 2500
_TOLERATED = 60.0  # chi-square of four degrees of freedom: a right sampler is beyond it once in 3e11 checks


def _sure_prompt(answer, *, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **_) -> str | None:
    text = string(answer)
    if not text.strip():
        return "Your prompt is empty: there is nothing that the model could continue."
    count = len(tokenizer(text, verbose=False).input_ids)
    if count > _LONGEST_PROMPT:
        return f"Your prompt has {count} tokens, but at most {_LONGEST_PROMPT} are allowed."
    token, probability = _candidate(model, tokenizer, text)
    if probability > _SURE:
        return None
    rounded_down = math.floor(probability * 1000) / 1000  # 0.8999 is not enough and must not look like it
    return f"After your prompt the first candidate is {token!r} with a probability of only {rounded_down:.3f}."


def _candidate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[str, float]:
    inputs = tokenizer(text, return_tensors="pt").to(model.device)
    with evaluating(model):
        probability, best = model(**inputs).logits[0, -1].float().softmax(dim=-1).max(dim=-1)
    return tokenizer.decode([best.item()]), probability.item()


def _top_k(answer, **_) -> str | None:
    cases = [(draw(7), 3), (draw(7, seed=1), 1), (draw(5, seed=2) - 10, 2), (draw(4, seed=3), 4)]
    return compare(
        answer, _best_kept, cases, read=tensor, given=lambda logits, k: f"For the logits {show(logits)} and k = {k}",
        mistakes=_TOP_K_MISTAKES, otherwise=_no_top_k, run=call_guarded("the logits"))


def _best_kept(logits: torch.Tensor, k: int, ruled_out: float = -torch.inf) -> torch.Tensor:
    return logits.masked_fill(logits < logits.topk(k).values[-1], ruled_out)


_TOP_K_MISTAKES = {
    "zeros stand for what is ruled out, and a logit of 0 still has a probability":
        lambda logits, k: _best_kept(logits, k, 0.0),
    "the smallest logits are kept": lambda logits, k: -_best_kept(-logits, k, torch.inf),
    "only the kept ones are left, so nobody knows which tokens they belong to":
        lambda logits, k: logits.topk(k).values,
    "these are probabilities, not logits": lambda logits, k: _best_kept(logits, k).softmax(dim=-1),
}


def _no_top_k(found: torch.Tensor, logits: torch.Tensor, k: int) -> str:
    if found.shape != logits.shape:
        return f"that has the shape {tuple(found.shape)}, the logits have the shape {tuple(logits.shape)}"
    kept = int((found > -torch.inf).sum())
    if kept != k:
        return f"{kept} of {logits.numel()} logits are above minus infinity"
    return "the kept logits are not those given, or not the best"


def _loss(answer, **_) -> str | None:
    cases = [(draw(1, n, 13, seed=n), torch.tensor([ids])) for n, ids in
             ((6, [3, 7, 7, 12, 0, 5]), (4, [9, 1, 4, 8]), (2, [2, 11]))]
    return compare(
        answer, lambda *given: _next_token_losses(*given).mean().item(), cases,
        read=lambda value: float(number(value)), given=lambda _, ids: f"For the ids {ids.tolist()}",
        mistakes=_LOSS_MISTAKES, otherwise=lambda *_: "that is not the loss of the next tokens")


def _next_token_losses(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")


_LOSS_MISTAKES = {
    "each place is compared with its own token, which the model has read":
        lambda logits, ids: cross_entropy(logits[0], ids[0]).item(),
    "the shift goes the wrong way, to the token before":
        lambda logits, ids: cross_entropy(logits[0, 1:], ids[0, :-1]).item(),
    "it is a sum instead of a mean": lambda *given: _next_token_losses(*given).sum().item(),
    "the last place is compared with the first token, though nothing follows it":
        lambda logits, ids: cross_entropy(logits[0], ids[0].roll(-1)).item(),
    "the last place is compared with token 0, though nothing follows it":
        lambda logits, ids: cross_entropy(logits[0], torch.cat([ids[0, 1:], ids.new_zeros(1)])).item(),
    "the sum is divided as if there were as many terms as tokens":
        lambda logits, ids: _next_token_losses(logits, ids).sum().item() / ids.shape[1],
    "the logarithms have the wrong sign": lambda *given: -_next_token_losses(*given).mean().item(),
    "that is the perplexity, not the loss": lambda *given: _next_token_losses(*given).mean().exp().item(),
}


def _sample(answer, **_) -> str | None:
    require_function(answer)
    logits = torch.tensor([1.0, 0.0, -torch.inf, 1.5, 0.5, 0.8])
    temperatures = (0.5, 2.0)
    with torch.random.fork_rng(devices=[]):  # an answer may draw from the global generator
        torch.manual_seed(_SEED)
        counts = [_drawn(answer, logits, temperature).bincount(minlength=len(logits)) for temperature in temperatures]
        few = [_drawn(answer, logits, 2.0, draws=100) for _ in range(2)]
    if not torch.equal(*few):
        return ("In two runs from the same seed your function draws different tokens: they come from another source of "
                "randomness than the generator.")

    def fits(distribution: Callable[[torch.Tensor, float], torch.Tensor]) -> bool:
        return all(_chi_square(count, distribution(logits, temperature)) < _TOLERATED
                   for count, temperature in zip(counts, temperatures, strict=True))

    if fits(lambda logits, temperature: (logits / temperature).softmax(dim=-1)):
        return None
    clause = next((clause for clause, mistake in _SAMPLE_MISTAKES.items() if fits(mistake)), None)
    if clause is None:
        constant = all(count.max() == count.sum() for count in counts)
        clause = "always the same token" if constant else "that is not the softmax of logits / temperature"
    shares = [f"{show(count / count.sum())} at temperature {temperature}"
              for count, temperature in zip(counts, temperatures, strict=True)]
    return f"For the logits {show(logits)} your function draws the shares {' and '.join(shares)}: {clause}."


_SAMPLE_MISTAKES = {
    "the logits are multiplied by the temperature": lambda logits, temperature: (logits * temperature).softmax(dim=-1),
    "the temperature has no effect": lambda logits, _: logits.softmax(dim=-1),
    "it is always the most probable token": lambda logits, _: torch.eye(len(logits))[logits.argmax()],
    "all tokens come equally often": lambda logits, _: torch.full_like(logits, 1 / len(logits)),
    "the softmax is taken twice":
        lambda logits, temperature: (logits / temperature).softmax(dim=-1).softmax(dim=-1),
}


def _drawn(answer: Callable, logits: torch.Tensor, temperature: float, draws: int = _DRAWS) -> torch.Tensor:
    """The tokens of many calls with one generator, always from the same seed."""
    generator = torch.Generator().manual_seed(_SEED)
    given = logits.clone()
    tokens = []
    for _ in range(draws):
        tokens.append(_token(call(lambda: answer(given, temperature, generator)), len(logits)))
        given.copy_(logits)
    return torch.tensor(tokens)


def _token(value, vocabulary: int) -> int:
    one = isinstance(value, int | float | np.integer) or (
        isinstance(value, torch.Tensor | np.ndarray) and math.prod(value.shape) == 1)
    token = number(value) if one and not isinstance(value, bool) else None
    if token is None or token != token or token != int(token):
        raise Fault(f"Your function returns {show(value)}, but the number of one token is needed.")
    if not 0 <= token < vocabulary:
        raise Fault(f"Your function returns {show(token)}, but the logits are those of {vocabulary} tokens.")
    return int(token)


def _chi_square(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Distance of counts from what is expected; infinite if something impossible was drawn."""
    possible = probabilities > 0
    if counts[~possible].any():
        return math.inf
    expected = probabilities[possible].double() * counts.sum()
    return ((counts[possible] - expected) ** 2 / expected).sum().item()


def _cached_greedy(answer, *, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **_) -> str | None:
    ids = tokenizer("Swimming at the beach is", return_tensors="pt")["input_ids"].to(model.device)
    cases = [(ids[:, :5], 4), (ids[:, :2], 2), (ids[:, -1:], 1)]
    calls: list[list[int]] = []  # the tokens fed in each call of the model, for each case

    def counted(answer: Callable, *case) -> torch.Tensor:
        with _counting(model) as fed:
            calls.append(fed)
            return call_with(model)(answer, *case)

    with evaluating(model):
        fault = compare(
            answer, lambda *case: _written(model, *case), cases, read=tensor, given=_after, otherwise=_not_greedy,
            run=counted, mistakes={
                "those are the new tokens alone, without the prompt":
                    lambda ids, new_tokens: _written(model, ids, new_tokens)[:, ids.shape[1]:],
                "the cache is not passed on, so the model has read nothing but the newest token":
                    lambda *case: _written(model, *case, forgetful=True),
            })
    for fed, (ids, new_tokens) in zip(calls, cases, strict=True):
        if sum(fed) > ids.shape[1] + new_tokens:
            right = "Your function writes the right tokens, but" if fault is None else fault.rstrip(".") + "; and"
            return (f"{right} for {new_tokens} new tokens after {ids.shape[1]} the model is fed {sum(fed)} tokens in "
                    f"{len(fed)} calls: it reads some again and again.")
    return fault


def _after(ids: torch.Tensor, new_tokens: int) -> str:
    return f"After {ids.shape[1]} tokens, asked for {new_tokens} new,"


@contextmanager
def _counting(model: PreTrainedModel) -> Iterator[list[int]]:
    """The number of tokens of each call of the model."""
    fed: list[int] = []

    def count(_, positional, named) -> None:
        tokens = next((named[key] for key in ("input_ids", "inputs_embeds") if named.get(key) is not None), None)
        tokens = positional[0] if tokens is None else tokens
        fed.append(tokens.shape[0] * tokens.shape[1])

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield fed
    finally:
        hook.remove()


def _written(model: PreTrainedModel, ids: torch.Tensor, new_tokens: int, forgetful: bool = False) -> torch.Tensor:
    """Prompt and greedy continuation; if forgetful, each step but the first reads the newest token alone."""
    step, cache = ids, None
    for _ in range(new_tokens):
        output = model(input_ids=step, past_key_values=cache, use_cache=True)
        step = output.logits[:, -1:].argmax(dim=-1)
        cache = None if forgetful else output.past_key_values
        ids = torch.cat([ids, step], dim=1)
    return ids.cpu()


def _not_greedy(found: torch.Tensor, ids: torch.Tensor, new_tokens: int) -> str:
    needed = (1, ids.shape[1] + new_tokens)
    if found.shape != needed:
        return f"that has the shape {tuple(found.shape)}, but prompt and new tokens have the shape {needed}"
    if not torch.equal(found[:, :ids.shape[1]], ids.cpu()):
        return "the prompt is changed"
    return "the new tokens are not the most probable ones"


EXERCISES = {
    "sure_prompt": Exercise(
        _sure_prompt,
        "Begin something that hardly anybody would end in another way: a list that everyone knows, or a text that "
        "repeats itself."),
    "top_k": Exercise(
        _top_k,
        "Which logit is the last one to stay? Compare all others with it, and write the result to a new tensor."),
    "loss": Exercise(
        _loss,
        "Write down for a text of three tokens which row of the logits predicts which token, and how many such "
        "pairs there are."),
    "sample": Exercise(
        _sample,
        "A low temperature makes large logits stand out more; and a generator does nothing unless it is handed to "
        "the function that draws."),
    "cached_greedy": Exercise(
        _cached_greedy,
        "Each output holds past_key_values: who has them need not read the earlier tokens again."),
}
