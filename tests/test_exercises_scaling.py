"""Checks of the exercises on scaling up: right answers pass, each typical mistake gets its message."""

# ruff: noqa: ARG005  (an answer takes all arguments, right or wrong)

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from exercise_feedback import assert_named

from llm_tutorial.costs import training_bytes, training_flops, training_hours
from llm_tutorial.exercises import Exercises, scaling


def my_rows(rows, rank, processes):
    return [row for row in range(rows) if row % processes == rank]


def my_average(gradients, tokens):
    return sum(count / sum(tokens) * gradient for gradient, count in zip(gradients, tokens, strict=True))


def my_rounds(batch, processes, fits):
    return -(-batch // processes // fits)


def my_hours(parameters, tokens, peak, mfu, devices):
    return training_hours(training_flops(parameters, tokens), peak, mfu=mfu, devices=devices)


def my_devices(parameters, memory):
    devices = 1
    while training_bytes(parameters, processes=devices) > memory:
        devices += 1
    return devices


SOLUTIONS = {"rows": my_rows, "average": my_average, "rounds": my_rounds, "hours": my_hours, "devices": my_devices}


@pytest.fixture
def exercises():
    return Exercises(scaling.EXERCISES)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solutions_are_right(exercises, name):
    assert exercises.check(name, SOLUTIONS[name]).message == "That is right."


def test_there_is_a_solution_for_each_exercise():
    assert set(SOLUTIONS) == set(scaling.EXERCISES)


def deal(rows, rank, processes, *, last=True, start=0):
    stop = rows if last else rows // processes * processes
    return list(range(rank + start, stop + start, processes))


def means(gradients, _=None):
    return sum(gradients) / len(gradients)


def hours(parameters, tokens, peak, mfu, devices, *, operations=6, unit=3600):
    return operations * parameters * tokens / peak / mfu / devices / unit


def devices(parameters, memory, each=16, rounded=math.ceil):
    return rounded(each * parameters / memory)


WRONG = [
    ("rows", "counted from 1", lambda *given: deal(*given, start=1)),
    ("rows", "the first one has rank 0", lambda rows, rank, n: deal(rows, (rank - 1) % n, n)),
    ("rows", "that is a block, of which", lambda rows, rank, n: np.array_split(range(rows), n)[rank].tolist()),
    ("rows", "is lost", lambda rows, rank, n: list(range(rows))[rank * (rows // n):(rank + 1) * (rows // n)]),
    ("rows", "read everything", lambda rows, *_: list(range(rows))),
    ("rows", "begin at row 0", lambda rows, rank, n: list(range(rows))[::n]),
    ("rows", "from its rank on", lambda rows, rank, n: list(range(rank, rows))),
    ("rows", "not a full one", lambda *given: deal(*given, last=False)),
    ("rows", "arrives in order", lambda *given: deal(*given)[::-1]),
    ("rows", "there is no row 10", lambda rows, rank, n: [*deal(rows, rank, n), rows]),
    ("rows", "nobody reads it", lambda *given: []),
    ("rows", "7, but a list of row numbers", lambda *given: 7),
    ("rows", "a list of whole numbers", lambda *given: [1.0, 4.0]),
    ("average", "plain mean", means),
    ("average", "grows with the number of processes", lambda gradients, tokens: sum(gradients)),
    ("average", "a sum over all tokens", lambda gradients, tokens: sum(tokens) * my_average(gradients, tokens)),
    ("average", "not of tokens", lambda gradients, tokens: (
        sum(tokens) * my_average(gradients, tokens) / len(tokens))),
    ("average", "plain sum is divided", lambda gradients, tokens: sum(gradients) / sum(tokens)),
    ("average", "other processes are missing", lambda gradients, tokens: gradients[0]),
    ("average", "once more", lambda gradients, tokens: means(
        [gradient / count for gradient, count in zip(gradients, tokens, strict=True)])),
    ("average", "has the shape (2, 3)", lambda gradients, tokens: torch.stack(gradients)),
    ("average", "not the gradient of the mean loss", lambda gradients, tokens: gradients[0] * 0.5),
    ("rounds", "is a float, and rounds", lambda *given: float(my_rounds(*given))),
    ("rounds", "no parts of rounds", lambda batch, n, fits: batch / (n * fits)),
    ("rounds", "not full, is missing", lambda batch, n, fits: batch // (n * fits)),
    ("rounds", "one process alone", lambda batch, n, fits: math.ceil(batch / fits)),
    ("rounds", "the share of each process in the batch.", lambda batch, n, fits: batch // n),
    ("rounds", "as a float", lambda batch, n, fits: batch / n),
    ("rounds", "would grow", lambda batch, n, fits: math.ceil(batch * n / fits)),
    ("rounds", "one round too many", lambda batch, n, fits: batch // n // fits + 1),
    ("rounds", "not the number of rounds", lambda *given: -1),
    ("hours", "way forward only", lambda *given: hours(*given, operations=2)),
    ("hours", "way back only", lambda *given: hours(*given, operations=4)),
    ("hours", "one operation", lambda *given: hours(*given, operations=1)),
    ("hours", "in seconds", lambda *given: hours(*given, unit=1)),
    ("hours", "in minutes", lambda *given: hours(*given, unit=60)),
    ("hours", "in days", lambda *given: hours(*given, unit=24 * 3600)),
    ("hours", "utilisation is missing", lambda n, d, peak, mfu, count: hours(n, d, peak, 1, count)),
    ("hours", "faster one", lambda n, d, peak, mfu, count: hours(n, d, peak, 1 / mfu, count)),
    ("hours", "one device alone", lambda n, d, peak, mfu, count: hours(n, d, peak, mfu, 1)),
    ("hours", "take longer", lambda n, d, peak, mfu, count: hours(n, d, peak, mfu, 1 / count)),
    ("hours", "3 times the right number", lambda *given: 3 * hours(*given)),
    ("devices", "is a float, and devices", lambda *given: float(my_devices(*given))),
    ("devices", "no parts of devices", lambda *given: devices(*given, rounded=float)),
    ("devices", "rounded down", lambda *given: devices(*given, rounded=math.floor)),
    ("devices", "to the nearest", lambda *given: devices(*given, rounded=round)),
    ("devices", "only the weights", lambda *given: devices(*given, 4)),
    ("devices", "half of it", lambda *given: devices(*given, 8)),
    ("devices", "three of the four", lambda *given: devices(*given, 12)),
    ("devices", "not their bytes", lambda *given: devices(*given, 1)),
    ("devices", "bits are counted", lambda *given: devices(*given, 128)),
    ("devices", "one device too many", lambda *given: devices(*given, rounded=math.floor) + 1),
    ("devices", "not the number of devices", lambda *given: 99),
]


@pytest.mark.parametrize(("name", "fragment", "answer"), WRONG)
def test_typical_mistakes_are_named(exercises, name, fragment, answer):
    assert_named(exercises.check(name, answer), fragment)


def test_other_correct_forms_are_right(exercises):
    def by_library(rows, rank, processes):
        stream = Dataset.from_dict({"row": list(range(rows))}).to_iterable_dataset()
        return [row["row"] for row in split_dataset_by_node(stream, rank, processes)]

    for answer in (by_library, range_of_rows := (lambda rows, rank, n: range(rank, rows, n)),
                   lambda *given: np.array(range_of_rows(*given)), lambda *given: iter(range_of_rows(*given)),
                   lambda *given: list(np.array(range_of_rows(*given), dtype=np.int32)),
                   lambda *given: torch.tensor(list(range_of_rows(*given)))):
        assert exercises.check("rows", answer).message == "That is right."
    assert exercises.check("average", lambda gradients, tokens: torch.tensor(
        np.average([gradient.numpy() for gradient in gradients], axis=0, weights=tokens))).correct
    assert exercises.check("rounds", lambda batch, n, fits: np.int64(math.ceil(batch / n / fits))).correct


def test_a_gradient_of_the_whole_batch_is_the_weighted_mean(exercises):
    """What the exercise calls right is what autograd finds for the mean over all tokens."""
    weight = torch.ones(3, requires_grad=True)
    inputs = torch.arange(12.0).reshape(4, 3).sin()
    parts = [inputs[:3], inputs[3:]]
    gradients = [torch.autograd.grad((part @ weight).square().mean(), weight)[0] for part in parts]
    whole = torch.autograd.grad((inputs @ weight).square().mean(), weight)[0]
    assert torch.allclose(my_average(gradients, [3, 1]), whole)
    assert exercises.check("average", my_average).correct
