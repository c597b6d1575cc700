"""What a training costs: operations, memory, hours and money."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

__all__ = [
    "activation_bytes", "attention_flops", "matmul_parameters", "price", "training_bytes", "training_flops",
    "training_hours",
]


def training_flops(parameters: float, tokens: float) -> float:
    """Return the floating-point operations of a training: ``6 N D``.

    Per weight and token, one multiplication and one addition forward, and twice as many backward (Kaplan et al. 2020,
    https://arxiv.org/abs/2001.08361). The rest of attention's work is in ``attention_flops``.

    Args:
        parameters: N, the weights that multiply, see ``matmul_parameters``.
        tokens: D, those of all steps and all processes; a text that is read twice counts twice.
    """
    return 6 * parameters * tokens


def attention_flops(layers: int, width: int, context_length: int, tokens: float) -> float:
    """Return the operations that training spends on comparing tokens with each other: ``12 L d T D``.

    The count of Chowdhery et al. 2022, "PaLM" (https://arxiv.org/abs/2204.02311), appendix B, which includes the
    positions that a causal mask hides.

    Args:
        context_length: T, tokens per row of a batch.
        tokens: D, as in ``training_flops``.
    """
    return 12 * layers * width * context_length * tokens


def training_bytes(
    parameters: float, *, weight: float = 4, gradient: float = 4, optimizer: float = 8, activations: float = 0,
    processes: int = 1,
) -> float:
    """Return the bytes of memory that each process needs while it trains.

    Fully sharded data parallelism (Rajbhandari et al. 2020, "ZeRO", https://arxiv.org/abs/1910.02054, stage 3) divides
    weights, gradients and the optimizer's states among ``processes``; for plain data parallelism leave it at 1.

    Args:
        parameters: all of them, embeddings included; tied ones once.
        weight, gradient: bytes per parameter; 4 in fp32, and also in bf16 by autocast, which keeps both in fp32.
        optimizer: bytes per parameter; 8 for AdamW's two moments in fp32, 4 for one momentum, 0 for plain SGD.
        activations: bytes that each process keeps for its own part of the batch; they are not shared.
    """
    return parameters * (weight + gradient + optimizer) / processes + activations


def training_hours(flops: float, flops_per_second: float, *, mfu: float = 1.0, devices: int = 1) -> float:
    """Return the hours that a training takes, if each of several devices does as much as it would alone.

    Args:
        flops: operations of the whole training.
        flops_per_second: of one device: a measured speed, or the peak of a data sheet.
        mfu: model FLOPs utilization, the share of a peak that the model's own operations get.
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu={mfu} is not a share: give a number above 0 and at most 1, such as 0.4 for 40 %.")
    return flops / (flops_per_second * mfu * devices) / 3600


def price(hours: float, price_per_hour: float, *, devices: int = 1) -> float:
    """Return what ``devices`` cost for some hours; ``price_per_hour`` is for one of them."""
    return hours * price_per_hour * devices


def matmul_parameters(model: nn.Module) -> int:
    """Return N of ``training_flops``: the weights of all linear layers, output projection included.

    GPT-2's token embedding counts, since it is also the weight of the output projection. Biases and norms do not.
    """
    return sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, Conv1D | nn.Linear))


def activation_bytes(model: GPT2LMHeadModel, batch: int, context_length: int, *, fused: bool = False) -> int:
    """Return the bytes that a training step in fp32 keeps from the forward pass until the backward pass.

    Counted on PyTorch's meta device, which stores nothing: each storage that autograd saves, without the parameters.

    Args:
        batch: rows that one process computes at once.
        context_length: T, tokens per row.
        fused: leave out the (T, T) matrices of attention, which fused kernels do not keep (Dao et al. 2022,
            "FlashAttention", https://arxiv.org/abs/2205.14135).
    """
    if context_length > model.config.n_positions:
        raise ValueError(f"context_length={context_length} is beyond the {model.config.n_positions:,} positions of "
                         "this model: give a shorter one, or a model with more positions.")
    config = copy.deepcopy(model.config)
    # Else the library looks for padding, or after a training for packed rows, among ids that have no values.
    config.pad_token_id, config.use_cache = None, True
    with torch.device("meta"):
        twin = type(model)(config)
        ids = torch.zeros(batch, context_length, dtype=torch.long)
    twin.set_attn_implementation("eager")
    # By identity; kept alive, so that no new storage gets the id of an old one.
    weights = {id(storage): storage for storage in (weight.untyped_storage() for weight in twin.parameters())}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not (fused and tensor.shape[-2:] == (context_length, context_length)):
            storage = tensor.untyped_storage()
            kept[id(storage)] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        twin.train()(input_ids=ids, labels=ids)
    return sum(storage.nbytes() for key, storage in kept.items() if key not in weights)
