"""Losses of predictions that count, against fractions by hand and dictionaries in plain Python."""

import math
import random
import tracemalloc
from collections import Counter
from itertools import pairwise

import pytest
import torch

from llm_tutorial.baselines import bigram_loss, uniform_loss, unigram_loss

TRAIN = [[0, 1, 0, 1], [0, 2]]  # predicted: 1, 0, 1 and 2; pairs: 01, 10, 01 and 02


def test_uniform_loss_is_that_of_equal_choices():
    assert uniform_loss(8) == pytest.approx(3 * math.log(2))
    assert uniform_loss(1) == 0


def test_losses_by_hand():
    # Of 4 predicted tokens and 4 entries: 0 has (1 + 1) / 8, 1 has (2 + 1) / 8, 2 has (1 + 1) / 8, 3 has 1 / 8.
    assert unigram_loss(TRAIN, [[3, 1]], 4) == pytest.approx(-math.log(3 / 8))
    assert unigram_loss(TRAIN, [[3, 1, 0], [0, 3]], 4) == pytest.approx(-math.log(3 / 8 * 2 / 8 * 1 / 8) / 3)
    # 0 is followed 3 times, twice by 1 and never by 3; 3 is never followed, so that the prior decides.
    assert bigram_loss(TRAIN, [[0, 1]], 4) == pytest.approx(-math.log((2 + 3 / 8) / (3 + 1)))
    assert bigram_loss(TRAIN, [[0, 3]], 4, prior=2) == pytest.approx(-math.log((0 + 2 / 8) / (3 + 2)))
    assert bigram_loss(TRAIN, [[3, 1]], 4) == pytest.approx(-math.log(3 / 8))
    assert bigram_loss(TRAIN, [[0, 1, 0], [3, 1]], 4) == pytest.approx(
        -math.log((2 + 3 / 8) / 4 * (1 + 2 / 8) / 2 * 3 / 8) / 3)


def plain_losses(train, chunks, vocabulary, prior):
    """Unigram and bigram loss from dictionaries."""
    tokens, pairs, contexts = Counter(), Counter(), Counter()
    for row in train:
        tokens.update(row[1:])
        contexts.update(row[:-1])
        pairs.update(pairwise(row))
    total = sum(tokens.values()) + vocabulary
    unigram = {token: (tokens[token] + 1) / total for token in range(vocabulary)}
    predicted = [pair for row in chunks for pair in pairwise(row)]
    return (math.fsum(-math.log(unigram[token]) for _, token in predicted) / len(predicted),
            math.fsum(-math.log((pairs[context, token] + prior * unigram[token]) / (contexts[context] + prior))
                      for context, token in predicted) / len(predicted))


@pytest.mark.parametrize("vocabulary", [1, 3, 40])
@pytest.mark.parametrize("prior", [0.01, 1, 30])
@pytest.mark.parametrize("lengths", [range(2, 9), [5]])
def test_losses_are_those_of_dictionaries(vocabulary, prior, lengths):
    draw = random.Random(0)
    for _ in range(20):
        train, chunks = ([draw.choices(range(vocabulary), k=draw.choice(lengths)) for _ in range(draw.randrange(1, 9))]
                         for _ in range(2))
        unigram, bigram = plain_losses(train, chunks, vocabulary, prior)
        assert unigram_loss(train, chunks, vocabulary) == pytest.approx(unigram, rel=1e-12, abs=1e-12)
        assert bigram_loss(train, chunks, vocabulary, prior) == pytest.approx(bigram, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("context", [0, 1, 2, 3])
def test_probabilities_after_each_token_sum_to_one(context):
    def total(loss, *prior):
        return math.fsum(math.exp(-loss(TRAIN, [[context, token]], 4, *prior)) for token in range(4))

    assert total(unigram_loss) == pytest.approx(1)
    for prior in (0.1, 1, 10):
        assert total(bigram_loss, prior) == pytest.approx(1)


def test_a_strong_prior_is_the_unigram_distribution():
    assert bigram_loss(TRAIN, TRAIN, 4, prior=1e12) == pytest.approx(unigram_loss(TRAIN, TRAIN, 4))


def test_tensors_are_rows_too():
    rows = torch.tensor([[0, 1, 2], [2, 1, 0]])
    assert bigram_loss(rows, rows, 3) == bigram_loss(rows.tolist(), rows.tolist(), 3)


def test_a_large_vocabulary_takes_little_memory():
    vocabulary = 50_257
    draw = random.Random(0)
    train, chunks = ([draw.choices(range(vocabulary), k=128) for _ in range(250)] for _ in range(2))
    tracemalloc.start()
    loss = bigram_loss(train, chunks, vocabulary)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # bytes; a table of all pairs would take 10**10
    # Hardly a pair comes twice, so that only the pairs' first tokens and the unigram counts matter.
    assert loss == pytest.approx(plain_losses(train, chunks, vocabulary, 1.0)[1], rel=1e-12)


def test_pairs_whose_codes_differ_by_32_bits_are_two():
    # The code of (2**15, 0) is 2**15 * 2**17 + 0 = 2**32, that of (0, 0) is 0.
    assert bigram_loss([[0, 0]], [[2**15, 0]], 2**17) == pytest.approx(-math.log(2 / (1 + 2**17)))


@pytest.mark.parametrize(("train", "chunks", "message"), [
    ([], TRAIN, "train has no rows: give at least one"),
    (TRAIN, [], "chunks has no rows"),
    ([[0, 1], [2]], TRAIN, r"Rows \[1\] of train have fewer than 2 tokens, so none follows another: leave them out"),
    (TRAIN, [[], [0, 1]], r"Rows \[0\] of chunks have fewer"),
    ([[0, 1, 4]], TRAIN, "train has token ids from 0 to 4, but vocabulary=4 allows 0 to 3: give the vocabulary of"),
    ([[4, 1, 1]], TRAIN, "train has token ids from 1 to 4"),
    (TRAIN, [[0, -100]], "chunks has token ids from -100 to 0"),
])
@pytest.mark.parametrize("loss", [unigram_loss, bigram_loss])
def test_bad_rows_are_named_with_a_remedy(loss, train, chunks, message):
    with pytest.raises(ValueError, match=message):
        loss(train, chunks, 4)


@pytest.mark.parametrize("prior", [0, -1, math.nan, math.inf])
def test_a_prior_that_is_none_is_named(prior):
    with pytest.raises(ValueError, match=f"prior={prior} must be a number above 0: without it, a new pair would"):
        bigram_loss(TRAIN, TRAIN, 4, prior)


@pytest.mark.parametrize("vocabulary", [0, -3])
def test_an_empty_vocabulary_is_named(vocabulary):
    with pytest.raises(ValueError, match=f"vocabulary={vocabulary} must be at least 1"):
        uniform_loss(vocabulary)
    with pytest.raises(ValueError, match=f"vocabulary={vocabulary} must be at least 1"):
        unigram_loss(TRAIN, TRAIN, vocabulary)
