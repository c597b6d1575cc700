"""Exercises on pre-training; they need nothing from the notebook."""

# ruff: noqa: ARG005  (what stands for a mistake takes all arguments of an answer)

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from llm_tutorial.exercises.answers import compare, draw, number, show, tensor
from llm_tutorial.exercises.checking import Exercise, Fault

__all__ = ["EXERCISES"]


def _chunks(answer, **_) -> str | None:
    cases = [(list(range(10, 20)), 3), (list(range(30, 36)), 3), ([5, 6, 7], 1), ([8, 9], 5), ([], 4)]
    return compare(
        answer, _full_chunks, cases, read=_rows, given=lambda ids, length: f"For ids = {ids} and length = {length}",
        mistakes=_CHUNKS_MISTAKES, otherwise=_no_chunks)


def _full_chunks(ids: list[int], length: int) -> list[list[int]]:
    return [chunk for chunk in _pieces(ids, length) if len(chunk) == length]


def _pieces(ids: list[int], length: int) -> list[list[int]]:
    return [ids[start:start + length] for start in range(0, len(ids), length)]


def _rows(value: Any) -> list[list]:
    if isinstance(value, torch.Tensor | np.ndarray):
        value = value.tolist()
    if isinstance(value, str | dict) or not isinstance(value, Sequence | Iterator):
        raise Fault(f"Your function returns {show(value)}, but a list of chunks is needed.")
    rows = [row.tolist() if isinstance(row, torch.Tensor | np.ndarray) else row for row in value]
    if any(not isinstance(row, list | tuple) for row in rows):
        raise Fault(f"Your function returns {show(rows)}: that is a list of single values or numbers, not of chunks.")
    return [list(row) for row in rows]


_CHUNKS_MISTAKES = {
    "the short rest is still there": _pieces,
    "the chunks overlap": lambda ids, length: [ids[at:at + length] for at in range(len(ids) - length + 1)],
    "the last chunk is missing, although it is full":
        lambda ids, length: [ids[at:at + length] for at in range(0, len(ids) - length, length)],
    "only the first chunk is there": lambda ids, length: _full_chunks(ids, length)[:1],
}


def _no_chunks(found: list[list], ids: list[int], length: int) -> str:
    pieces = _pieces(ids, length)
    if len(found) == len(pieces) and all(
            len(row) == length and row[:len(piece)] == piece for row, piece in zip(found, pieces, strict=True)):
        return "the short rest is filled up, though nothing was there to fill it with"
    return "those are not the chunks"


def _steps(answer, **_) -> str | None:
    return compare(
        answer, _all_steps, [(10, 4, 3), (200, 8, 2), (7, 8, 5), (9, 2, 4), (17, 4, 1)], read=number,
        given=lambda chunks, batch, epochs: f"For {chunks} chunks, batches of {batch} and epochs = {epochs}",
        mistakes=_STEPS_MISTAKES, otherwise=lambda *_: "that is not the number of steps")


def _all_steps(chunks: int, batch: int, epochs: int) -> int:
    return math.ceil(chunks / batch) * epochs


_STEPS_MISTAKES = {
    "the smaller batch at the end of each epoch does not count": lambda chunks, batch, epochs: chunks // batch * epochs,
    "batches reach across the end of an epoch":
        lambda chunks, batch, epochs: math.ceil(chunks * epochs / batch),
    "batches reach across the end of an epoch, and a smaller one does not count":
        lambda chunks, batch, epochs: chunks * epochs // batch,
    "those are the steps of one epoch": lambda chunks, batch, epochs: math.ceil(chunks / batch),
    "the number is right, but it is a float, and steps are counted": lambda *given: float(_all_steps(*given)),
    "there are no parts of steps": lambda chunks, batch, epochs: chunks / batch * epochs,
    "that is the number of chunks that are read": lambda chunks, batch, epochs: chunks * epochs,
    "one step too many is counted when all batches are full":
        lambda chunks, batch, epochs: (chunks // batch + 1) * epochs,
}


def _bits_per_byte(answer, **_) -> str | None:
    cases = [(2.0, 5, "Life is like a box."), (3.5, 7, "naïve café, 10 €"), (1.2, 9, "東京 🗼")]
    return compare(
        answer, _bits_of, cases, read=lambda value: float(number(value)),
        given=lambda loss, tokens, text: f"For the loss {loss}, {tokens} tokens and the text {text!r}",
        mistakes=_BITS_MISTAKES, otherwise=lambda *_: "that is not the bits per byte")


def _bits_of(loss: float, tokens: int, text: str) -> float:
    return loss / math.log(2) * tokens / len(text.encode())


_BITS_MISTAKES = {
    "the characters are counted, not the bytes": lambda loss, tokens, text: loss / math.log(2) * tokens / len(text),
    "it still is in nats": lambda loss, tokens, text: loss * tokens / len(text.encode()),
    "those are the bits per token": lambda loss, *_: loss / math.log(2),
    "those are decimal digits, not bits": lambda loss, tokens, text: loss / math.log(10) * tokens / len(text.encode()),
    "a decimal logarithm is used, but the loss comes from the natural one":
        lambda loss, tokens, text: loss / math.log10(2) * tokens / len(text.encode()),
    "that would turn bits into nats": lambda loss, tokens, text: loss * math.log(2) * tokens / len(text.encode()),
    "those are the bits of the whole text": lambda loss, tokens, _: loss / math.log(2) * tokens,
    "tokens and bytes stand upside down": lambda loss, tokens, text: loss / math.log(2) * len(text.encode()) / tokens,
    "the bits of one token are shared among the bytes of all":
        lambda loss, tokens, text: loss / math.log(2) / len(text.encode()),
}


def _parameters(answer, **_) -> str | None:
    return compare(
        answer, _by_the_library, [(1000, 64, 32, 3), (50257, 1024, 768, 12), (7, 5, 4, 1)], read=_whole,
        given=lambda vocabulary, positions, width, layers:
            f"For vocabulary = {vocabulary}, positions = {positions}, width = {width} and layers = {layers}",
        mistakes=_parameters_mistakes(), otherwise=_miscounted)


@cache
def _by_the_library(vocabulary: int, positions: int, width: int, layers: int) -> int:
    config = GPT2Config(vocab_size=vocabulary, n_positions=positions, n_embd=width, n_layer=layers, n_head=1,
                        bos_token_id=None, eos_token_id=None)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return sum(parameter.numel() for parameter in GPT2LMHeadModel(config).parameters())


def _whole(value: Any) -> int | float:
    found = number(value)
    return int(found) if math.isfinite(found) and found == int(found) else found


# Each with its size from (vocabulary, positions, width, layers).
_PARTS = {
    "the token embeddings": lambda v, p, d, n: v * d,
    "the position embeddings": lambda v, p, d, n: p * d,
    "the biases of the linear layers": lambda v, p, d, n: 9 * d * n,
    "the layer norms of the blocks": lambda v, p, d, n: 4 * d * n,
    "the final layer norm": lambda v, p, d, n: 2 * d,
    "all biases, those of the layer norms among them,": lambda v, p, d, n: 11 * d * n + d,
    "the weights of attention": lambda v, p, d, n: 4 * d * d * n,
    "the weights of the feed-forward layers": lambda v, p, d, n: 8 * d * d * n,
}
_TWICE = "the weights of the head are counted a second time, though the model has them only once"


def _parameters_mistakes() -> dict[str, Callable[..., int]]:
    """Up to three parts missing, the head counted twice, or both; the simplest first."""
    def wrong(missing: tuple[str, ...], twice: int) -> Callable[..., int]:
        return lambda *sizes: (_by_the_library(*sizes) + twice * _PARTS["the token embeddings"](*sizes)
                               - sum(_PARTS[part](*sizes) for part in missing))

    mistakes = {
        "all layers together count as one":
            lambda vocabulary, positions, width, _: _by_the_library(vocabulary, positions, width, 1),
        _TWICE: wrong((), 1),
    }
    for count in (1, 2, 3):
        for missing in combinations(_PARTS, count):
            clause = f"{' and '.join(missing)} {'is' if missing == ('the final layer norm',) else 'are'} missing"
            mistakes[clause] = wrong(missing, 0)
            mistakes[f"the weights of the head are counted a second time, and {clause}"] = wrong(missing, 1)
    return mistakes


def _miscounted(found: int | float, *sizes: int) -> str:
    if not isinstance(found, int):
        return "that is no number of parameters"
    difference = found - _by_the_library(*sizes)
    return f"those are {abs(difference):,} too {'many' if difference > 0 else 'few'}"


def _adamw(answer, **_) -> str | None:
    def case(seed: int, step: int, *settings, shape=(2, 2)) -> tuple:
        past = step > 1
        return (draw(*shape, seed=seed), draw(*shape, seed=seed + 1), past * draw(*shape, seed=seed + 2),
                past * draw(*shape, seed=seed + 3) ** 2, step, *settings)

    cases = [case(1, 1, 0.1, (0.9, 0.999), 0.1, 0.1), case(5, 4, 0.5, (0.8, 0.95), 0.3, 0.2, shape=(3,)),
             case(9, 2, 0.01, (0.9, 0.99), 1e-8, 1.0, shape=(4,))]
    return compare(
        answer, _stepped, cases, read=_triple, mistakes=_ADAMW_MISTAKES, otherwise=_no_adamw, shown=_first_difference,
        given=lambda *given: f"In step {given[4]}, from weight = {show(given[0])},")


def _stepped(
    weight, gradient, m, v, step, lr, betas, eps, weight_decay, *, inside=False, late=False, corrected=True,
    decoupled=True, swapped=False, squared=True, times_lr=True, later=0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step as torch.optim.AdamW makes it, or with the mistakes that are switched on."""
    one, two = betas
    if not decoupled:
        gradient = gradient + weight_decay * weight
    m = (1 - one) * m + one * gradient if swapped else one * m + (1 - one) * gradient
    v = two * v + (1 - two) * (gradient ** 2 if squared else gradient)
    step = step + later
    first, second = (torch.tensor(1 - beta ** step if corrected else 1.0) for beta in betas)
    if inside:
        update = m / first / (v / second + eps).sqrt()
    elif late:
        update = m / first * second.sqrt() / (v.sqrt() + eps)
    else:
        update = m / first / ((v / second).sqrt() + eps)
    decay = weight_decay * weight * (lr if times_lr else 1) if decoupled else 0
    return weight - lr * update - decay, m, v


def _mistaken(**options) -> Callable[..., tuple]:
    return lambda *given: _stepped(*given, **options)


def _corrected_moments(weight, gradient, m, v, step, lr, betas, *rest) -> tuple:
    new, m, v = _stepped(weight, gradient, m, v, step, lr, betas, *rest)
    return new, m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)


def _uphill(weight, gradient, m, v, step, lr, betas, eps, weight_decay) -> tuple:
    down, m, v = _stepped(weight, gradient, m, v, step, lr, betas, eps, 0.0)
    return 2 * weight - down - lr * weight_decay * weight, m, v


def _all_uphill(weight, *rest) -> tuple:
    down, m, v = _stepped(weight, *rest)
    return 2 * weight - down, m, v


def _forgotten(weight, gradient, m, v, *rest) -> tuple:
    return _stepped(weight, gradient, m, v, *rest)[0], m, v


_ADAMW_MISTAKES = {
    "your epsilon is inside the root": _mistaken(inside=True),
    "your epsilon is added before the root is corrected": _mistaken(late=True),
    "the averages start at 0, and there is no correction for it": _mistaken(corrected=False),
    "the weight decay passes through the averages, as in Adam with an L2 penalty": _mistaken(decoupled=False),
    "the steps are counted from 0, but the first step is number 1": _mistaken(later=-1),
    "the correction is one step ahead of the step's number": _mistaken(later=1),
    "beta and 1 - beta stand the wrong way round in m": _mistaken(swapped=True),
    "the gradient is not squared in v": _mistaken(squared=False),
    "the weight decay does not depend on the learning rate": _mistaken(times_lr=False),
    "the weight does not shrink by the weight decay": lambda *given: _stepped(*given[:-1], 0.0),
    "the step goes uphill, along the gradient": _uphill,
    "the step goes uphill, and the decay lets the weight grow": _all_uphill,
    "the averages that are returned are already corrected, so the next step would correct them again":
        _corrected_moments,
    "the new averages are not kept: m and v are those from before": _forgotten,
}


def _triple(value: Any) -> tuple[torch.Tensor, ...]:
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise Fault(f"Your function returns {show(value)}, but 3 tensors are needed: new_weight, new_m and new_v.")
    return tuple(_named(name, part) for name, part in zip(("new_weight", "new_m", "new_v"), value, strict=True))


def _named(name: str, part: Any) -> torch.Tensor:
    try:
        return tensor(part)
    except Fault:
        raise Fault(f"Your function returns {show(part)} as {name}, but a tensor is needed.") from None


def _differing(found: tuple, expected: tuple) -> str | None:
    """The average that differs, else the weight: a wrong average makes the weight wrong too."""
    for name, place in (("new_m", 1), ("new_v", 2), ("new_weight", 0)):
        one, other = found[place], expected[place]
        if one.shape != other.shape or not torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-6):
            return name
    return None


def _first_difference(found: tuple, expected: tuple) -> str:
    name = _differing(found, expected) or "new_weight"
    value = found[("new_weight", "new_m", "new_v").index(name)]
    return f"{name} = {show(value)}"


def _no_adamw(found: tuple, *given) -> str:
    name = _differing(found, _stepped(*given))
    place = ("new_weight", "new_m", "new_v").index(name)
    if found[place].shape != given[0].shape:
        return f"that has the shape {tuple(found[place].shape)}, the weight has the shape {tuple(given[0].shape)}"
    return f"{name} is not that of AdamW" + (", though new_m and new_v are" if name == "new_weight" else "")


EXERCISES = {
    "chunks": Exercise(
        _chunks,
        "Where does the last full chunk begin if there are 6 ids and chunks of 3, and where if there are 8?"),
    "steps": Exercise(
        _steps,
        "Write down the batches of one epoch for 10 chunks in batches of 4: the next epoch begins with a new "
        "batch."),
    "bits_per_byte": Exercise(
        _bits_per_byte,
        "First find the nats of the whole text, then their bits, and then share them among the bytes that the "
        "text takes in a file."),
    "parameters": Exercise(
        _parameters,
        "Print the names and shapes of a small model's parameters and look for the part that you count otherwise."),
    "adamw": Exercise(
        _adamw,
        "Compare line by line with Algorithm 2 of Loshchilov and Hutter, which has its own place for each of "
        "these: epsilon, the correction, the decay."),
}
