"""Measure what a language model knows and what it has learnt by heart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

__all__ = ["Recitation", "bits_per_byte", "perplexity", "recitation"]


@dataclass(frozen=True)
class Recitation:
    """How well a model continues texts it may have seen.

    Attributes:
        token_accuracy: share of continuation tokens that equal the text's, from 0 to 1.
        exact_match: share of continuations that equal the text's in every token, from 0 to 1.
    """

    token_accuracy: float
    exact_match: float


def perplexity(loss: float) -> float:
    """Return e to the mean cross-entropy ``loss`` in nats per token: as unsure as among so many equal choices.

    Raises:
        ValueError: the loss is negative or not a number.
    """
    if not loss >= 0:
        raise ValueError(f"loss={loss} is no cross-entropy: it must be 0 or more.")
    return math.exp(loss) if loss < 700 else math.inf


def bits_per_byte(loss: float, tokens: int, text_bytes: int) -> float:
    """Return the information per byte of text, which compares models with different tokenizers.

    Args:
        loss: mean cross-entropy in nats per token.
        tokens: number of tokens the mean was taken over.
        text_bytes: length in UTF-8 bytes of the text that those tokens stand for.

    Raises:
        ValueError: the loss is negative or not a number, or a count is not positive.
    """
    if not loss >= 0 or tokens < 1 or text_bytes < 1:
        raise ValueError(f"loss={loss}, tokens={tokens}, text_bytes={text_bytes}: the loss must be 0 or more, "
                         "the counts 1 or more.")
    return loss / math.log(2) * tokens / text_bytes


def recitation(
    model: PreTrainedModel,
    chunks: Sequence[Sequence[int]],
    prompt: int = 16,
    continuation: int = 16,
    batch_size: int = 64,
) -> Recitation:
    """Give the model the first ``prompt`` tokens of each chunk and compare its greedy continuation with the text.

    Extractable memorisation as in Carlini et al. 2023 (https://arxiv.org/abs/2202.07646), here with short prompts.

    Args:
        chunks: token ids; every chunk has at least ``prompt + continuation`` of them.

    Raises:
        ValueError: no chunks, lengths below 1, a chunk too short, or more tokens than the model has positions.
    """
    needed = prompt + continuation
    if prompt < 1 or continuation < 1 or batch_size < 1:
        raise ValueError(f"prompt={prompt}, continuation={continuation}, batch_size={batch_size}: all must be >= 1.")
    if len(chunks) == 0:
        raise ValueError("There is no chunk to recite: give at least one.")
    shortest = min(map(len, chunks))
    if shortest < needed:
        raise ValueError(f"A chunk has {shortest} tokens, but prompt + continuation = {needed} are needed: ask for "
                         "fewer, or give longer chunks.")
    if needed > model.config.max_position_embeddings:
        raise ValueError(f"prompt + continuation = {needed} tokens, but the model has "
                         f"{model.config.max_position_embeddings} positions: ask for fewer.")
    rows = torch.tensor([list(chunk[:needed]) for chunk in chunks])
    training = model.training
    model.eval()
    hits = torch.cat([_continuation_hits(model, batch, prompt) for batch in rows.split(batch_size)])
    model.train(training)
    return Recitation(hits.float().mean().item(), hits.all(dim=1).float().mean().item())


@torch.no_grad()
def _continuation_hits(model: PreTrainedModel, rows: torch.Tensor, prompt: int) -> torch.Tensor:
    """Booleans of shape (rows, continuation): where the greedy continuation equals the text."""
    prompts = rows[:, :prompt].to(model.device)
    length = rows.shape[1] - prompt
    output = model.generate(
        input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=False,
        max_new_tokens=length, min_new_tokens=length, pad_token_id=model.config.eos_token_id)
    return output[:, prompt:].cpu() == rows[:, prompt:]
