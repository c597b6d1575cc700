"""Where the time of a training step goes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from llm_tutorial.benchmarks.bare_loop import BareLoop
from llm_tutorial.benchmarks.measuring import synchronize

__all__ = ["GROUPS", "group_of", "step_shares"]

GROUPS = ("matrix products", "optimiser", "softmax and loss", "other elementwise", "Python and idle")
MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::matmul", "aten::linear",
                   "aten::mkldnn_", "aten::_scaled_dot_product", "aten::scaled_dot_product", "aten::_flash_attention",
                   "aten::_efficient_attention", "aten::_cudnn_attention")
LOG_LEVEL = "KINETO_LOG_LEVEL"
SOFTMAX_AND_LOSS = ("softmax", "nll_loss", "cross_entropy")


def step_shares(loop: BareLoop, *, steps: int = 3) -> dict[str, float] | None:
    """Return the share of each of ``GROUPS`` in the time of a step; all of them make 1.

    Measured by ``torch.profiler``, on a GPU in the time of its kernels, else in that of the operators themselves.
    The profiler's own work is Python's here, so that share is an upper bound.  What the optimiser computes is the
    optimiser's, its matrix products too; a fused attention is a matrix product with the softmax in it.

    Returns:
        None on Apple's GPU, whose kernels the profiler does not see.

    Raises:
        ValueError: ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: profile at least 1.")
    if loop.device.name == "mps":
        return None
    on_gpu = loop.device.name == "cuda"
    loop.step()  # what is only done once is no part of a step
    synchronize(loop.device)
    with _few_words(), profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu) as profiler:
        began = time.perf_counter()
        for _ in range(steps):
            loop.step()
        synchronize(loop.device)
        microseconds = 1e6 * (time.perf_counter() - began)
    spent = dict.fromkeys(GROUPS, 0.0)
    for event in profiler.events():
        if event.device_type == DeviceType.CPU:  # kernels are listed too, and again in the operator that starts them
            spent[_group(event)] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    rest = GROUPS[-1]
    spent[rest] = 0.0
    spent[rest] = max(0.0, microseconds - sum(spent.values()))
    return {group: value / sum(spent.values()) for group, value in spent.items()}


def group_of(name: str) -> str:
    """Return which of ``GROUPS`` an operator outside the optimiser belongs to, by its name."""
    if name.startswith(MATRIX_PRODUCTS):
        return "matrix products"
    if any(part in name for part in SOFTMAX_AND_LOSS) and name.startswith("aten::"):
        return "softmax and loss"
    return "other elementwise" if name.startswith("aten::") else "Python and idle"


@contextmanager
def _few_words() -> Iterator[None]:
    """Keep the profiler's library from writing a line to the standard error when it starts and when it stops."""
    # It reads the variable at each start, and 6 lies above the level of these lines.  What a user has set goes before.
    before = os.environ.get(LOG_LEVEL)
    os.environ.setdefault(LOG_LEVEL, "6")
    try:
        yield
    finally:
        if before is None:
            del os.environ[LOG_LEVEL]


def _group(event) -> str:
    """The group of a profiler's event: the optimiser's if it is, or stands within, a call of an optimiser."""
    outer = event
    while outer is not None:
        if outer.name.startswith("Optimizer."):
            return "optimiser"
        outer = outer.cpu_parent
    return group_of(event.name)
