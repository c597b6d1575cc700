"""Measure what a language model knows and what it has memorized."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from statistics import fmean

import torch
from transformers import PreTrainedModel

from llm_tutorial.decoding import evaluating

__all__ = [
    "Recitation", "bigram_loss", "bits_per_byte", "continuations", "longest_copies", "perplexity", "recitation",
    "recited_share", "uniform_loss", "unigram_loss",
]

BATCH = 64  # chunks that a model continues at once


@dataclass(frozen=True)
class Recitation:
    """How well a model continues texts it may have seen: shares from 0 to 1 of tokens, and of whole continuations."""

    token_accuracy: float
    exact_match: float


def perplexity(loss: float) -> float:
    """Return the number of equally likely choices with the same mean cross-entropy ``loss``, in nats per token."""
    return math.inf if loss > 700 else math.exp(loss)  # the largest float is about e ** 709


def bits_per_byte(loss: float, tokens: int, text_bytes: int) -> float:
    """Return a mean ``loss`` in nats over ``tokens``, whose text has ``text_bytes`` in UTF-8, in bits per byte.

    It compares models with different tokenizers.
    """
    return loss / math.log(2) * tokens / text_bytes


def recitation(
    model: PreTrainedModel, chunks: Sequence[Sequence[int]], prompt: int = 16, continuation: int = 16, *,
    start: int | None = 0,
) -> Recitation:
    """Give the model ``prompt`` tokens of each chunk and compare its greedy continuation with the text.

    This measures extractable memorization (Carlini et al. 2023, https://arxiv.org/abs/2202.07646), with short prompts.
    Theirs begin anywhere in a document. So does ``start=None``: it draws a place in each chunk, the same in every
    call. A number is the token of each chunk at which the prompt begins.
    """
    written = torch.tensor(continuations(model, chunks, prompt, continuation, start=start))
    hits = written == _rows(chunks, prompt, continuation, start)[:, prompt:]
    return Recitation(token_accuracy=hits.float().mean().item(), exact_match=hits.all(dim=1).float().mean().item())


def continuations(
    model: PreTrainedModel, chunks: Sequence[Sequence[int]], prompt: int = 16, continuation: int = 16, *,
    start: int | None = 0,
) -> list[list[int]]:
    """Return, for each chunk, the ``continuation`` token ids that the model writes greedily after ``prompt`` of them.

    The end-of-text token is forbidden, so that all have the same length. ``start`` is as in ``recitation``.
    """
    rows = _rows(chunks, prompt, continuation, start)
    written = []
    with evaluating(model):
        for batch in rows[:, :prompt].split(BATCH):
            prompts = batch.to(model.device)
            output = model.generate(
                input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=False,
                max_new_tokens=continuation, min_new_tokens=continuation)
            written += output[:, prompt:].tolist()
    return written


def recited_share(
    model: PreTrainedModel, chunks: Sequence[Sequence[int]], prompt: int = 16, continuation: int = 16, *,
    start: int | None = 0,
) -> float:
    """Return ``recitation(...).exact_match`` from one forward pass per batch instead of one per token.

    A greedy continuation equals the text if, given the text itself, the most probable token at every position is the
    text's next one. The two numbers may differ by ties and rounding, and where ``generation_config`` changes logits.
    """
    rows = _rows(chunks, prompt, continuation, start)
    ends = model.generation_config.eos_token_id
    ends = torch.tensor([] if ends is None else ends, dtype=torch.long, device=model.device)
    exact = []
    with evaluating(model):
        for batch in rows.to(model.device).split(BATCH):
            inputs = batch[:, :-1]  # nothing is predicted after the last token
            logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False,
                           logits_to_keep=continuation).logits
            forbidden = torch.isin(torch.arange(logits.shape[-1], device=model.device), ends)
            best = logits.masked_fill_(forbidden, -torch.inf).argmax(dim=-1)
            exact.append((best == batch[:, prompt:]).all(dim=1))
    return torch.cat(exact).float().mean().item()


def longest_copies(sequences: Sequence[Sequence[int]], source: Sequence[Sequence[int]]) -> list[int]:
    """Return, for each sequence, the length of its longest run of tokens that also occurs within one row of ``source``.

    By runs of 50 tokens or more, Lee et al. 2022 (https://arxiv.org/abs/2107.06499) find copies in generated text.
    """
    # None equals no token, so no run reaches over the end of a row.
    joined = [index for row in source for index in (*map(int, row), None)]
    matcher = SequenceMatcher(None, b=joined, autojunk=False)
    longest = []
    for sequence in sequences:
        matcher.set_seq1(list(map(int, sequence)))
        longest.append(matcher.find_longest_match().size)
    return longest


def uniform_loss(vocabulary: int) -> float:
    """Return the loss, in nats per token, of giving all ``vocabulary`` tokens the same probability: log(vocabulary)."""
    return math.log(vocabulary)


def unigram_loss(train: Sequence[Sequence[int]], chunks: Sequence[Sequence[int]], vocabulary: int) -> float:
    """Return the loss on ``chunks``, in nats per token, of predicting each token by its frequency in ``train``.

    Each of the ``vocabulary`` tokens counts once more than it occurs (Laplace's rule of succession). Counted in
    ``train`` and predicted in ``chunks`` are the tokens a causal language model predicts: all but each row's first.
    """
    probability = _unigram(_pairs(train), vocabulary)
    return -fmean(math.log(probability[following]) for _, following in _pairs(chunks))


def bigram_loss(train: Sequence[Sequence[int]], chunks: Sequence[Sequence[int]], vocabulary: int) -> float:
    """Return the loss on ``chunks``, in nats per token, of predicting each token from the one before.

    P(next | previous) = (count(previous, next) + P(next)) / (count(previous) + 1). P(next) is the prediction of
    ``unigram_loss``, and the counts are those of pairs in ``train``. This is a Dirichlet prior that weighs as much as
    one pair (MacKay and Peto 1995, https://doi.org/10.1017/S1351324900000218).
    """
    pairs = _pairs(train)
    probability = _unigram(pairs, vocabulary)
    pair_counts, counts = Counter(pairs), Counter(previous for previous, _ in pairs)
    return -fmean(
        math.log((pair_counts[previous, following] + probability[following]) / (counts[previous] + 1))
        for previous, following in _pairs(chunks))


def _rows(chunks: Sequence[Sequence[int]], prompt: int, continuation: int, start: int | None) -> torch.Tensor:
    """Token ids of shape (chunks, prompt + continuation), on the CPU."""
    needed, shortest = (start or 0) + prompt + continuation, min(map(len, chunks))
    if shortest < needed:
        raise ValueError(f"A chunk has {shortest} tokens, but {'start + ' if start else ''}prompt + continuation = "
                         f"{needed} are needed: ask for fewer, or give longer chunks.")
    length, draw = prompt + continuation, random.Random(0)
    starts = [draw.randint(0, len(chunk) - length) if start is None else start for chunk in chunks]
    return torch.tensor([list(chunk[begin:begin + length]) for begin, chunk in zip(starts, chunks, strict=True)])


def _pairs(rows: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """All pairs of a token and the next one within a row."""
    return [pair for row in rows for pair in pairwise(map(int, row))]


def _unigram(pairs: list[tuple[int, int]], vocabulary: int) -> list[float]:
    """Smoothed probabilities of all tokens as the second of a pair."""
    counts = Counter(following for _, following in pairs)
    return [(counts[index] + 1) / (len(pairs) + vocabulary) for index in range(vocabulary)]
