"""How many floating-point operations the device can do in a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from llm_tutorial.benchmarks.measuring import synchronize
from llm_tutorial.device import Device

__all__ = ["gemm_peak", "gemm_shapes"]

TIMED_SECONDS = 0.05  # shorter than this, the clock and the start of threads count too much


def gemm_shapes(model: nn.Module, tokens: int, squares: Iterable[int] = (512, 1024, 2048)) -> list[tuple[int, ...]]:
    """Return (m, k, n) of products (m, k) x (k, n) to try: those of the model's linear layers, and squares.

    Args:
        tokens: in a batch.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Conv1D | nn.Linear)]
    own = {(tokens, *(layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.shape[::-1]))
           for layer in layers}
    return sorted(own) + [(size, size, size) for size in squares]


def gemm_peak(
    device: Device, dtype: torch.dtype, shapes: Iterable[tuple[int, ...]], *, repeats: int = 5
) -> dict[str, Any]:
    """Return the most floating-point operations per second that matrix products reach on this device.

    Each shape is multiplied until the clock can be trusted, ``repeats`` times; its figure is the median of these.

    Args:
        shapes: (m, k, n) of the products to try, of which the best one counts.

    Returns:
        ``flops_per_second`` and ``shape`` of the best one, ``dtype``, and under ``tried`` the figures of all.
    """
    tried = [{"shape": list(shape), "flops_per_second": _gemm_speed(device, dtype, shape, repeats)}
             for shape in shapes]
    return max(tried, key=lambda entry: entry["flops_per_second"]) | {
        "dtype": str(dtype).removeprefix("torch."), "tried": tried}


def _gemm_speed(device: Device, dtype: torch.dtype, shape: tuple[int, ...], repeats: int) -> float:
    m, k, n = shape
    one, other = torch.randn(m, k).to(device.name, dtype), torch.randn(k, n).to(device.name, dtype)
    count, seconds = 1, _seconds_of_products(device, one, other, 1)  # the first product also sets the library up
    while (seconds := _seconds_of_products(device, one, other, count)) < TIMED_SECONDS:
        count *= 2
    seconds = statistics.median([seconds] + [_seconds_of_products(device, one, other, count)
                                             for _ in range(repeats - 1)])
    return 2 * m * k * n * count / seconds


def _seconds_of_products(device: Device, one: torch.Tensor, other: torch.Tensor, count: int) -> float:
    synchronize(device)
    began = time.perf_counter()
    for _ in range(count):
        one @ other
    synchronize(device)
    return time.perf_counter() - began
