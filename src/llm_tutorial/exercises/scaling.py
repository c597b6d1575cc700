"""Exercises on training in several processes and on its costs; they need nothing from the notebook."""

# ruff: noqa: ARG005  (a mistake takes all arguments of an answer)

from __future__ import annotations

import math
from typing import Any

import torch

from llm_tutorial.exercises.answers import by_cases, draw, items, real, tensor, whole

__all__ = ["EXERCISES"]


def _every_nth(rows: int, rank: int, processes: int) -> list[int]:
    return list(range(rank, rows, processes))


def _indices(value: Any) -> list[int | float]:
    return [whole(index) for index in items(value, "row numbers")]


def _no_rows(found: list[int], rows: int, rank: int, processes: int) -> str:
    outside = [index for index in found if not 0 <= index < rows]
    if outside:
        return f"there is no row {outside[0]}"
    if sorted(found) == _every_nth(rows, rank, processes):
        return "those are the right rows, but a stream arrives in order"
    if len(found) > 1 and found == [found[0] + place for place in range(len(found))]:
        return "that is a block, and a stream does not tell where a block begins and ends"
    return "with such rows, some row would be read twice or never"


def _weighted_sum(gradients: list[torch.Tensor], tokens: list[int]) -> torch.Tensor:
    return sum(gradient * count for gradient, count in zip(gradients, tokens, strict=True))


def _hours(parameters, tokens, peak, mfu, devices, *, operations=6, seconds=3600) -> float:
    return operations * parameters * tokens / (peak * mfu * devices) / seconds


def _devices(parameters: float, memory: float, per_parameter: int = 16) -> int:
    return math.ceil(per_parameter * parameters / memory)


EXERCISES = {
    "dealt": by_cases(
        ("Row 0 goes to rank 0, and row 1 to rank 1. Who gets row 2?", "Rank 1 gets every second row, from row 1 on.",
         "A range can begin at 1 and go on in steps of 2."),
        lambda rows: _every_nth(rows, 1, 2), "rows", [(8,), (5,), (1,)],
        minutes=2, difficulty=1, read=_indices, otherwise="those are not the rows of rank 1", mistakes={
            "those are the rows of rank 0": lambda rows: _every_nth(rows, 0, 2),
            "that is the second half of the rows, but they are dealt out one by one":
                lambda rows: list(range((rows + 1) // 2, rows)),
            "rows are counted from 1": lambda rows: list(range(2, rows + 1, 2)),
        }),
    "weighted_mean": by_cases(
        ("What do the 30 tokens cost together, and what do the 10 tokens cost?", "A mean is a sum divided by a number.",
         "Add up the costs of all tokens and divide by the number of all tokens."),
        lambda one, tokens, other, more: (one * tokens + other * more) / (tokens + more), "loss_1 tokens_1 loss_2 "
        "tokens_2", [(2.0, 30, 4.0, 10), (1.0, 5, 3.0, 5), (6.0, 1, 3.0, 2)],
        minutes=3, difficulty=1, read=real, otherwise="that is not the mean loss of all tokens", mistakes={
            "both losses count alike, whatever their numbers of tokens": lambda one, _, other, __: (one + other) / 2,
            "that is a sum, not a mean": lambda one, tokens, other, more: one * tokens + other * more,
            "each loss has the other one's tokens":
                lambda one, tokens, other, more: (one * more + other * tokens) / (tokens + more),
        }),
    "rows": by_cases(
        ("Write the row numbers 0 to 9 in a line and deal them out like cards: who gets the third one?",
         "The first row of a process has the number of its rank.",
         "Use a range with three arguments: from the rank, up to the number of rows, in steps of the processes."),
        _every_nth, "rows rank processes", [(10, 1, 3), (10, 0, 3), (8, 3, 4), (5, 0, 1), (2, 2, 3)],
        minutes=5, difficulty=2, read=_indices, otherwise=_no_rows, mistakes={
            "rows are counted from 1": lambda *given: [row + 1 for row in _every_nth(*given)],
            "every process would read everything": lambda rows, *_: list(range(rows)),
            "the last round of rows is missing, because it is not a full one":
                lambda rows, rank, processes: _every_nth(rows // processes * processes, rank, processes),
        }),
    "average": by_cases(
        ("How does a mean over 40 numbers follow from the mean over 30 of them and the mean over the other 10?",
         "A mean times its number of tokens is a sum, and sums can be added.",
         "Multiply each gradient by its tokens, add up the products, and divide once by the number of all tokens."),
        lambda gradients, tokens: _weighted_sum(gradients, tokens) / sum(tokens), "gradients tokens",
        [([draw(3, seed=seed + index) for index in range(len(tokens))], tokens)
         for seed, tokens in ((1, [30, 10]), (3, [5, 5]), (5, [1, 2, 7]), (8, [4]))],
        minutes=8, difficulty=2, read=tensor, otherwise="that is not the gradient of the mean loss over all tokens",
        mistakes={
            "that is the plain mean, in which a token counts more if it shares its process with few others":
                lambda gradients, tokens: sum(gradients) / len(gradients),
            "that is a sum, which grows with the number of processes": lambda gradients, tokens: sum(gradients),
            "that is a sum over all tokens, but the loss is a mean over them": _weighted_sum,
            "each gradient is divided by its number of tokens once more, though it already is a mean":
                lambda gradients, tokens: _weighted_sum(gradients, [1 / count for count in tokens]) / len(tokens),
        }),
    "rounds": by_cases(
        ("First find how many chunks of the batch each process has, then how often it has to fill its memory.",
         "A last round with fewer chunks is a round too.",
         "Divide the batch by the processes, then by what fits, and round the result up."),
        lambda batch, processes, fits: math.ceil(batch / processes / fits), "batch processes fits",
        [(512, 8, 16), (64, 4, 16), (48, 2, 10), (8, 8, 4), (24, 1, 5)],
        minutes=5, difficulty=2, read=whole, otherwise="that is not the number of rounds", mistakes={
            "there is no fraction of a round": lambda batch, n, fits: batch / n / fits,
            "the last round, which is not full, is missing": lambda batch, n, fits: batch // n // fits,
            "that is for one process alone": lambda batch, _, fits: math.ceil(batch / fits),
            "one round too many is counted if all are full": lambda batch, n, fits: batch // n // fits + 1,
        }),
    "hours": by_cases(
        ("Operations divided by operations per second are seconds. What does one device really do in a second?",
         "The operations are 6 N D; a device reaches its peak times the utilization, and an hour has 3,600 seconds.",
         "Divide 6 times parameters times tokens by the speed of all devices together, and then by 3,600."),
        _hours, "parameters tokens peak mfu devices",
        [(124e6, 4.6e9, 65e12, 0.3, 1), (1.5e9, 3e10, 312e12, 0.4, 8), (1e6, 1e8, 1e11, 0.5, 2)],
        minutes=5, difficulty=2, read=real, without=("training_hours",),
        otherwise=lambda found, *given: f"that is {found / _hours(*given):.3g} times the right number",
        mistakes={
            "that is the forward pass only, without the backward pass": lambda *given: _hours(*given, operations=2),
            "that is in seconds": lambda *given: _hours(*given, seconds=1),
            "no device reaches its peak: the utilization is missing": lambda *given: _hours(*given[:3], 1, given[4]),
            "that is for one device alone": lambda *given: _hours(*given[:4], 1),
        }),
    "devices": by_cases(
        ("AdamW keeps two numbers beside each weight and its gradient: how many bytes do all of them take?",
         "Four numbers of four bytes per parameter are 16 bytes, and FSDP divides them among the devices.",
         "Divide the bytes of the whole training by the memory of one device, and round up."),
        _devices, "parameters memory",
        [(1.5e9, 16e9), (7e9, 80e9), (124e6, 16e9), (1e9, 4e9), (7e10, 80e9), (1.56e9, 24e9)],
        minutes=8, difficulty=3, read=whole, otherwise="that is not the number of devices", mistakes={
            "there is no fraction of a device": lambda n, memory: 16 * n / memory,
            "it is rounded down, and the model does not fit": lambda n, memory: int(16 * n // memory),
            "only the weights fit": lambda *given: _devices(*given, 4),
            "that is room for half of it, such as the weights and gradients": lambda *given: _devices(*given, 8),
            "that is room for three of the four numbers of each parameter": lambda *given: _devices(*given, 12),
            "one device too many is counted if all are full": lambda n, memory: int(16 * n // memory) + 1,
        }),
}
