"""Exercises on training in several processes and on its costs; they need nothing from the notebook."""

# ruff: noqa: ARG005  (what stands for a mistake takes all arguments of an answer)

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np
import torch

from llm_tutorial.exercises.answers import compare, draw, number, show, tensor
from llm_tutorial.exercises.checking import Exercise, Fault

__all__ = ["EXERCISES"]


def _rows(answer, **_) -> str | None:
    return compare(
        answer, _every_nth, [(10, 1, 3), (10, 0, 3), (8, 3, 4), (5, 0, 1), (2, 2, 3)], read=_indices,
        given=lambda rows, rank, processes: f"For {rows} rows, rank = {rank} and processes = {processes}",
        mistakes=_ROWS_MISTAKES, otherwise=_no_rows)


def _every_nth(rows: int, rank: int, processes: int) -> list[int]:
    return list(range(rank, rows, processes))


def _block(rows: int, rank: int, processes: int) -> list[int]:
    """A contiguous share; the first processes get one row more where it does not come out even."""
    size, more = divmod(rows, processes)
    first = rank * size + min(rank, more)
    return list(range(first, first + size + (rank < more)))


def _indices(value: Any) -> list[int]:
    if isinstance(value, torch.Tensor | np.ndarray):
        value = value.tolist()
    if isinstance(value, str | dict) or not isinstance(value, Iterable):
        raise Fault(f"Your function returns {show(value)}, but a list of row numbers is needed.")
    found = list(value)
    if any(isinstance(index, bool) or not isinstance(index, Integral) for index in found):
        raise Fault(f"Your function returns {show(found)}, but a list of whole numbers is needed.")
    return [int(index) for index in found]


_ROWS_MISTAKES = {
    "rows are counted from 1": lambda rows, rank, processes: [row + 1 for row in _every_nth(rows, rank, processes)],
    "processes are counted from 1, but the first one has rank 0":
        lambda rows, rank, processes: [row for row in range(rows) if (row + 1) % processes == rank % processes],
    "that is a block, of which a stream knows neither the beginning nor the end": _block,
    "that is a block, and what does not divide evenly is lost":
        lambda rows, rank, processes: list(range(rank * (rows // processes), (rank + 1) * (rows // processes))),
    "every process would read everything": lambda rows, rank, processes: list(range(rows)),
    "every process would begin at row 0": lambda rows, rank, processes: list(range(0, rows, processes)),
    "every process would read everything from its rank on": lambda rows, rank, processes: list(range(rank, rows)),
    "the last round of rows is missing, because it is not a full one":
        lambda rows, rank, processes: _every_nth(rows // processes * processes, rank, processes),
}


def _no_rows(found: list[int], rows: int, rank: int, processes: int) -> str:
    outside = [index for index in found if not 0 <= index < rows]
    if outside:
        return f"there is no row {outside[0]}"
    if sorted(found) == _every_nth(rows, rank, processes):
        return "those are the rows, but a stream arrives in order"
    return "with these, other processes read a row twice, or nobody reads it"


def _average(answer, **_) -> str | None:
    def case(*tokens: int, seed: int) -> tuple[list[torch.Tensor], list[int]]:
        return [draw(3, seed=seed + index) for index in range(len(tokens))], list(tokens)

    return compare(
        answer, _weighted_mean, [case(30, 10, seed=1), case(5, 5, seed=3), case(1, 2, 7, seed=5), case(4, seed=8)],
        read=tensor, given=lambda gradients, tokens: f"For {len(tokens)} processes with {_and(tokens)} tokens",
        mistakes=_AVERAGE_MISTAKES, otherwise=_no_average)


def _and(tokens: list[int]) -> str:
    return " and ".join(map(str, tokens))


def _weighted_sum(gradients: list[torch.Tensor], tokens: list[int]) -> torch.Tensor:
    return sum(gradient * count for gradient, count in zip(gradients, tokens, strict=True))


def _weighted_mean(gradients: list[torch.Tensor], tokens: list[int]) -> torch.Tensor:
    return _weighted_sum(gradients, tokens) / sum(tokens)


_AVERAGE_MISTAKES = {
    "that is the plain mean, in which a token counts more if it shares its process with few others":
        lambda gradients, tokens: sum(gradients) / len(gradients),
    "that is a sum, which grows with the number of processes": lambda gradients, tokens: sum(gradients),
    "that is a sum over all tokens, but the loss is a mean over them": _weighted_sum,
    "the weighted sum is divided by the number of processes, not of tokens":
        lambda gradients, tokens: _weighted_sum(gradients, tokens) / len(tokens),
    "the plain sum is divided by the number of all tokens": lambda gradients, tokens: sum(gradients) / sum(tokens),
    "the gradients of the other processes are missing": lambda gradients, tokens: gradients[0],
    "each gradient is divided by its number of tokens once more, though it already is a mean":
        lambda gradients, tokens: sum(
            gradient / count for gradient, count in zip(gradients, tokens, strict=True)) / len(tokens),
}


def _no_average(found: torch.Tensor, gradients: list[torch.Tensor], _: list[int]) -> str:
    if found.shape != gradients[0].shape:
        return f"that has the shape {tuple(found.shape)}, each gradient has the shape {tuple(gradients[0].shape)}"
    return "that is not the gradient of the mean loss over all tokens"


def _rounds(answer, **_) -> str | None:
    return compare(
        answer, _fewest_rounds, [(512, 8, 16), (64, 4, 16), (48, 2, 10), (8, 8, 4), (24, 1, 5)], read=number,
        given=lambda batch, processes, fits:
            f"For a global batch of {batch}, {processes} processes and memory for {fits} chunks",
        mistakes=_ROUNDS_MISTAKES, otherwise=lambda *_: "that is not the number of rounds")


def _fewest_rounds(batch: int, processes: int, fits: int) -> int:
    return math.ceil(batch / processes / fits)


_ROUNDS_MISTAKES = {
    "the number is right, but it is a float, and rounds are counted": lambda *given: float(_fewest_rounds(*given)),
    "there are no parts of rounds": lambda batch, processes, fits: batch / processes / fits,
    "the last round, which is not full, is missing": lambda batch, processes, fits: batch // processes // fits,
    "that is for one process alone": lambda batch, processes, fits: math.ceil(batch / fits),
    "that is the share of each process in the batch": lambda batch, processes, fits: batch // processes,
    "that is the share of each process in the batch, as a float": lambda batch, processes, fits: batch / processes,
    "the batch would grow with the number of processes":
        lambda batch, processes, fits: math.ceil(batch * processes / fits),
    "one round too many is counted when all are full": lambda batch, processes, fits: batch // processes // fits + 1,
}


def _hours(answer, **_) -> str | None:
    cases = [(124e6, 4.6e9, 65e12, 0.3, 1), (1.5e9, 3e10, 312e12, 0.4, 8), (1e6, 1e8, 1e11, 0.5, 2)]
    return compare(
        answer, _hours_of, cases, read=lambda value: float(number(value)),
        given=lambda parameters, tokens, peak, mfu, devices:
            f"For N = {parameters:g}, D = {tokens:g}, {peak:g} FLOP/s, mfu = {mfu} and devices = {devices}",
        mistakes=_HOURS_MISTAKES, otherwise=_no_hours)


def _hours_of(parameters, tokens, peak, mfu, devices, *, operations=6, seconds=3600) -> float:
    return operations * parameters * tokens / (peak * mfu * devices) / seconds


_HOURS_MISTAKES = {
    "that is the way forward only, without the way back": lambda *given: _hours_of(*given, operations=2),
    "that is the way back only, without the way forward": lambda *given: _hours_of(*given, operations=4),
    "each parameter and token counts as one operation": lambda *given: _hours_of(*given, operations=1),
    "that is in seconds": lambda *given: _hours_of(*given, seconds=1),
    "that is in minutes": lambda *given: _hours_of(*given, seconds=60),
    "that is in days": lambda *given: _hours_of(*given, seconds=86400),
    "no device reaches its peak: the utilisation is missing":
        lambda n, d, peak, mfu, devices: _hours_of(n, d, peak, 1, devices),
    "a poorly used device would be the faster one":
        lambda n, d, peak, mfu, devices: _hours_of(n, d, peak, 1 / mfu, devices),
    "that is for one device alone": lambda n, d, peak, mfu, devices: _hours_of(n, d, peak, mfu, 1),
    "more devices would take longer": lambda n, d, peak, mfu, devices: _hours_of(n, d, peak, mfu, 1 / devices),
}


def _no_hours(found: float, *given) -> str:
    factor = found / _hours_of(*given) if math.isfinite(found) else found
    return f"that is {factor:.3g} times the right number"


def _devices(answer, **_) -> str | None:
    cases = [(1.5e9, 16e9), (7e9, 80e9), (124e6, 16e9), (1e9, 4e9), (7e10, 80e9)]
    return compare(
        answer, _fewest_devices, cases, read=number,
        given=lambda parameters, memory: f"For {parameters:g} parameters and {memory:g} bytes of memory",
        mistakes=_DEVICES_MISTAKES, otherwise=lambda *_: "that is not the number of devices")


def _fewest_devices(parameters: float, memory: float, per_parameter: int = 16) -> int:
    return math.ceil(per_parameter * parameters / memory)


_DEVICES_MISTAKES = {
    "the number is right, but it is a float, and devices are counted": lambda *given: float(_fewest_devices(*given)),
    "there are no parts of devices": lambda parameters, memory: 16 * parameters / memory,
    "rounded down, it does not fit": lambda parameters, memory: int(16 * parameters // memory),
    "rounded to the nearest, it may not fit": lambda parameters, memory: round(16 * parameters / memory),
    "only the weights find room": lambda *given: _fewest_devices(*given, 4),
    "that is room for half of it, such as weights and gradients alone": lambda *given: _fewest_devices(*given, 8),
    "that is room for three of the four numbers that belong to a parameter":
        lambda *given: _fewest_devices(*given, 12),
    "parameters are counted, not their bytes": lambda *given: _fewest_devices(*given, 1),
    "bits are counted, not bytes": lambda *given: _fewest_devices(*given, 128),
    "one device too many is counted when all are full":
        lambda parameters, memory: int(16 * parameters // memory) + 1,
}


EXERCISES = {
    "rows": Exercise(
        _rows, "Write the row numbers 0 to 9 in a line and deal them out like cards: whose is the third one?"),
    "average": Exercise(
        _average,
        "How does a mean over 40 numbers follow from the mean over 30 of them and the mean over the other 10?"),
    "rounds": Exercise(
        _rounds, "First find how many chunks of the batch each process has, then how often it has to fill its memory."),
    "hours": Exercise(
        _hours, "Operations over operations per second are seconds; what does one device really do in a second?"),
    "devices": Exercise(
        _devices, "AdamW keeps two numbers beside each weight and its gradient: how many bytes are these together?"),
}
