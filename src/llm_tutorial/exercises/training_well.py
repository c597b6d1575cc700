"""Exercises on optimizers, schedules and scaling laws; they need nothing from the notebook."""

# ruff: noqa: ARG005  (a mistake takes all arguments of an answer)

from __future__ import annotations

import math
from functools import partial
from itertools import permutations
from typing import Any

import torch

from llm_tutorial.exercises.answers import by_cases, draw, real, same, show, tensor, whole
from llm_tutorial.exercises.checking import Fault
from llm_tutorial.exercises.pretraining import chunk_rows, full_chunks, pieces
from llm_tutorial.optimizers import POLAR_EXPRESS

__all__ = ["EXERCISES"]


def _muon_weights(shapes: dict, blocks: bool = True, matrices: bool = True, size=math.prod) -> int:
    return sum(size(shape) for name, shape in shapes.items()
               if (".h." in name or not blocks) and (len(shape) == 2 or not matrices))


def _step(
    weight, gradient, m, v, step, lr, betas, eps, weight_decay, *, inside=False, corrected=True, decoupled=True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step as torch.optim.AdamW makes it, or with the mistakes that are switched on."""
    one, two = betas
    if not decoupled:
        gradient = gradient + weight_decay * weight
    m = one * m + (1 - one) * gradient
    v = two * v + (1 - two) * gradient ** 2
    first, second = (m / (1 - one ** step), v / (1 - two ** step)) if corrected else (m, v)
    update = lr * first / ((second + eps).sqrt() if inside else second.sqrt() + eps)
    decay = lr * weight_decay * weight if decoupled else 0
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
    if any(same(found, other) for other in permutations(right)):
        return "the three tensors are right, but new_weight, new_m and new_v are needed in this order"
    parts = zip(("new_weight", "new_m", "new_v"), found, right, strict=True)
    wrong = [f"{name} (yours has the shape {tuple(one.shape)})" for name, one, other in parts if not same(one, other)]
    return f"AdamW has another {' and another '.join(wrong)}"


def _orthogonal(x: torch.Tensor, coefficients, *, norm=torch.Tensor.norm, again=True, power=torch.matmul):
    """The iteration, or with another norm, always with the first X X^T, or with another square of it."""
    x = x / norm(x)
    first = x @ x.T
    for a, b, c in coefficients:
        gram = x @ x.T if again else first
        x = a * x + (b * gram + c * power(gram, gram)) @ x
    return x


def _rate(step, steps, warmup, peak, fall=lambda step, steps, warmup: (steps - step) / (steps - warmup)) -> float:
    return float(peak * (step / warmup if step < warmup else fall(step, steps, warmup)))


def _exponent(one: tuple, other: tuple, across=math.log, up=math.log) -> float:
    return (up(one[1]) - up(other[1])) / (across(other[0]) - across(one[0]))


EXERCISES = {
    "muon_weights": by_cases(
        ("Which names stand for something inside a block, and which of those are matrices?",
         "Look for .h. in the name and for two numbers in the shape; a matrix has rows times columns weights.",
         "Go through the items of the dictionary, keep those with both signs, and add up rows times columns."),
        _muon_weights, "shapes", [
            ({"transformer.wte.weight": (9, 2), "transformer.h.0.ln_1.weight": (2,), "transformer.h.0.mlp.c_fc.weight":
              (2, 8)},),
            ({"transformer.h.11.attn.c_attn.weight": (2, 6), "transformer.h.11.attn.c_attn.bias": (6,),
              "transformer.h.11.mlp.c_proj.weight": (8, 2), "lm_head.weight": (9, 2)},)],
        minutes=5, difficulty=1, read=whole, otherwise="that is not the number of weights that Muon trains", mistakes={
            "the embeddings are counted, but they are not inside a block": partial(_muon_weights, blocks=False),
            "biases and norms are counted, but they are no matrices": partial(_muon_weights, matrices=False),
            "that is the number of matrices, not of weights": partial(_muon_weights, size=lambda shape: 1),
            "rows and columns are added, not multiplied": partial(_muon_weights, size=sum),
        }),
    "momentum": by_cases(
        ("The formula is in the task: put the three numbers in.",
         "With beta = 0.9, nine tenths of the result come from the old mean.",
         "Multiply the old mean by beta and the gradient by what is left of 1, and add."),
        lambda mean, gradient, beta: beta * mean + (1 - beta) * gradient, "mean gradient beta",
        [(2.0, 10.0, 0.9), (0.0, 1.0, 0.75), (-1.0, 3.0, 0.5)],
        minutes=2, difficulty=1, read=real, otherwise="that is not the new mean", mistakes={
            "beta belongs to the gradient there, but it belongs to the old mean":
                lambda mean, gradient, beta: beta * gradient + (1 - beta) * mean,
            "the gradient has no factor": lambda mean, gradient, beta: beta * mean + gradient,
        }),
    "adamw": by_cases(
        ("Compare line by line with the algorithm in the documentation of torch.optim.AdamW.",
         "There are four parts: update m and v, correct both, shrink the weight, and move it by lr.",
         "Divide m by 1 minus the first beta to the power of step, and v likewise; return both undivided. The decay "
         "takes lr times weight_decay of the weight. Add epsilon after the root."),
        _step, "weight _ _ _ step _ _ _ _", _adamw_cases(), minutes=15, difficulty=3, read=_triple,
        otherwise=_no_adamw, in_place=True, without=("adam", "adamw"), mistakes={
            "your epsilon is inside the root": partial(_step, inside=True),
            "the averages start at 0, and there is no correction for it": partial(_step, corrected=False),
            "the weight decay passes through the averages, as an L2 penalty does": partial(_step, decoupled=False),
            "the weight does not shrink by the weight decay": lambda *given: _step(*given[:-1], 0.0),
            "the averages that are returned are already corrected, so the next step would correct them again":
                _corrected_moments,
        }),
    "orthogonal": by_cases(
        ("First make the matrix so small that all its singular values are below 1: divide it by its norm.",
         "Each iteration computes the square matrix x @ x.T anew, from the x that the last iteration returned.",
         "With gram = x @ x.T, add b times gram and c times gram @ gram. Multiply that by x, and add a times x."),
        _orthogonal, "matrix coefficients",
        [(draw(2, 3, seed=1), [POLAR_EXPRESS[1]]), (draw(3, 3, seed=2), list(POLAR_EXPRESS[1:])),
         (draw(2, 5, seed=3), [(3.4445, -4.775, 2.0315)] * 3)],
        minutes=12, difficulty=3, read=tensor, otherwise="that is not what these iterations give", mistakes={
            "the matrix is not divided by its norm first": partial(_orthogonal, norm=lambda x: 1.0),
            "it is divided by its largest singular value, but the norm of all its numbers is needed":
                partial(_orthogonal, norm=lambda x: torch.linalg.matrix_norm(x, 2)),
            "x @ x.T is computed once, but it changes with x": partial(_orthogonal, again=False),
            "each number of x @ x.T is squared, but the matrix itself has to be multiplied by itself":
                partial(_orthogonal, power=torch.mul),
            "only the first of the coefficients are used": lambda x, coefficients: _orthogonal(x, coefficients[:1]),
        }),
    "rate": by_cases(
        ("Draw it for 100 steps with a warm-up of 10: where is it 0, and where is it highest?",
         "Below warmup, the share of the peak is step / warmup. How many steps does the fall take after that?",
         "After the warm-up, divide the steps that are left by the steps of the whole fall, and multiply by the peak."),
        _rate, "step steps warmup peak",
        [(5, 100, 10, 0.02), (0, 100, 10, 0.02), (10, 100, 10, 0.02), (40, 100, 10, 0.02), (100, 100, 10, 0.02),
         (3, 20, 0, 1.0)], minutes=8, difficulty=2, read=real, otherwise="that is not the rate of this step", mistakes={
            "the warm-up is missing": lambda step, steps, warmup, peak: peak * (steps - step) / steps,
            "the fall is counted from step 0, but it begins after the warm-up":
                partial(_rate, fall=lambda step, steps, warmup: 1 - step / steps),
            "it does not fall after the warm-up": partial(_rate, fall=lambda *_: 1),
            "it ends too late: the warm-up is one of the steps, not in front of them":
                partial(_rate, fall=lambda step, steps, warmup: (steps + warmup - step) / steps),
        }),
    "cut": by_cases(
        ("Which id does the first chunk begin with if offset is 2?",
         "After the first ids are skipped, the rest is cut as in lesson 3.",
         "Take the slice of ids from offset on, and cut it into full chunks; what is left at the end is dropped."),
        lambda ids, length, offset: full_chunks(ids[offset:], length), "ids length offset",
        [(list(range(10, 20)), 3, 2), (list(range(10, 20)), 3, 0), (list(range(6)), 2, 1), ([7, 8, 9], 3, 1)],
        minutes=6, difficulty=2, read=chunk_rows, otherwise="those are not the chunks", mistakes={
            "the offset has no effect": lambda ids, length, offset: full_chunks(ids, length),
            "the short rest is still there": lambda ids, length, offset: pieces(ids[offset:], length),
            "whole chunks are skipped, not single ids": lambda ids, length, offset: full_chunks(ids, length)[offset:],
        }),
    "exponent": by_cases(
        ("What does the logarithm make of a product, and of a power?",
         "On logarithmic axes a power law is a straight line, and -b is its slope.",
         "Divide the fall of the logarithm of the loss by the rise of the logarithm of the parameters."),
        _exponent, "one other", [((1e6, 4.0), (1e8, 2.0)), ((10.0, 3.0), (1000.0, 2.4)), ((5e7, 3.0), (2e6, 4.2))],
        minutes=8, difficulty=2, read=real, otherwise="that is not the exponent", mistakes={
            "that is the slope, which is -b": lambda *given: -_exponent(*given),
            "that is a slope without logarithms": partial(_exponent, across=float, up=float),
            "only the parameters are on a logarithmic axis, but the loss needs one too": partial(_exponent, up=float),
            "the fraction is upside down": lambda *given: 1 / _exponent(*given),
        }),
}
