"""What a training costs: operations, memory, hours and money, as formulas to change and to check."""

from __future__ import annotations

import math

__all__ = ["attention_flops", "price", "training_bytes", "training_flops", "training_hours"]


def training_flops(parameters: float, tokens: float) -> float:
    """Return the floating-point operations of a training: ``6 N D``.

    Forward, each weight of a matrix takes part in one multiplication and one addition per token; backward, in twice as
    many, for the gradients of the weights and of what came in.  The estimate of Kaplan et al. 2020
    (https://arxiv.org/abs/2001.08361), used by Hoffmann et al. 2022 (https://arxiv.org/abs/2203.15556); it leaves out
    what attention does beyond its matrices, see ``attention_flops``.

    Args:
        parameters: N, the weights that multiply; ``counts.matmul_parameters`` says which.
        tokens: D, those of all steps and all processes; a text that is read twice counts twice.

    Raises:
        ValueError: a number is negative or not finite.
    """
    _check(parameters=parameters, tokens=tokens)
    return 6 * parameters * tokens


def attention_flops(layers: int, width: int, context_length: int, tokens: float) -> float:
    """Return the operations that training spends on comparing tokens with each other: ``12 L d T D``.

    In each layer, queries meet keys and probabilities meet values, over all T positions and all d dimensions of the
    heads together.  The count of Chowdhery et al. 2022, "PaLM" (https://arxiv.org/abs/2204.02311), appendix B; as
    there, what a causal mask hides counts as well.

    Args:
        context_length: T, tokens per row of a batch.
        tokens: D, as in ``training_flops``.

    Raises:
        ValueError: a number is negative or not finite.
    """
    _check(layers=layers, width=width, context_length=context_length, tokens=tokens)
    return 12 * layers * width * context_length * tokens


def training_bytes(
    parameters: float, *, weight: float = 4, gradient: float = 4, optimizer: float = 8, activations: float = 0,
    processes: int = 1,
) -> float:
    """Return the bytes of memory that each process needs while it trains.

    Weights, gradients and the optimiser's states are divided among ``processes`` as by fully sharded data parallelism
    (Rajbhandari et al. 2020, "ZeRO", https://arxiv.org/abs/1910.02054, stage 3).  Plain data parallelism keeps all of
    them in each process: leave ``processes`` at 1.  What a library adds for itself is left out, and so are the few
    layers that FSDP gathers at a time.

    Args:
        parameters: all of them, embeddings included; tied ones once.
        weight, gradient: bytes per parameter; 4 in fp32, and also in bf16 by autocast, which keeps both in fp32.
        optimizer: bytes per parameter; 8 for AdamW's two moments in fp32, 4 for one momentum, 0 for plain SGD.
        activations: bytes that each process keeps for its own part of the batch, which nobody shares.

    Raises:
        ValueError: a number is negative or not finite, or ``processes`` is no whole number above 0.
    """
    _check(parameters=parameters, weight=weight, gradient=gradient, optimizer=optimizer, activations=activations)
    _check_whole(processes=processes)
    return parameters * (weight + gradient + optimizer) / processes + activations


def training_hours(flops: float, flops_per_second: float, *, mfu: float = 1.0, devices: int = 1) -> float:
    """Return the hours that so many operations take.

    Args:
        flops: of the whole training.
        flops_per_second: of one device: what was measured, or the peak of a data sheet, and then ``mfu`` belongs to it.
        mfu: model FLOPs utilisation, the share of ``flops_per_second`` that the model's own operations get; 0 < mfu
            <= 1.
        devices: how many share the work.  That each does as much as it would alone is the best case.

    Raises:
        ValueError: a number is out of its range or not finite.
    """
    _check(flops=flops, flops_per_second=flops_per_second)
    _check_whole(devices=devices)
    if flops_per_second == 0:
        raise ValueError("flops_per_second=0: a device that computes nothing never ends. Measure it, or take the peak "
                         "from its data sheet.")
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu={mfu}: it is a share, above 0 and at most 1.")
    return flops / (flops_per_second * mfu * devices) / 3600


def price(hours: float, price_per_hour: float, *, devices: int = 1) -> float:
    """Return what ``devices`` cost for so many hours, in the currency of ``price_per_hour``, which is for one device.

    Raises:
        ValueError: a number is negative or not finite, or ``devices`` is no whole number above 0.
    """
    _check(hours=hours, price_per_hour=price_per_hour)
    _check_whole(devices=devices)
    return hours * price_per_hour * devices


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name}={value}: a finite number that is not negative is needed.")


def _check_whole(**numbers: int) -> None:
    for name, value in numbers.items():
        if not float(value).is_integer() or value < 1:
            raise ValueError(f"{name}={value}: a whole number above 0 is needed.")
