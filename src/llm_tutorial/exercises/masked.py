"""Exercises on masked language models; they are given the notebook's ``model`` and ``tokenizer``."""

# ruff: noqa: ARG005  (a mistake takes all arguments of an answer)

from __future__ import annotations

import re
from functools import cache

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.decoding import evaluating, model_inputs
from llm_tutorial.exercises.answers import (
    by_cases,
    by_value,
    compare,
    draw,
    loss_errors,
    no_softmax,
    real,
    string,
    tensor,
    whole,
)
from llm_tutorial.exercises.checking import Exercise, Fault

__all__ = ["EXERCISES"]

_CAT = "The cat sat on the {}."


def _place(tokenizer: PreTrainedTokenizerBase) -> int:
    return tokenizer(_CAT.format(tokenizer.mask_token))["input_ids"].index(tokenizer.mask_token_id)


def _token_of(found: int | float, tokenizer: PreTrainedTokenizerBase) -> str:
    if not isinstance(found, int) or not 0 <= found < len(tokenizer):
        return f"there is no such id, only those from 0 to {len(tokenizer) - 1}"
    return f"that is the id of {tokenizer.convert_ids_to_tokens(found)!r}"


def _surer(answer, *, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **_) -> str | None:
    text, mask = string(answer), tokenizer.mask_token
    paris = f"Paris is the {mask} of France."
    masks = tokenizer.tokenize(text).count(mask)
    if masks != 1:
        capitals = ", in capital letters" if masks == 0 and mask.lower() in text.lower() else ""
        return f"Your sentence has {masks} {mask} tokens, but exactly one is needed{capitals}."
    if _letters(text) == _letters(paris):
        return "Your sentence is the Paris sentence itself: find another one."
    words = len(re.findall(r"\w+", text.replace(mask, " ")))
    if words < 2:
        return f"Your sentence has only {words} word{'s' * (words != 1)} beside the mask: write a whole sentence."
    yours, given = (_choices(model, tokenizer, sentence) for sentence in (text, paris))
    if yours < given:
        return None
    return f"Your sentence leaves the model {yours:.4g} choices, the Paris sentence leaves it only {given:.4g} choices."


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text.casefold())


def _choices(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    """Effective number of choices at the mask: e to the entropy."""
    inputs = model_inputs(model, tokenizer, text)
    with evaluating(model):
        logits = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id]
    return torch.distributions.Categorical(logits=logits[0].double()).entropy().exp().item()


def _softmax(answer, **_) -> Fault | None:
    """Logits of ordinary size come first, so that a mistake other than the overflow is told."""
    ordinary = [draw(*shape) for shape in [(5,), (2, 3), (3, 3), (2, 3, 4), (1,)]]
    large = [torch.tensor(rows) for rows in ([1000.0, 999, 1000], [[1000.0, 1001], [1002, 1001]], [-1000.0, -1001])]
    faults = (compare(answer, lambda logits: logits.softmax(dim=-1), "logits", [(logits,) for logits in group],
                      read=tensor, mistakes=_SOFTMAX_MISTAKES, otherwise=no_softmax, atol=6e-4,
                      without=("softmax", "log_softmax", "softmin")) for group in (ordinary, large))
    return next(filter(None, faults), None)


_SOFTMAX_MISTAKES = {
    "the powers of e are too large for a float, or all 0, so their quotient is not a number":
        lambda logits: logits.exp() / logits.exp().sum(dim=-1, keepdim=True),
    "all rows together add up to 1, not each row": lambda logits: logits.flatten().softmax(dim=-1).view(logits.shape),
    "the values add up to 1 along another dimension than the last": lambda logits: logits.softmax(dim=0),
    "these powers of e are not divided by their sum": torch.exp,
}


def _integers(value) -> torch.Tensor:
    labels = tensor(value)
    if labels.is_floating_point() and labels.numel():
        raise Fault(f"Your function returns labels of type {labels.dtype}, but the loss reads whole numbers only.")
    return labels


def _pseudo_perplexity(answer, *, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **_) -> Fault | None:
    @cache
    def losses(text: str, hide=torch.eye, outermost: int = 1) -> torch.Tensor:
        return _losses(model, tokenizer, text, hide, outermost)

    def perplexity(change=lambda losses: losses.mean().exp(), **options):
        return lambda model, tokenizer, text: change(losses(text, **options)).item()

    specials = f"{tokenizer.cls_token} and {tokenizer.sep_token}"
    texts = ["Life is like a box of chocolates.", "The beach is great.", "Text."]
    with evaluating(model):
        return compare(
            answer, perplexity(), "_ _ text", [(model, tokenizer, text) for text in texts], read=real,
            otherwise="that is not the pseudo-perplexity", without=("pseudo_perplexity", "pseudo_surprisals"),
            mistakes={
                "it comes from a sum instead of a mean": perplexity(lambda losses: losses.sum().exp()),
                "it is still a loss, not a number of choices": perplexity(torch.mean),
                "that is 2 to the power of a mean in nats": perplexity(lambda losses: 2 ** losses.mean()),
                "the logarithms have the wrong sign": perplexity(lambda losses: (-losses.mean()).exp()),
                f"the sum is divided by the number of all ids, including {specials}":
                    perplexity(lambda losses: (losses.sum() / (len(losses) + 2)).exp()),
                f"{specials} are hidden and counted too": perplexity(outermost=0),
                "the last token is never hidden": perplexity(lambda losses: losses[:-1].mean().exp()),
                "no token is hidden from the model, so it only copies":
                    perplexity(hide=lambda n: torch.zeros(n, n)),
                "all tokens are hidden at once": perplexity(hide=lambda n: torch.ones(n, n)),
                "the masks pile up: a token that was hidden once stays hidden":
                    perplexity(hide=lambda n: torch.ones(n, n).tril()),
            })


def _losses(model, tokenizer, text: str, hide, outermost: int) -> torch.Tensor:
    """The loss of each token but the ``outermost`` ones; ``hide`` gives the tokens (columns) hidden for each (row)."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"][0].to(model.device)
    places = torch.arange(outermost, len(ids) - outermost, device=ids.device)
    rows = ids.repeat(len(places), 1)
    rows[:, places] = torch.where(hide(len(places)).to(ids.device) > 0, tokenizer.mask_token_id, ids[places])
    logits = model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits
    return cross_entropy(logits[torch.arange(len(places)), places].double(), ids[places], reduction="none")


def _labeled(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The losses at the places that have a label."""
    return cross_entropy(logits[labels != -100], labels[labels != -100], reduction="none")


def _over_places(logits: torch.Tensor, labels: torch.Tensor) -> float:
    labeled = labels != -100
    return -logits[labeled].log_softmax(dim=0).gather(1, labels[labeled][:, None]).mean().item()


EXERCISES = {
    "token_id": by_value(
        ("The tokenizer turns a text into ids: call it with the word, and look at input_ids.",
         "It gives three ids, because it adds a special token in front and one behind. Which of them is the word's?",
         "The answer is the number in the middle, the id at place 1 of input_ids."),
        lambda tokenizer, **_: tokenizer.convert_tokens_to_ids("beach"), minutes=2, difficulty=1, read=whole,
        mistakes={}, otherwise=lambda found, tokenizer, **_: _token_of(found, tokenizer)),
    "mask_place": by_value(
        ("Write the tokens of the sentence in a row, and a number below each. The first number is 0.",
         "The tokenizer adds a token of its own in front of the first word, so the first word has number 1.",
         "[CLS] has number 0, 'the' has number 1, 'cat' has number 2. Count on to the mask."),
        lambda tokenizer, **_: _place(tokenizer), minutes=2, difficulty=1, read=whole,
        mistakes={"the special token in front of the text has a place too":
                      lambda tokenizer, **_: _place(tokenizer) - 1,
                  "places are counted from 0": lambda tokenizer, **_: _place(tokenizer) + 1},
        otherwise=lambda found, **_: "another token stands there, or none"),
    "surer": Exercise(
        _surer,
        ("Think of a phrase that is always said with the same words.",
         "Give the model enough words on both sides of the mask, and end with a full stop: otherwise it expects one.",
         "Names of countries and titles work well: leave one word out of 'the United States of America', in a sentence."
         ),
        minutes=5, difficulty=1),
    "softmax": Exercise(
        _softmax,
        ("First write it without caring for large logits: powers of e, divided by their sum. What is the sum of each "
         "row of the result?",
         "keepdim=True lets a sum over the last dimension divide what it is the sum of. And which change of all logits "
         "of a row leaves its softmax as it is?",
         "Subtract from each row its largest logit before you take the powers of e: the largest power is then 1, and "
         "the quotients stay the same."),
        minutes=10, difficulty=2),
    "labels": by_cases(
        ("For each place there are two possible values. What decides between them?",
         "Compare masked_ids with mask_token_id: the result is a tensor of True and False, one for each place.",
         "torch.where takes such a tensor and two values: one for True, one for False. One of yours is a tensor, the "
         "other one is -100."),
        lambda original, hidden, mask: torch.where(hidden == mask, original, -100),
        "original_ids masked_ids mask_token_id",
        [(torch.tensor(original), torch.tensor(hidden), mask) for original, hidden, mask in [
            ([5, 6, 7, 8, 9], [5, 103, 7, 8, 103], 103),
            ([[5, 6, 7], [8, 9, 10]], [[4, 6, 7], [8, 4, 4]], 4),
            ([3, 4, 5, 6], [3, 11, 103, 6], 103),  # 4 is replaced by another token
            ([1, 2], [1, 2], 103),
            ([1, 2], [103, 103], 103)]],
        read=_integers, otherwise="these are not the hidden tokens with -100 at all other places", mistakes={
            "the other places have a 0, but 0 is the id of a token too":
                lambda original, hidden, mask: torch.where(hidden == mask, original, 0),
            "the masked places have the mask's own id, so there is nothing to learn":
                lambda original, hidden, mask: torch.where(hidden == mask, mask, -100),
            "every place except the masks has a label":
                lambda original, hidden, mask: torch.where(hidden == mask, -100, original),
            "a place where another token than the mask replaces the original has a label too":
                lambda original, hidden, mask: torch.where(hidden != original, original, -100),
        }, minutes=5, difficulty=2),
    "pseudo_perplexity": Exercise(
        _pseudo_perplexity,
        ("The model reads the text once for each of its tokens, and each time another one is hidden. Which places does "
         "your loop visit?",
         "In each round, start from a fresh copy of the ids, put the mask's id at one place, and keep the loss of the "
         "original token at this place.",
         "The loss is minus the log_softmax of the logits at the hidden place, looked up at the original id. The "
         "last step is e to the power of the mean."),
        minutes=15, difficulty=3),
    "two_masks": by_cases(
        ("With two hidden words there are two losses of single words. How could one number come from two?",
         "labels != -100 picks the places that count, in the labels and in the logits. Each of these rows has one "
         "label.",
         "Take log_softmax over the vocabulary, look up in each row the entry of its label (gather does it, or a "
         "loop), and take minus the mean."),
        lambda *given: _labeled(*given).mean().item(), "logits labels",
        [(3 * draw(1, len(labels), 120, seed=len(labels)), torch.tensor([labels])) for labels in (
            [-100, 4, -100, -100, 119, -100], [-100, -100, 20, 30, 7], [-100, 3, -100], [8, 9])],
        read=real, otherwise="that is not the loss of the labeled places", without=("cross_entropy", "nll_loss"),
        minutes=15, difficulty=3, mistakes=loss_errors(_labeled) | {
            "the sum is divided by all places, labeled or not":
                lambda logits, labels: _labeled(logits, labels).sum().item() / labels.numel(),
            "the label -100 is taken for a token":  # the one that Python counts from the end
                lambda logits, labels: cross_entropy(logits[0], labels[0] % logits.shape[-1]).item(),
            "the softmax is taken over the places, not over the vocabulary": _over_places,
        }),
}
