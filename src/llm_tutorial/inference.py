"""What every look at a trained model needs: checked inputs, evaluation mode, the best tokens of a row of logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Prediction", "best_tokens", "evaluating", "model_inputs"]


@dataclass(frozen=True)
class Prediction:
    """One candidate token.

    Attributes:
        token: the decoded text of the token, with the space it may begin with.
        id: its index in the vocabulary.
        probability: its share of the softmax over the whole vocabulary, from 0 to 1.
    """

    token: str
    id: int
    probability: float


def model_inputs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, *, k: int = 1, max_new_tokens: int = 0
) -> BatchEncoding:
    """Return the tokenizer's tensors of one text, each of shape (1, tokens), on the model's device.

    Args:
        k: how many candidates will be asked for.
        max_new_tokens: how many tokens will be appended.

    Raises:
        TypeError: ``text`` is no string.
        ValueError: empty text, more tokens than the model can read, or ``k`` not between 1 and the vocabulary size.
    """
    vocabulary = model.config.vocab_size
    if not 1 <= k <= vocabulary:
        raise ValueError(f"k={k} must be between 1 and the vocabulary size, {vocabulary:,}.")
    if not isinstance(text, str):
        raise TypeError(f"text is a {type(text).__name__}: pass one string at a time.")
    if not text.strip():
        raise ValueError("The text is empty: give the model at least one word.")
    inputs = tokenizer(text, return_tensors="pt", verbose=False)
    count, limit = inputs["input_ids"].shape[1], model.config.max_position_embeddings
    if count + max_new_tokens > limit:
        new = f" and {max_new_tokens} new ones" if max_new_tokens else ""
        raise ValueError(f"The text has {count} tokens{new}, but the model reads at most {limit}: shorten it.")
    return inputs.to(model.device)


def best_tokens(logits: torch.Tensor, tokenizer: PreTrainedTokenizerBase, k: int) -> list[Prediction]:
    """Return the ``k`` most probable tokens of ``logits``, floats of shape (vocabulary,), most probable first."""
    values, indices = logits.float().softmax(dim=-1).topk(k)
    return [Prediction(tokenizer.decode([index]), index, value)
            for index, value in zip(indices.tolist(), values.tolist(), strict=True)]


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, without dropout and gradients, and afterwards the mode from before."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
