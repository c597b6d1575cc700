"""How many floating-point operations training a token takes, and how many the device can do in a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from llm_tutorial.benchmarks.measuring import synchronize
from llm_tutorial.device import Device

__all__ = ["gemm_peak", "gemm_shapes", "matmul_parameters", "training_flops_per_token"]

TIMED_SECONDS = 0.05  # shorter than this, the clock and the start of threads count too much


def matmul_parameters(model: nn.Module) -> int:
    """Return N of ``training_flops_per_token``: the weights of all linear layers, output projection included.

    A linear layer multiplies each token by each of its weights.  Looking a token or a position up in an embedding
    multiplies nothing, so embeddings do not count; but GPT-2's token embedding is at the same time the weight of the
    output projection, and as such it does.  Biases and norms are left out, as usual.
    """
    return sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, Conv1D | nn.Linear))


def training_flops_per_token(model: GPT2LMHeadModel, context_length: int) -> int:
    """Return the floating-point operations of forward and backward pass per token: ``6 N + 12 L d T``.

    The count of Chowdhery et al. 2022, "PaLM" (https://arxiv.org/abs/2204.02311), appendix B.  Two per weight forward
    (a multiplication and an addition) and four backward; for N see ``matmul_parameters``.  In each of L layers,
    queries and keys, then probabilities and values, are multiplied over all T positions and all d dimensions of the
    heads together: as in PaLM, also over the half that a causal mask hides.  The optimiser's work is not counted, and
    neither is anything that is computed twice.

    Args:
        context_length: T, tokens per row of a batch.
    """
    config = model.config
    return 6 * matmul_parameters(model) + 12 * config.n_layer * config.n_embd * context_length


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
