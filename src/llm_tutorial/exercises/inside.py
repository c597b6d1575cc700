"""Exercises on the inside of a transformer; they need nothing from the notebook."""

# ruff: noqa: ARG005  (a mistake takes all arguments of an answer)

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from llm_tutorial.exercises.answers import by_cases, draw, items, no_softmax, show, tensor, whole, with_infinities
from llm_tutorial.exercises.checking import Fault

__all__ = ["EXERCISES"]

_THREE_DIGITS = 6e-4  # numbers below 1 that are rounded to three digits are right
_ATTENTION = ("scaled_dot_product_attention", "multi_head_attention_forward")  # of PyTorch, with its softmax


def _weighted_sum(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return weights.double() @ values.double()


def _right_of(scores: torch.Tensor) -> torch.Tensor:
    """True where a key stands on the right of its query."""
    return torch.ones_like(scores, dtype=torch.bool).triu(1)


def _causal(scores: torch.Tensor, hidden=_right_of, ruled_out: float = -torch.inf, dim: int = -1) -> torch.Tensor:
    return scores.double().masked_fill(hidden(scores), ruled_out).softmax(dim)


def _no_causal(found: torch.Tensor, _) -> str:
    if found.isfinite().all() and found.triu(1).abs().max() > 1e-6:
        return f"there are weights on the right of a position, the largest of them {show(found.triu(1).max().item())}"
    return no_softmax(found)


def _scaled(queries: torch.Tensor, keys: torch.Tensor, factor=lambda n, d: d ** -0.5, dim: int = -1) -> torch.Tensor:
    return (queries.double() @ keys.double().T * factor(*queries.shape)).softmax(dim)


def _turned(first, second, angles, sign=1) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs of two numbers, each turned by its angle."""
    cos, sin = angles.cos(), sign * angles.sin()
    return first * cos - second * sin, second * cos + first * sin


def _angles(size: int, position: int, theta: float, power=lambda place, size: -2 * place / size) -> torch.Tensor:
    """One angle for each pair of a vector of this size."""
    return position * theta ** power(torch.arange(size // 2, dtype=torch.double), size)


def _rotate(vector: torch.Tensor, position: int, theta: float, sign: int = 1, **options: Any) -> torch.Tensor:
    first, second = vector.double().chunk(2)
    return torch.cat(_turned(first, second, _angles(len(vector), position, theta, **options), sign))


def _neighbors(vector: torch.Tensor, position: int, theta: float) -> torch.Tensor:
    """The other convention: each number is turned together with the one beside it."""
    first, second = vector.double().view(-1, 2).T
    return torch.column_stack(_turned(first, second, _angles(len(vector), position, theta))).flatten()


def _not_rotated(found: torch.Tensor, vector: torch.Tensor, *_) -> str:
    before, after = vector.norm().item(), found.double().norm().item()
    if not math.isclose(before, after, rel_tol=1e-2):
        return f"a rotation keeps the length of a vector, but this one has changed from {before:.4g} to {after:.4g}"
    return "the length is right, but that is not the vector at this position"


def _block_weights(
    hidden_size: int, heads: int, kv_heads: int, intermediate_size: int, *, outputs=1, matrices=3, norms=2,
) -> int:
    """Those of a Llama block, or with a part left out."""
    keys = hidden_size // heads * kv_heads  # numbers of one position
    return hidden_size * ((1 + outputs) * hidden_size + 2 * keys + matrices * intermediate_size + norms)


def _looks(attention: torch.Tensor, back: Callable[[int], int]) -> torch.Tensor:
    """For each head and each position of the second half, the weight of the position so many places before it."""
    n = attention.shape[-1] // 2
    rows = torch.arange(n, 2 * n)
    return attention[..., rows, rows - back(n)]


def _best(weights: torch.Tensor) -> tuple[int, int]:
    """The layer and the head that has the highest mean in the last dimension."""
    return divmod(int(weights.mean(dim=-1).argmax()), weights.shape[1])


def _copying(attention: torch.Tensor) -> tuple[int, int]:
    return _best(_looks(attention, lambda n: n - 1))


def _pair(value: Any) -> tuple:
    try:
        layer, head = map(whole, items(value, "two numbers"))
    except (Fault, ValueError):
        raise Fault(f"Your function returns {show(value)}, but two numbers are needed, layer and head.") from None
    return layer, head


def _not_copying(found: tuple, attention: torch.Tensor) -> str:
    layers, heads = attention.shape[:2]
    if not (found[0] in range(layers) and found[1] in range(heads)):
        return f"there is no such head among {layers} layers of {heads} heads"
    means = _looks(attention, lambda n: n - 1).mean(dim=-1)
    best = means.max().item()
    return f"the mean score of this head is {means[found].item():.3f}, but that of another one is {best:.3f}"


def _heads(layers: int, heads: int, n: int, seed: int) -> torch.Tensor:
    """Attention weights of a causal model in which each of eight heads looks at something of its own."""
    size = 2 * n
    attention = _causal(draw(layers, heads, size, size, seed=seed)).float()
    places = torch.randperm(layers * heads, generator=torch.Generator().manual_seed(seed)).tolist()
    looks = [  # the weight, and the position that has it
        lambda t: (0.7 * (t >= n), t - n + 1),  # the token after the earlier occurrence: the one to be found
        lambda t: (0.9 * (t >= n), t - n),  # the earlier occurrence
        lambda t: (0.9 * (t > n), t - n - 1),  # the token before it
        lambda t: (0.9, t - 1),
        lambda t: (0.9, t),
        lambda t: (0.99, 0),
        lambda t: (0.99 * (t == size - 2), t - n + 1),  # the one to be found, but once
        lambda t: (0.5 * (t >= n), t - n + 1),  # the second best
    ]
    for place, look in zip(places, looks, strict=False):
        rows = attention[divmod(place, heads)]
        for position in range(1, size):
            weight, key = look(position)
            rows[position] *= 1 - weight
            rows[position, max(key, 0)] += weight
    return attention


_HEADS = [(_heads(2, 5, 5, seed=26),), (_heads(4, 3, 4, seed=28),), (_heads(3, 4, 6, seed=114),)]

EXERCISES = {
    "weighted_sum": by_cases(
        ("Take the example with the weights 0.75 and 0.25: what is the first number of the result?",
         "Multiply each vector, a row of values, by its own weight. Then add up these rows, number by number.",
         "A loop over the weights does it. The product of a vector and a matrix does it too, with @."),
        _weighted_sum, "weights values",
        [(torch.tensor([0.75, 0.25]), torch.tensor([[4.0, 0.0], [2.0, 8.0]])),
         (torch.tensor([0.1, 0.2, 0.7]), draw(3, 4, seed=1)),
         (torch.tensor([0.5, 0.0, 0.25, 0.25]), draw(4, 2, seed=2))],
        minutes=3, difficulty=1, read=tensor, atol=_THREE_DIGITS, otherwise="that is not the weighted sum", mistakes={
            "that is the plain mean, as if all weights were equal": lambda weights, values: values.mean(dim=0),
            "the vectors are weighted, but not added up": lambda weights, values: weights[:, None] * values,
            "the sum is divided once more, but the weights already add up to 1":
                lambda weights, values: _weighted_sum(weights, values) / len(weights),
            "the weights belong to the positions, which are the rows, not to the numbers inside a vector":
                lambda weights, values: values[:, :len(weights)] @ weights[:values.shape[1]],
        }),
    "head_width": by_cases(
        ("The heads of a layer share the vector of each token: each of them gets an equal part.",
         "A vector of 6 numbers and 2 heads: each head gets 3 numbers.",
         "Divide the size of the vector by the number of heads."),
        lambda hidden_size, heads: hidden_size // heads, "hidden_size heads", [(768, 12), (96, 3), (2048, 16)],
        minutes=2, difficulty=1, read=whole, otherwise="that is not the width of a head", mistakes={
            "that is the width of all heads together": lambda hidden_size, heads: hidden_size,
            "that is a product, as if each head had a whole vector": lambda hidden_size, heads: hidden_size * heads,
        }),
    "causal_mask": by_cases(
        ("Write down for four positions which of them each one may look at. Which corner of the table stays empty?",
         "What has to stand in the scores so that the softmax gives exactly 0 there, and each row still adds up to 1?",
         "triu with diagonal=1 picks the upper triangle of a matrix of ones. Fill these places of the scores with "
         "minus infinity, and take the softmax of each row."),
        _causal, "scores",
        [(torch.tensor([[1.0, 2.0], [3.0, 1.0]]),), (draw(4, 4, seed=1),), (4 * draw(5, 5, seed=2) - 60,)],
        minutes=8, difficulty=2, read=with_infinities, atol=_THREE_DIGITS, otherwise=_no_causal, without=_ATTENTION,
        mistakes={
            "no position is hidden from another one": lambda scores: scores.softmax(dim=-1),
            "the mask comes after the softmax, so the weights of a position no longer add up to 1":
                lambda scores: scores.softmax(dim=-1).tril(),
            "each position looks to the right, and the left and the position itself are hidden from it":
                partial(_causal, hidden=lambda scores: ~_right_of(scores)),
            "each position is hidden from itself, so nothing is left for the first one":
                partial(_causal, hidden=lambda scores: ~_right_of(scores).T),
            "each position is hidden from itself, so the first one looks everywhere":
                partial(_causal, hidden=lambda scores: ~_right_of(scores).T, ruled_out=-1e9),
            "the hidden scores are 0, but e to the power of 0 is 1": partial(_causal, ruled_out=0.0),
            "each column adds up to 1, but each row has to": partial(_causal, dim=0),
            "these are still scores: the softmax is missing":
                lambda scores: scores.masked_fill(_right_of(scores), -torch.inf),
        }),
    "scale": by_cases(
        ("How many numbers do you add up in one dot product? That is the width d.",
         "queries @ keys.T gives all dot products: a row for each query, a column for each key.",
         "Divide this matrix by the square root of queries.shape[1], and take the softmax along the last dimension."),
        _scaled, "queries keys",
        [(draw(2, 3, seed=1), draw(2, 3, seed=2)), (draw(5, 2, seed=3), draw(5, 2, seed=4)),
         (draw(3, 8, seed=5), draw(3, 8, seed=6))],
        minutes=6, difficulty=2, read=with_infinities, atol=_THREE_DIGITS, otherwise=no_softmax,
        without=_ATTENTION, mistakes={
            "the dot products are not scaled": partial(_scaled, factor=lambda n, d: 1.0),
            "they are divided by the width itself, which is too much": partial(_scaled, factor=lambda n, d: 1 / d),
            "they are divided by the root of the number of positions, which is not the width":
                partial(_scaled, factor=lambda n, d: n ** -0.5),
            "each column adds up to 1, but the row of each query has to": partial(_scaled, dim=0),
            "the rows belong to the keys there, but they have to belong to the queries":
                lambda queries, keys: _scaled(keys, queries),
            "these are still scores: the softmax is missing":
                lambda queries, keys: queries @ keys.T / queries.shape[1] ** 0.5,
            "the weights themselves are divided, but the scale comes before the softmax":
                lambda queries, keys: (queries @ keys.T).softmax(dim=-1) / queries.shape[1] ** 0.5,
        }),
    "rotate": by_cases(
        ("Try a vector of two numbers: it has one pair, and the angle is the position itself. What becomes of [1, 0] "
         "at position 1?",
         "Cut the vector into its two halves. Pair number i is made of number i of each half, and i begins with 0.",
         "The new first half is first * cos - second * sin, and the new second half is second * cos + first * sin. The "
         "angles are position * theta ** (-2 * i / d)."),
        _rotate, "vector position theta",
        [(draw(4, seed=1), 2, 10000.0), (draw(6, seed=2), 5, 100.0), (draw(8, seed=3), 12, 100.0),
         (draw(2, seed=4), 3, 10000.0), (draw(4, seed=5), 0, 10000.0)],
        minutes=12, difficulty=3, read=tensor, atol=_THREE_DIGITS, otherwise=_not_rotated,
        without=("apply_rotary_pos_emb",), mistakes={
            "neighbors are paired, as some models do it, but here a pair is made of both halves": _neighbors,
            "the angles do not depend on the position": lambda vector, position, theta: _rotate(vector, 1, theta),
            "the positions are counted from 1, but at position 0 a vector has to stay as it is":
                lambda vector, position, theta: _rotate(vector, position + 1, theta),
            "the pairs turn the other way round": partial(_rotate, sign=-1),
            "the angles fall too slowly from pair to pair, by the wrong power of theta":
                partial(_rotate, power=lambda place, size: -place / size),
            "the angles grow from pair to pair, by a positive power of theta":
                partial(_rotate, power=lambda place, size: 2 * place / size),
            "theta is always 10000 there, but some models have another one":
                lambda vector, position, theta: _rotate(vector, position, 10000.0),
            "all pairs turn by the same angle": partial(_rotate, power=lambda place, size: 0 * place),
        }),
    "count_weights": by_cases(
        ("Make a list of the nine parts of the block. Which shape does each of them have?",
         "The query and the output matrix have hidden_size times hidden_size weights. How many numbers do all key "
         "heads have together?",
         "The key matrix has hidden_size times kv_heads times the width of a head, and so has the value matrix. Three "
         "matrices of the feed-forward part and two norms are left."),
        _block_weights, "hidden_size heads kv_heads intermediate_size",
        [(8, 4, 2, 16), (576, 9, 3, 1536), (64, 4, 4, 160), (4096, 32, 8, 14336)],
        minutes=10, difficulty=2, read=whole,
        otherwise=lambda found, *sizes: f"its difference from the right number is {found - _block_weights(*sizes):+,}",
        mistakes={
            "each head has keys and values of its own there, but several heads share them":
                lambda hidden, heads, _, inner: _block_weights(hidden, heads, heads, inner),
            "the feed-forward part has two matrices there, but SwiGLU has one more":
                partial(_block_weights, matrices=2),
            "that is a block with the attention and the feed-forward part of GPT-2":
                lambda hidden, heads, _, inner: _block_weights(hidden, heads, heads, inner, matrices=2),
            "the norms are left out": partial(_block_weights, norms=0),
            "one norm is left out": partial(_block_weights, norms=1),
            "the output matrix of the attention is left out": partial(_block_weights, outputs=0),
        }),
    "copying_head": by_cases(
        ("Write down A B C D A B C D with positions from 0. At which position does a copying head look from the second "
         "B, number 5?",
         "The earlier occurrence is n positions back, and the token after it is n - 1 positions back.",
         "For each head, take the mean of the weights in row t and column t - n + 1, for t from n to the end. Then "
         "look for the largest of these means."),
        _copying, "attention", _HEADS,
        minutes=12, difficulty=3, read=_pair, otherwise=_not_copying,
        mistakes={
            "the two numbers are in the wrong order: the layer comes first":
                lambda attention: _copying(attention)[::-1],
            "layers and heads are counted from 0": lambda attention: tuple(1 + place for place in _copying(attention)),
            "that head looks at the earlier occurrence itself, not at the token after it":
                lambda attention: _best(_looks(attention, lambda n: n)),
            "that head looks at the token before the earlier occurrence, not at the one after it":
                lambda attention: _best(_looks(attention, lambda n: n + 1)),
            "rows and columns are swapped: the row is the position that looks":
                lambda attention: _best(_looks(attention.mT, lambda n: n - 1)),
        }),
}
