"""Exercises on masked language models; they are given the notebook's ``model`` and ``tokenizer``."""

# ruff: noqa: ARG005  (what stands for a mistake takes all arguments of an answer)

from __future__ import annotations

import re

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.exercises.answers import call_guarded, call_with, compare, draw, number, show, string, tensor
from llm_tutorial.exercises.checking import Exercise, Fault
from llm_tutorial.inference import evaluating

__all__ = ["EXERCISES"]

_TEXTS = ["Life is like a box of chocolates.", "The beach is a great way to cool down.", "Text"]


def _surer(answer, *, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **_) -> str | None:
    mask = tokenizer.mask_token
    paris = f"Paris is the {mask} of France."
    text = string(answer)
    ids = tokenizer(text, verbose=False).input_ids
    masks, limit = ids.count(tokenizer.mask_token_id), model.config.max_position_embeddings
    words = len(re.findall(r"\w+", text.replace(mask, " ")))
    if masks == 0:
        wrongly_written = mask.lower() in text.lower()
        return (f"There is no {mask} in your sentence"
                f"{': it counts in capital letters only' if wrongly_written else ''}.")
    if masks > 1:
        return f"There are {masks} masks in your sentence, but exactly one is needed."
    if _letters(text) == _letters(paris):
        return "That is the Paris sentence itself: it is not surer than itself."
    if words < 2:
        count = "is only 1 word" if words == 1 else f"are only {words} words"
        return f"There {count} beside the mask: that is no sentence yet."
    if len(ids) > limit:
        return f"Your sentence has {len(ids)} tokens, but the model reads at most {limit}."
    yours, given = _choices(model, tokenizer, text), _choices(model, tokenizer, paris)
    if yours < given:
        return None
    return (f"The model hesitates between {yours:.4g} choices in your sentence, but only between {given:.4g} choices "
            "in the Paris sentence.")


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text.casefold())


def _choices(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    """Effective number of choices at the mask: e to the entropy."""
    inputs = tokenizer(text, return_tensors="pt").to(model.device)
    with evaluating(model):
        logits = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id]
    logs = logits[0].double().log_softmax(dim=-1)
    return (-(logs.exp() * logs).sum()).exp().item()


def _softmax(answer, **_) -> str | None:
    ordinary = [(draw(*shape),) for shape in [(5,), (2, 3), (3, 3), (2, 3, 4), (1,)]]
    ordinary.append((torch.tensor([0.5, -torch.inf, 1.0]),))
    large = [(torch.tensor(rows),) for rows in ([1000.0, 999, 1000], [[1000.0, 1001], [1002, 1001]], [-1000.0, -1001])]
    for cases in (ordinary, large):
        fault = compare(answer, lambda logits: logits.softmax(dim=-1), cases, read=tensor, given=_for_logits,
                        mistakes=_SOFTMAX_MISTAKES, otherwise=_no_softmax)
        if fault is not None:
            return fault
    return None


def _for_logits(logits: torch.Tensor) -> str:
    return f"For the logits {show(logits)}" if logits.numel() <= 8 else f"For logits of shape {tuple(logits.shape)}"


def _overflowing(logits: torch.Tensor) -> torch.Tensor:
    return logits.exp() / logits.exp().sum(dim=-1, keepdim=True)


_SOFTMAX_MISTAKES = {
    "the powers of e became too large a number, or all of them 0, and what was left could not be divided": _overflowing,
    "all rows together add up to 1, not each row": lambda logits: logits.flatten().softmax(dim=-1).view(logits.shape),
    "the values add up to 1 along another dimension than the last": lambda logits: logits.softmax(dim=0),
    "these are the logarithms of the probabilities": lambda logits: logits.log_softmax(dim=-1),
    "these powers of e are not divided by their sum": torch.exp,
    "the logits themselves are divided by their sum, without the exponential":
        lambda logits: logits / logits.sum(dim=-1, keepdim=True),
}


def _no_softmax(found: torch.Tensor, logits: torch.Tensor) -> str:
    if found.shape != logits.shape:
        return f"that has the shape {tuple(found.shape)}, the logits have the shape {tuple(logits.shape)}"
    if not found.isfinite().all():
        return "not all of these are finite numbers"
    sums = found.double().sum(dim=-1).flatten()
    furthest = sums[(sums - 1).abs().argmax()].item()
    if abs(furthest - 1) > 1e-3:
        return f"the values along the last dimension add up to {furthest:.4g}, not to 1"
    return "the values add up to 1, but they are not those of a softmax"


def _labels(answer, **_) -> str | None:
    mask = 103
    cases = [
        ([5, 6, 7, 8, 9], [5, mask, 7, 8, mask]),
        ([[5, 6, 7], [8, 9, 10]], [[mask, 6, 7], [8, mask, mask]]),
        ([3, 4, 5, 6], [3, 11, mask, 6]),  # 4 is replaced by another token
        ([1, 2], [1, 2]),
        ([1, 2], [mask, mask]),
    ]
    return compare(
        answer, _right_labels, [(torch.tensor(one), torch.tensor(other), mask) for one, other in cases], read=_integers,
        given=lambda original, hidden, _: f"For original_ids {original.tolist()} and masked_ids {hidden.tolist()}",
        mistakes=_LABELS_MISTAKES, otherwise=_no_labels, run=call_guarded("original_ids", "masked_ids"))


def _right_labels(original: torch.Tensor, hidden: torch.Tensor, mask: int) -> torch.Tensor:
    return torch.where(hidden == mask, original, -100)


def _integers(value) -> torch.Tensor:
    labels = tensor(value)
    if labels.dtype is not torch.int64 and labels.numel():
        raise Fault(f"Your function returns labels of type {labels.dtype}, but the loss reads torch.int64 only.")
    return labels


_LABELS_MISTAKES = {
    "where there is no mask stands 0, but 0 is the number of a token too":
        lambda original, hidden, mask: torch.where(hidden == mask, original, 0),
    "at the masks stands the mask's own number, so there is nothing to learn":
        lambda original, hidden, mask: torch.where(hidden == mask, mask, -100),
    "the labels stand everywhere but at the masks: they are the wrong way round":
        lambda original, hidden, mask: torch.where(hidden == mask, -100, original),
    "a label also stands where a token was replaced by another one than the mask":
        lambda original, hidden, mask: torch.where(hidden != original, original, -100),
    "a label stands at every place, masked or not": lambda original, *_: original,
}


def _no_labels(found: torch.Tensor, original: torch.Tensor, *_) -> str:
    if found.shape != original.shape:
        return f"that has the shape {tuple(found.shape)}, the ids have the shape {tuple(original.shape)}"
    return "these are not the hidden tokens and -100 at all other places"


def _pseudo_perplexity(answer, *, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **_) -> str | None:
    def perplexity(change, **options):
        return lambda text: change(_losses(model, tokenizer, text, **options))

    specials = f"{tokenizer.cls_token} and {tokenizer.sep_token}"
    mistakes = {
        "all tokens are hidden at once": perplexity(_exp_of_mean, hidden="all"),
        "no token is hidden from the model, so it only copies": perplexity(_exp_of_mean, hidden="none"),
        f"{specials} are hidden and counted too": perplexity(_exp_of_mean, outermost=0),
        "it comes from a sum instead of a mean": perplexity(lambda losses: losses.sum().exp().item()),
        "it is still a loss, not a number of choices": perplexity(lambda losses: losses.mean().item()),
        "the logarithms have the wrong sign": perplexity(lambda losses: (-losses.mean()).exp().item()),
    }
    with evaluating(model):
        return compare(
            answer, perplexity(_exp_of_mean), [(text,) for text in _TEXTS], read=lambda value: float(number(value)),
            given=lambda text: f"For {text!r}", mistakes=mistakes, run=call_with(model, tokenizer),
            otherwise=lambda *_: "that is not the pseudo-perplexity")


def _losses(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, hidden: str = "each", outermost: int = 1
) -> torch.Tensor:
    """Minus the log-probability of each token but the ``outermost`` ones, one row of the batch per token."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"][0].to(model.device)
    places = torch.arange(outermost, len(ids) - outermost, device=ids.device)
    rows, each = ids.repeat(len(places), 1), torch.arange(len(places), device=ids.device)
    if hidden == "each":
        rows[each, places] = tokenizer.mask_token_id
    elif hidden == "all":
        rows[:, places] = tokenizer.mask_token_id
    logits = model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits[each, places]
    return cross_entropy(logits.double(), ids[places], reduction="none")


def _exp_of_mean(losses: torch.Tensor) -> float:
    return losses.mean().exp().item()


def _two_masks(answer, **_) -> str | None:
    cases = [(3 * draw(1, len(labels), 120, seed=len(labels)), torch.tensor([labels])) for labels in (
        [-100, 4, -100, -100, 119, -100], [-100, -100, 20, 30, 7], [-100, 3, -100], [8, 9])]
    return compare(
        answer, _mean_loss, cases, read=lambda value: float(number(value)),
        given=lambda _, labels: f"For the labels {labels.tolist()}", mistakes=_TWO_MASKS_MISTAKES,
        otherwise=lambda *_: "that is not the loss of the labelled places")


def _mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return cross_entropy(logits[0], labels[0], ignore_index=-100).item()


def _labelled(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits[0], labels[0], ignore_index=-100, reduction="none")


_TWO_MASKS_MISTAKES = {
    "the sum is divided by all places, labelled or not": lambda *given: _labelled(*given).mean().item(),
    "it is a sum instead of a mean": lambda *given: _labelled(*given).sum().item(),
    "only the first labelled place counts": lambda logits, labels: _labelled(logits, labels)[labels[0] >= 0][0].item(),
    "the logarithms have the wrong sign": lambda *given: -_mean_loss(*given),
    "the label -100 is taken for a token":  # the one that Python counts from the end
        lambda logits, labels: cross_entropy(logits[0], labels[0] % logits.shape[-1]).item(),
    "the label -100 is taken for a token, number 0":
        lambda logits, labels: cross_entropy(logits[0], labels[0].clamp(min=0)).item(),
}

EXERCISES = {
    "surer": Exercise(
        _surer,
        "Think of a fixed phrase in which hardly any other word is possible, with enough words on both sides of "
        "the mask."),
    "softmax": Exercise(
        _softmax,
        "Look at the sums along the last dimension, and ask which change of all logits of a row leaves its "
        "softmax as it is."),
    "labels": Exercise(
        _labels,
        "Compare masked_ids with the mask's number: that tells for each place which of two values belongs there."),
    "pseudo_perplexity": Exercise(
        _pseudo_perplexity,
        "The model reads the text once for each of its words or pieces of words, and each time something else is "
        "hidden."),
    "two_masks": Exercise(
        _two_masks,
        "Find the rows of the logits that have a label, and look up one log-probability in each."),
}
