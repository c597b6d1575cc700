"""What a model has and does, counted: weights that multiply, operations per token, bytes kept for the way back."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from llm_tutorial.costs import attention_flops, training_flops

__all__ = ["activation_bytes", "matmul_parameters", "training_flops_per_token"]


def matmul_parameters(model: nn.Module) -> int:
    """Return N of ``training_flops_per_token``: the weights of all linear layers, output projection included.

    A linear layer multiplies each token by each of its weights.  Looking a token or a position up in an embedding
    multiplies nothing, so embeddings do not count; but GPT-2's token embedding is at the same time the weight of the
    output projection, and as such it does.  Biases and norms are left out, as usual.
    """
    return sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, Conv1D | nn.Linear))


def training_flops_per_token(model: GPT2LMHeadModel, context_length: int) -> int:
    """Return the floating-point operations of forward and backward pass per token: ``6 N + 12 L d T``.

    For the formulas and their sources see ``costs.training_flops`` and ``costs.attention_flops``, and for N
    ``matmul_parameters``.  The optimiser's work is not counted, and neither is anything that is computed twice.

    Args:
        context_length: T, tokens per row of a batch.

    Raises:
        ValueError: ``context_length`` is negative.
    """
    config = model.config
    return training_flops(matmul_parameters(model), 1) + attention_flops(
        config.n_layer, config.n_embd, context_length, 1)


def activation_bytes(model: GPT2LMHeadModel, batch: int, context_length: int) -> int:
    """Return the bytes that a training step in fp32 keeps from the forward pass until the backward pass.

    They are counted, without computing or storing anything, on a twin of the model on PyTorch's meta device: each
    storage that autograd saves, once, parameters left out.  Attention is the plain one, which keeps its (T, T)
    matrices; fused kernels keep none.  The most that is in use at a moment is somewhat more.

    Args:
        batch: rows that one process computes at once.

    Raises:
        ValueError: ``batch`` is below 1, or ``context_length`` is not between 1 and the model's positions.
    """
    if batch < 1:
        raise ValueError(f"batch={batch}: at least 1 row is needed.")
    if not 1 <= context_length <= model.config.n_positions:
        raise ValueError(f"context_length={context_length} is not between 1 and {model.config.n_positions:,}, the most "
                         "that this model can read.")
    config = copy.deepcopy(model.config)
    config.pad_token_id = None  # else the library looks for padding among the ids, which have no values
    config._attn_implementation = "eager"
    with torch.device("meta"):
        twin = type(model)(config)  # which trains until it is told not to
        ids = torch.zeros(batch, context_length, dtype=torch.long)
    weights = {parameter.untyped_storage()._cdata for parameter in twin.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor  # kept alive by autograd, so that no other storage gets its address

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = twin(input_ids=ids, labels=ids).loss
    del loss
    return sum(kept.values())
