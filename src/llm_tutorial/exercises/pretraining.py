"""Exercises on pre-training; they need nothing from the notebook."""

# ruff: noqa: ARG005  (a mistake takes all arguments of an answer)

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import combinations, product
from typing import Any

import torch

from llm_tutorial.exercises.answers import by_cases, draw, items, real, same, show, tensor, whole
from llm_tutorial.exercises.checking import Fault

__all__ = ["EXERCISES"]


def _pieces(ids: list[int], length: int) -> list[list[int]]:
    return [ids[start:start + length] for start in range(0, len(ids), length)]


def _full_chunks(ids: list[int], length: int) -> list[list[int]]:
    return [chunk for chunk in _pieces(ids, length) if len(chunk) == length]


def _chunk_rows(value: Any) -> list[list]:
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in items(value, "chunks")]
    if any(not isinstance(row, list | tuple) for row in rows):
        raise Fault(f"Your function returns {show(rows)}: that is a list of single values, not of chunks.")
    return [list(row) for row in rows]


def _no_chunks(found: list[list], ids: list[int], length: int) -> str:
    pieces = _pieces(ids, length)
    padded = len(found) == len(pieces) and all(
        row[:len(piece)] == piece for row, piece in zip(found, pieces, strict=True))
    return "the short rest is padded, but it has to be dropped" if padded else "those are not the chunks"


def _bits_per_byte(loss: float, tokens: int, text: str) -> float:
    return loss / math.log(2) * tokens / len(text.encode())


# Each with its size from (vocabulary, positions, width, layers); together they are the whole model.
_PARTS = {
    "the token embeddings": lambda v, p, d, n: v * d,
    "the position embeddings": lambda v, p, d, n: p * d,
    "the weights of attention": lambda v, p, d, n: 4 * d * d * n,
    "the weights of the feed-forward layers": lambda v, p, d, n: 8 * d * d * n,
    "the biases of the linear layers": lambda v, p, d, n: 9 * d * n,
    "the layer norms of the blocks": lambda v, p, d, n: 4 * d * n,
    "the final layer norm": lambda v, p, d, n: 2 * d,
}


def _parameters(*sizes: int, missing: tuple[str, ...] = (), heads: int = 0) -> int:
    """The size of all parts but the missing ones, with the token embeddings a few times more."""
    return (sum(size(*sizes) for part, size in _PARTS.items() if part not in missing)
            + heads * _PARTS["the token embeddings"](*sizes))


def _parameters_mistakes() -> dict[str, Callable[..., int]]:
    """Up to three parts missing, the head counted twice, or both; the simplest first."""
    mistakes = {"it counts all layers together as one": lambda v, p, d, n: _parameters(v, p, d, 1),
                "it leaves out all biases": lambda v, p, d, n: _parameters(v, p, d, n) - 11 * d * n - d}
    for count, heads in product(range(4), (0, 1)):
        for missing in combinations(_PARTS, count):
            clauses = ["it counts the weights of the head a second time, though the model has them only once"] * heads
            clauses += [f"it leaves out {' and '.join(missing)}"] * (count > 0)
            mistakes[", and ".join(clauses)] = partial(_parameters, missing=missing, heads=heads)
    return mistakes


def _miscounted(found: int | float, *sizes: int) -> str:
    if not isinstance(found, int):
        return "that is no number of parameters"
    difference = found - _parameters(*sizes)
    return f"those are {abs(difference):,} too {'many' if difference > 0 else 'few'}"


def _step(
    weight, gradient, m, v, step, lr, betas, eps, weight_decay, *, inside=False, corrected=True, decoupled=True,
    squared=True, times_lr=True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step as torch.optim.AdamW makes it, or with the mistakes that are switched on."""
    one, two = betas
    if not decoupled:
        gradient = gradient + weight_decay * weight
    m = one * m + (1 - one) * gradient
    v = two * v + (1 - two) * (gradient ** 2 if squared else gradient)
    first, second = (m / (1 - one ** step), v / (1 - two ** step)) if corrected else (m, v)
    update = lr * first / ((second + eps).sqrt() if inside else second.sqrt() + eps)
    decay = weight_decay * weight * (lr if times_lr else 1) if decoupled else 0
    return weight - update - decay, m, v


def _corrected_moments(weight, gradient, m, v, step, lr, betas, *rest) -> tuple:
    new, m, v = _step(weight, gradient, m, v, step, lr, betas, *rest)
    return new, m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)


def _adamw_cases() -> list[tuple]:
    """The first step starts from averages of 0; epsilon is large, so that its place matters."""
    settings = [((2, 2), 1, 0.1, (0.9, 0.999), 0.1, 0.1), ((3,), 4, 0.5, (0.8, 0.95), 0.3, 0.2),
                ((4,), 2, 0.01, (0.9, 0.99), 1e-8, 1.0)]
    return [(draw(*shape, seed=seed), draw(*shape, seed=seed + 1), (step > 1) * draw(*shape, seed=seed + 2),
             (step > 1) * draw(*shape, seed=seed + 3) ** 2, step, *rest)
            for seed, (shape, step, *rest) in zip((1, 5, 9), settings, strict=True)]


def _triple(value: Any) -> tuple[torch.Tensor, ...]:
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise Fault(f"Your function returns {show(value)}, but 3 tensors are needed: new_weight, new_m and new_v.")
    return tuple(map(tensor, value))


def _no_adamw(found: tuple, *given) -> str:
    right = _step(*given)
    # A wrong average makes the weight wrong too.
    name, one, other = next((name, found[place], right[place]) for name, place in
                            (("new_m", 1), ("new_v", 2), ("new_weight", 0)) if not same(found[place], right[place]))
    if one.shape != other.shape:
        return f"the shape of {name} is {tuple(one.shape)}, but the weight has the shape {tuple(other.shape)}"
    return f"{name} is not that of AdamW" + (", though new_m and new_v are" if name == "new_weight" else "")


EXERCISES = {
    "chunks": by_cases(
        "Where does the last full chunk begin if there are 6 ids and chunks of 3, and where if there are 8?",
        _full_chunks, "ids length", [(list(range(10, 20)), 3), (list(range(30, 36)), 3), ([5, 6, 7], 1), ([8, 9], 5)],
        read=_chunk_rows, otherwise=_no_chunks, mistakes={
            "the short rest is still there": _pieces,
            "the chunks overlap": lambda ids, length: [ids[at:at + length] for at in range(len(ids) - length + 1)],
            "the last chunk is missing, although it is full":
                lambda ids, length: [ids[at:at + length] for at in range(0, len(ids) - length, length)],
            "only the first chunk is there": lambda ids, length: _full_chunks(ids, length)[:1],
        }),
    "steps": by_cases(
        "Write down the batches of one epoch for 10 chunks in batches of 4: the next epoch begins with a new batch.",
        lambda chunks, batch, epochs: math.ceil(chunks / batch) * epochs, "chunks batch epochs",
        [(10, 4, 3), (200, 8, 2), (7, 8, 5), (9, 2, 4), (17, 4, 1)],
        read=whole, otherwise="that is not the number of steps", mistakes={
            "the smaller batch at the end of each epoch does not count": lambda n, batch, epochs: n // batch * epochs,
            "batches reach across the end of an epoch": lambda n, batch, epochs: math.ceil(n * epochs / batch),
            "batches reach across the end of an epoch, and a smaller one does not count":
                lambda n, batch, epochs: n * epochs // batch,
            "those are the steps of one epoch": lambda n, batch, _: math.ceil(n / batch),
            "there is no fraction of a step": lambda n, batch, epochs: n / batch * epochs,
            "one step too many is counted if all batches are full": lambda n, batch, epochs: (n // batch + 1) * epochs,
        }),
    "bits_per_byte": by_cases(
        "First find the nats of the whole text, then their bits, and then share them among the bytes that the text "
        "takes in a file.",
        _bits_per_byte, "loss tokens text",
        [(2.0, 5, "Life is like a box."), (3.5, 7, "naïve café, 10 €"), (1.2, 9, "東京 🗼")],
        read=real, otherwise="that is not the number of bits per byte", mistakes={
            "the characters are counted, not the bytes": lambda loss, n, text: loss / math.log(2) * n / len(text),
            "it is still in nats": lambda *given: _bits_per_byte(*given) * math.log(2),
            "those are the bits per token": lambda loss, *_: loss / math.log(2),
            "a decimal logarithm is used, but the loss comes from the natural one":
                lambda *given: _bits_per_byte(*given) * math.log(10),
            "that would turn bits into nats": lambda *given: _bits_per_byte(*given) * math.log(2) ** 2,
            "those are the bits of the whole text": lambda loss, n, _: loss / math.log(2) * n,
        }),
    "parameters": by_cases(
        "Print the names and shapes of a small model's parameters and look for the part that you count otherwise.",
        _parameters, "vocabulary positions width layers", [(1000, 64, 32, 3), (50257, 1024, 768, 12), (7, 5, 4, 1)],
        read=whole, otherwise=_miscounted, mistakes=_parameters_mistakes()),
    "adamw": by_cases(
        "Compare line by line with the algorithm in the documentation of torch.optim.AdamW. Each of these has its own "
        "place there: epsilon, the correction, the decay. (In the paper, the decay has another factor.)",
        _step, "weight _ _ _ step _ _ _ _", _adamw_cases(), read=_triple, otherwise=_no_adamw, in_place=True, mistakes={
            "your epsilon is inside the root": partial(_step, inside=True),
            "the averages start at 0, and there is no correction for it": partial(_step, corrected=False),
            "the weight decay passes through the averages, as an L2 penalty does": partial(_step, decoupled=False),
            "the steps are counted from 0, but the first step is number 1":
                lambda *given: _step(*given[:4], given[4] - 1, *given[5:]),
            "the gradient is not squared in v": partial(_step, squared=False),
            "the weight decay does not depend on the learning rate": partial(_step, times_lr=False),
            "the weight does not shrink by the weight decay": lambda *given: _step(*given[:-1], 0.0),
            "the averages that are returned are already corrected, so the next step would correct them again":
                _corrected_moments,
        }),
}
