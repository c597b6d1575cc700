"""What a model has and does, counted: against PyTorch's own counter, a pencil, and what autograd really keeps."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from llm_tutorial.counts import activation_bytes, matmul_parameters, training_flops_per_token


def test_operations_are_those_that_pytorch_counts(causal_lm):
    causal_lm.set_attn_implementation("eager")  # a fused attention computes some things twice
    causal_lm.train()
    ids = torch.randint(0, causal_lm.config.vocab_size, (3, 16))
    with FlopCounterMode(display=False) as counter:
        causal_lm(input_ids=ids, use_cache=False).logits.sum().backward()
    assert training_flops_per_token(causal_lm, 16) * ids.numel() == counter.get_total_flops()


def test_operations_are_those_of_a_pencil(causal_lm):
    width, vocabulary = 32, causal_lm.config.vocab_size
    in_blocks = 2 * (3 + 1 + 4 + 4) * width * width
    assert matmul_parameters(causal_lm) == in_blocks + vocabulary * width, "the tied projection, once"
    assert training_flops_per_token(causal_lm, 16) == 6 * (in_blocks + vocabulary * width) + 12 * 2 * width * 16


def test_embeddings_count_only_where_they_multiply():
    config = GPT2Config(vocab_size=50, n_positions=9, n_embd=8, n_layer=1, n_head=1, bos_token_id=None,
                        eos_token_id=None)
    model = GPT2LMHeadModel(config)
    assert matmul_parameters(model.transformer) == 12 * 8 * 8, "without a head, looking up is all that embeddings do"
    assert matmul_parameters(model) == 12 * 8 * 8 + 50 * 8


def really_kept(model: GPT2LMHeadModel, batch: int, length: int) -> int:
    """Bytes of the storages that a real forward pass on the CPU saves for the backward pass, without the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept, alive = {}, []

    def keep(tensor):
        alive.append(tensor)  # else its address would be given to another one
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.randint(0, model.config.vocab_size, (batch, length))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(input_ids=ids, labels=ids)
    return sum(size for address, size in kept.items() if address not in weights)


@pytest.mark.parametrize(("dropout", "batch", "length"), [(0.0, 3, 16), (0.1, 3, 16), (0.0, 1, 9)])
def test_activations_are_those_that_autograd_keeps(dropout, batch, length):
    config = GPT2Config(vocab_size=70, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=None,
                        eos_token_id=None, attn_implementation="eager", resid_pdrop=dropout, embd_pdrop=dropout,
                        attn_pdrop=dropout)
    model = GPT2LMHeadModel(config)
    assert activation_bytes(model, batch, length) == really_kept(model, batch, length) > 0


def test_counting_activations_leaves_the_model_as_it_was(causal_lm):
    causal_lm.eval().zero_grad()
    before = {name: tensor.clone() for name, tensor in causal_lm.state_dict().items()}
    activation_bytes(causal_lm, 2, 8)
    assert not causal_lm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in causal_lm.state_dict().items())
    assert all(parameter.grad is None for parameter in causal_lm.parameters())
    assert {parameter.device.type for parameter in causal_lm.parameters()} == {"cpu"}


@pytest.mark.parametrize(("batch", "length", "message"), [
    (0, 8, "batch=0: at least 1 row is needed"), (1, 0, "context_length=0 is not between 1 and"),
    (1, 100_000, "context_length=100000 is not between 1 and"),
])
def test_sizes_that_fit_no_model_are_refused(causal_lm, batch, length, message):
    with pytest.raises(ValueError, match=message):
        activation_bytes(causal_lm, batch, length)


def test_a_negative_context_is_refused(causal_lm):
    with pytest.raises(ValueError, match="context_length=-1"):
        training_flops_per_token(causal_lm, -1)
