"""Turn a model's logits into predictions and text, one decision at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Prediction", "best_tokens", "check_characters", "evaluating", "filter_logits", "greedy_decode", "model_inputs",
    "next_tokens", "sample_decode", "top_predictions",
]


@dataclass(frozen=True)
class Prediction:
    """One candidate: its decoded text, its index in the vocabulary, and its share of the softmax, from 0 to 1."""

    token: str
    id: int
    probability: float


def check_characters(text: str) -> None:
    """Refuse a text with half of a character, as a cut emoji leaves it: tokenizers answer it with a bare TypeError."""
    if half := re.search("[\ud800-\udfff]", text):
        raise ValueError(f"The text holds {half[0]!r}, which is half of a character: write the whole character.")


def model_inputs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, *, max_new_tokens: int = 0
) -> BatchEncoding:
    """Return the tokenizer's tensors of one text, each of shape (1, tokens), on the model's device.

    The model must be able to read ``max_new_tokens`` more.
    """
    if not text.strip():
        raise ValueError("The text is empty: give the model at least one word.")
    check_characters(text)
    inputs = tokenizer(text, return_tensors="pt", verbose=False)
    count, limit = inputs["input_ids"].shape[1], model.config.max_position_embeddings
    if count + max_new_tokens > limit:
        new = f" and {max_new_tokens} new ones" if max_new_tokens else ""
        raise ValueError(f"The text has {count} tokens{new}, but the model reads at most {limit}: shorten it.")
    return inputs.to(model.device)


def best_tokens(logits: torch.Tensor, tokenizer: PreTrainedTokenizerBase, k: int) -> list[Prediction]:
    """Return the ``k`` most probable tokens of ``logits``, floats of shape (vocabulary,), most probable first."""
    if not 1 <= k <= len(logits):
        raise ValueError(f"k={k} must be between 1 and the vocabulary size, {len(logits):,}.")
    values, indices = logits.float().softmax(dim=-1).topk(k)
    return [Prediction(tokenizer.decode([index]), index, value)
            for index, value in zip(indices.tolist(), values.tolist(), strict=True)]


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout and gradients off inside the block, and restore the model's mode after it."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def top_predictions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, k: int = 5
) -> list[list[Prediction]]:
    """Return the ``k`` most probable tokens for each mask in ``text``, most probable first.

    They come from the softmax over the logits at the masked position (Devlin et al. 2019,
    https://arxiv.org/abs/1810.04805).
    """
    if tokenizer.mask_token_id is None:
        raise ValueError(f"{type(tokenizer).__name__} has no mask token: this function needs a masked language model.")
    inputs = model_inputs(model, tokenizer, text)
    positions = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0]
    if len(positions) == 0:
        raise ValueError(f"There is no {tokenizer.mask_token} in {text!r}: put one where a word is to be predicted.")
    with evaluating(model):
        logits = model(**inputs).logits[0, positions]
    return [best_tokens(row, tokenizer, k) for row in logits]


def next_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, k: int = 5) -> list[Prediction]:
    """Return the ``k`` most probable next tokens after ``text``, most probable first."""
    inputs = model_inputs(model, tokenizer, text)
    with evaluating(model):
        logits = model(**inputs).logits[0, -1]
    return best_tokens(logits, tokenizer, k)


def greedy_decode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, max_new_tokens: int = 20
) -> torch.Tensor:
    """Continue ``text`` with the most probable token each time, as ``model.generate(do_sample=False)`` does.

    The ids of prompt and continuation are int64 of shape (1, tokens), on the CPU.
    """
    return _decode(model, tokenizer, text, max_new_tokens, lambda logits: logits.argmax(dim=-1, keepdim=True))


def sample_decode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, max_new_tokens: int = 20, *,
    generator: torch.Generator, **filters: float,
) -> torch.Tensor:
    """Continue ``text`` with tokens drawn at random from what ``filter_logits`` leaves with these ``filters``.

    The ids of prompt and continuation are int64 of shape (1, tokens), on the CPU, and so is the ``generator``.
    """
    def draw(logits: torch.Tensor) -> torch.Tensor:
        return torch.multinomial(filter_logits(logits, **filters).softmax(dim=-1), 1, generator=generator)

    return _decode(model, tokenizer, text, max_new_tokens, draw)


def filter_logits(
    logits: torch.Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
    min_p: float | None = None,
) -> torch.Tensor:
    """Return ``logits / temperature``, shape (vocabulary,), with ``-inf`` for tokens that a filter rules out.

    Top-k keeps the k best tokens (Fan et al. 2018, https://arxiv.org/abs/1805.04833); 0 keeps all. Top-p keeps the
    smallest set of best tokens whose probability reaches p (Holtzman et al. 2020, https://arxiv.org/abs/1904.09751).
    Min-p keeps those with a share ``min_p`` of the best one's (Nguyen et al. 2024, https://arxiv.org/abs/2407.01082).
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be above 0; for the most probable token use greedy_decode.")
    if top_k is not None and not 0 <= top_k <= len(logits):
        raise ValueError(f"top_k={top_k} must be between 0, for all, and the vocabulary size, {len(logits):,}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1.")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p={min_p} must be between 0 and 1.")
    logits = logits / temperature
    if top_k:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    if top_p is not None and top_p < 1:  # at 1, rounding of the running sum would rule tokens out
        ranked, order = logits.sort(descending=True)
        probabilities = ranked.softmax(dim=-1)
        # A token stays while those ranked before it have not reached p yet, so the best one always stays.
        beyond = probabilities.cumsum(dim=-1) - probabilities >= top_p
        logits = logits.masked_fill(torch.empty_like(beyond).scatter(0, order, beyond), -torch.inf)
    if min_p:
        logits = logits.masked_fill(logits < logits.max() + math.log(min_p), -torch.inf)
    return logits


def _decode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, max_new_tokens: int,
    choose: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Append the token that ``choose`` takes from the last logits (CPU, float32), up to the end-of-text token."""
    ids = model_inputs(model, tokenizer, text, max_new_tokens=max_new_tokens)["input_ids"]
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    step, past = ids, None
    with evaluating(model):
        for _ in range(max_new_tokens):
            output = model(input_ids=step, past_key_values=past, use_cache=True)
            step = choose(output.logits[0, -1].float().cpu())[None].to(ids.device)
            past = output.past_key_values
            ids = torch.cat([ids, step], dim=-1)
            if step.item() in ends:
                break
    return ids.cpu()
