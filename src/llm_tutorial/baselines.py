"""What a language model's loss is compared with: predictions that count tokens and need no network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["bigram_loss", "uniform_loss", "unigram_loss"]


def uniform_loss(vocabulary: int) -> float:
    """Return the loss, in nats per token, of giving all ``vocabulary`` tokens the same probability: log(vocabulary).

    Raises:
        ValueError: ``vocabulary`` is below 1.
    """
    if vocabulary < 1:
        raise ValueError(f"vocabulary={vocabulary} must be at least 1: give the number of the tokenizer's tokens.")
    return math.log(vocabulary)


def unigram_loss(train: Sequence[Sequence[int]], chunks: Sequence[Sequence[int]], vocabulary: int) -> float:
    """Return the loss on ``chunks``, in nats per token, of predicting each token by its frequency in ``train``.

    Laplace's rule of succession: each of the ``vocabulary`` tokens counts once more than it occurs.  Counted in
    ``train`` and predicted in ``chunks`` are the tokens a causal language model predicts: all but each row's first.

    Args:
        train, chunks: rows of at least 2 token ids; may differ in length.

    Raises:
        ValueError: no rows, a row of fewer than 2 tokens, an id outside the vocabulary, or ``vocabulary`` below 1.
    """
    _, counted = _pairs(train, "train", vocabulary)
    _, predicted = _pairs(chunks, "chunks", vocabulary)
    return _mean_loss(_frequencies(counted, vocabulary)[predicted])


def bigram_loss(
    train: Sequence[Sequence[int]], chunks: Sequence[Sequence[int]], vocabulary: int, prior: float = 1.0
) -> float:
    """Return the loss on ``chunks``, in nats per token, of predicting each token from the one before.

    P(next | previous) = (count(previous, next) + prior * P(next)) / (count(previous) + prior), where P(next) is the
    prediction of ``unigram_loss`` and the counts are those of pairs in ``train``: a Dirichlet prior around the
    unigram distribution, as in MacKay and Peto 1995 (https://doi.org/10.1017/S1351324900000218).

    Args:
        train, chunks: rows of at least 2 token ids; may differ in length.
        prior: how many observed pairs the unigram distribution weighs as much as, per previous token.

    Raises:
        ValueError: as ``unigram_loss``, or ``prior`` is not a number above 0.
    """
    if not 0 < prior < math.inf:
        raise ValueError(f"prior={prior} must be a number above 0: without it, a new pair would have probability 0.")
    contexts, counted = _pairs(train, "train", vocabulary)
    previous, predicted = _pairs(chunks, "chunks", vocabulary)
    # Only pairs that occur are counted: of a table of all pairs, which may be billions, most would stay empty.
    seen, counts = np.unique(contexts * vocabulary + counted, return_counts=True)
    pairs = previous * vocabulary + predicted
    index = np.minimum(np.searchsorted(seen, pairs), len(seen) - 1)
    pair_counts = np.where(seen[index] == pairs, counts[index], 0)
    context_counts = np.bincount(contexts, minlength=vocabulary)[previous]
    unigram = _frequencies(counted, vocabulary)[predicted]
    return _mean_loss((pair_counts + prior * unigram) / (context_counts + prior))


def _pairs(rows: Sequence[Sequence[int]], name: str, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Previous and next token ids of all neighbours within a row, int64 of shape (pairs,) each."""
    uniform_loss(vocabulary)  # the same check
    if len(rows) == 0:
        raise ValueError(f"{name} has no rows: give at least one.")
    arrays = [np.asarray(row, dtype=np.int64) for row in rows]
    short = [index for index, array in enumerate(arrays) if len(array) < 2]
    if short:
        raise ValueError(f"Rows {short[:5]} of {name} have fewer than 2 tokens, so none follows another: leave them "
                         "out.")
    ids = np.concatenate(arrays)
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise ValueError(f"{name} has token ids from {ids.min()} to {ids.max()}, but vocabulary={vocabulary} allows 0 "
                         f"to {vocabulary - 1}: give the vocabulary of the tokenizer that made them.")
    return np.concatenate([array[:-1] for array in arrays]), np.concatenate([array[1:] for array in arrays])


def _frequencies(tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    """Smoothed probabilities of all tokens, floats of shape (vocabulary,)."""
    return (np.bincount(tokens, minlength=vocabulary) + 1) / (len(tokens) + vocabulary)


def _mean_loss(probabilities: np.ndarray) -> float:
    return float(-np.log(probabilities).mean())
