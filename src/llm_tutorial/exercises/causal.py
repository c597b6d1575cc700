"""Exercises on causal language models; they are given the notebook's ``model`` and ``tokenizer``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.decoding import evaluating, next_tokens
from llm_tutorial.exercises.answers import (
    by_cases,
    by_value,
    call,
    compare,
    draw,
    loss_errors,
    real,
    show,
    string,
    tensor,
    whole,
    with_infinities,
)
from llm_tutorial.exercises.checking import Exercise, Fault, require_function

__all__ = ["EXERCISES"]

_SEED = 42
_DRAWS = 2500
_TOLERATED = 0.05  # five standard deviations of a share of one half among so many draws


def _sure_prompt(answer, *, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **_) -> str | None:
    text = string(answer)
    count = len(tokenizer(text, verbose=False).input_ids)
    if count > 60:
        return f"Your prompt has {count} tokens, but at most 60 are allowed."
    if not text.strip():
        return "Your prompt is empty, so there is nothing that the model could continue."
    [best] = next_tokens(model, tokenizer, text, k=1)
    if best.probability > 0.9:
        return None
    rounded_down = math.floor(best.probability * 1000) / 1000  # 0.8999 is not enough and must not look like it
    return f"After your prompt the first candidate is {best.token!r} with a probability of only {rounded_down:.3f}."


def _best_kept(logits: torch.Tensor, k: int, ruled_out: float = -torch.inf) -> torch.Tensor:
    return logits.double().masked_fill(logits < logits.topk(k).values[-1], ruled_out)


def _no_top_k(found: torch.Tensor, logits: torch.Tensor, k: int) -> str:
    kept = int((found > -torch.inf).sum())
    if kept != k:
        return f"softmax gives {kept} of {logits.numel()} tokens a probability"
    return "the kept logits are not those given, or not the best"


def _next_token_losses(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")


def _sample(answer, **_) -> Fault | str | None:
    require_function(answer)
    logits, temperatures = torch.tensor([1.0, 0.0, -torch.inf, 1.5, 0.5, 0.8]), (0.5, 2.0)
    with torch.random.fork_rng(devices=[]):  # an answer may draw from the global generator
        torch.manual_seed(_SEED)
        shares = [_drawn(answer, logits, temperature).bincount(minlength=len(logits)) / _DRAWS
                  for temperature in temperatures]
        few = [_drawn(answer, logits, 2.0, draws=100) for _ in range(2)]
    if not torch.equal(*few):
        return ("In two runs from the same seed your function draws different tokens: it does not draw with the "
                "generator.")

    def fits(distribution: Callable[[torch.Tensor, float], torch.Tensor]) -> bool:
        expected = [distribution(logits, temperature) for temperature in temperatures]
        return all((share - other).abs().max() < _TOLERATED and not share[other == 0].any()
                   for share, other in zip(shares, expected, strict=True))

    if fits(lambda logits, temperature: (logits / temperature).softmax(dim=-1)):
        return None
    clause = next((clause for clause, mistake in _SAMPLE_MISTAKES.items() if fits(mistake)),
                  "these are not the softmax of logits / temperature")
    drawn = [f"{show(share)} at temperature {temperature}"
             for share, temperature in zip(shares, temperatures, strict=True)]
    return Fault(f"For logits = {show(logits)}, your function draws the shares {' and '.join(drawn)}: {clause}.",
                 clause)


_SAMPLE_MISTAKES = {
    "the logits are multiplied by the temperature": lambda logits, temperature: (logits * temperature).softmax(dim=-1),
    "the temperature has no effect; to divide all probabilities by it would change nothing":
        lambda logits, _: logits.softmax(dim=-1),
    "it is always the most probable token": lambda logits, _: torch.eye(len(logits))[logits.argmax()],
}


def _drawn(answer: Callable, logits: torch.Tensor, temperature: float, draws: int = _DRAWS) -> torch.Tensor:
    """The tokens of many calls with one generator, always from the same seed."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.tensor([_token(call(answer, logits, temperature, generator, names="logits temperature _"), len(logits))
                         for _ in range(draws)])


def _token(value, vocabulary: int) -> int:
    token = whole(value)
    if not isinstance(token, int) or not 0 <= token < vocabulary:
        raise Fault(f"Your function returns {show(value)}, but the id of one of {vocabulary} tokens is needed.")
    return token


def _cached_greedy(answer, *, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **_) -> Fault | None:
    require_function(answer)
    ids = tokenizer("Swimming at the beach is", return_tensors="pt")["input_ids"].to(model.device)
    cases = [(model, ids[:, :5], 3), (model, ids[:, -1:], 2)]
    calls: list[list[torch.Size]] = []  # what the model is fed, for each case

    @wraps(answer)
    def counted(model, *case):
        with _fed(model) as shapes:
            calls.append(shapes)
            return answer(model, *case)

    written = cache(_written)  # tensors are told apart by identity, and there is one for each case
    with evaluating(model):
        fault = compare(
            counted, written, "_ ids new_tokens", cases, read=tensor, otherwise=_not_greedy,
            without=("generate", "greedy_decode"), mistakes={
                "those are the new tokens alone, without the prompt":
                    lambda model, ids, new_tokens: written(model, ids, new_tokens)[:, ids.shape[1]:],
                "the cache is not passed on, so the model has read nothing but the newest token":
                    lambda *case: written(*case, forgetful=True),
            })
    for shapes, (_, ids, new_tokens) in zip(calls, cases, strict=False):
        read = sum(shape.numel() for shape in shapes)
        if read > ids.shape[1] + new_tokens:
            right = "Your function writes the right tokens, but" if fault is None else f"{str(fault).rstrip('.')}; and"
            return Fault(f"{right} for {new_tokens} new tokens after {ids.shape[1]} the model is fed {read} tokens in "
                         f"{len(shapes)} calls: it reads some of them again.", "the model reads some tokens again")
    return fault


@contextmanager
def _fed(model: PreTrainedModel) -> Iterator[list[torch.Size]]:
    """Yield a list that gets the shape of the ids of each forward pass."""
    shapes: list[torch.Size] = []
    with model.get_input_embeddings().register_forward_pre_hook(lambda _, ids: shapes.append(ids[0].shape)):
        yield shapes


def _written(model: PreTrainedModel, ids: torch.Tensor, new_tokens: int, forgetful: bool = False) -> torch.Tensor:
    """Prompt and greedy continuation; if forgetful, each step but the first reads the newest token alone."""
    step, past = ids, None
    for _ in range(new_tokens):
        output = model(input_ids=step, past_key_values=past, use_cache=True)
        step = output.logits[:, -1:].argmax(dim=-1)
        past = None if forgetful else output.past_key_values
        ids = torch.cat([ids, step], dim=1)
    return ids.cpu()


def _not_greedy(found: torch.Tensor, _, ids: torch.Tensor, __) -> str:
    kept = torch.equal(found[:, :ids.shape[1]], ids.cpu())
    return "the new tokens are not the most probable ones" if kept else "the prompt is changed"


EXERCISES = {
    "next_label": by_value(
        ("The model reads from left to right. At each token it guesses one token that it has not read yet.",
         "The label is the token that stands one place further to the right.",
         "Put a finger on 'beach' in the sentence, and read the word after it."),
        lambda **_: "is", minutes=2, difficulty=1, read=lambda answer: string(answer).strip(), mistakes={
            "the model has just read this token, so it would only have to copy it": lambda **_: "beach",
            "that token stands on the left, and the model has read it already": lambda **_: "the",
        }, otherwise=lambda *_, **__: "that is not the token of this text that is to be predicted there"),
    "next_id": by_cases(
        ("logits[0] are the logits of the one text, a row for each place. Which place tells what comes after the text?",
         "The last place is logits[0, -1]: one logit for each entry of the vocabulary.",
         "argmax gives the place of the largest number in a tensor, and here this place is the id."),
        lambda logits: int(logits[0, -1].argmax()), "logits", [(draw(1, 3, 11, seed=seed),) for seed in (1, 2, 4)],
        minutes=3, difficulty=1, read=whole, otherwise="that is not the id of the most probable next token", mistakes={
            "that is what the model expects after the first token, not after the last one":
                lambda logits: int(logits[0, 0].argmax()),
            "that is a place in all logits of the text, one row after the other": lambda logits: int(logits.argmax()),
            "that is the largest logit itself, not the id of its token": lambda logits: logits[0, -1].max().item(),
        }),
    "sure_prompt": Exercise(
        _sure_prompt,
        ("Begin something that can hardly go on in another way.",
         "Lists that everyone knows work well, and so do texts that repeat themselves.",
         "Write the months in order, twice, and stop after a comma in the second round."),
        minutes=5, difficulty=1),
    "top_k": by_cases(
        ("Which logit is the last one to stay?",
         "logits.topk(k).values are the k best logits, in falling order. Compare all logits with the last one of them.",
         "masked_fill writes a new tensor: give it the comparison (smaller than the k-th best), and a number whose "
         "exponential is 0."),
        _best_kept, "logits k", [(draw(7), 3), (draw(7, seed=1), 1), (draw(5, seed=2) - 10, 2), (draw(4, seed=3), 4)],
        read=with_infinities, otherwise=_no_top_k, mistakes={
            "the other logits are 0, but a logit of 0 still gives a probability":
                lambda logits, k: _best_kept(logits, k, 0.0),
            "only the kept logits are left, without the places that tell their tokens":
                lambda logits, k: logits.topk(k).values,
            "these are probabilities, not logits": lambda logits, k: _best_kept(logits, k).softmax(dim=-1),
        }, without=("filter_logits",), minutes=10, difficulty=2),
    "loss": by_cases(
        ("Write down for a text of three tokens which row of the logits predicts which token. How many such pairs are "
         "there?",
         "The last row of the logits predicts a token that is not in the text, and no row predicts the first token.",
         "Pair the rows logits[0, :-1] with the tokens ids[0, 1:], look up one log-probability in each row, and take "
         "minus their mean."),
        lambda *given: _next_token_losses(*given).mean().item(), "logits ids",
        [(draw(1, len(ids), 13, seed=len(ids)), torch.tensor([ids])) for ids in (
            [3, 7, 7, 12, 0, 5], [9, 1, 4, 8], [2, 11])],
        read=real, otherwise="that is not the loss of the next tokens", mistakes=loss_errors(_next_token_losses) | {
            "each place is compared with its own token, which the model has read":
                lambda logits, ids: cross_entropy(logits[0], ids[0]).item(),
            "the shift goes the wrong way, to the token before":
                lambda logits, ids: cross_entropy(logits[0, 1:], ids[0, :-1]).item(),
            "the sum is divided by the number of tokens, but it has fewer terms":
                lambda logits, ids: _next_token_losses(logits, ids).sum().item() / ids.shape[1],
            "the softmax is taken over the places, not over the vocabulary": lambda logits, ids: (
                -logits[0, :-1].log_softmax(dim=0).gather(1, ids[0, 1:, None]).mean().item()),
        }, minutes=10, difficulty=2),
    "sample": Exercise(
        _sample,
        ("Two things have to happen: the logits become probabilities, and one token is drawn with them.",
         "A low temperature makes large logits stand out more, so it has to act before the softmax. Which operation "
         "does that?",
         "Divide the logits by the temperature, take the softmax, and call torch.multinomial with your generator, for "
         "one number."),
        minutes=10, difficulty=2),
    "cached_greedy": Exercise(
        _cached_greedy,
        ("Write the loop without a cache first: feed all ids, take the argmax of the last logits, append it.",
         "Call the model with use_cache=True. Its output has past_key_values: the next call takes them, and then the "
         "model needs the newest token only.",
         "Keep three variables: all ids so far, what is fed next, and the cache. Each round ends with setting all "
         "three; in the first one the cache is None."),
        minutes=20, difficulty=3),
}
