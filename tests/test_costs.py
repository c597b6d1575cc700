"""The cost model: against a pencil, PyTorch's own counter, and what a real step keeps in memory."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from llm_tutorial.costs import (
    activation_bytes,
    attention_flops,
    matmul_parameters,
    price,
    training_bytes,
    training_flops,
    training_hours,
)


def test_operations_are_those_that_pytorch_counts(causal_lm):
    causal_lm.set_attn_implementation("eager")  # a fused attention computes some things twice
    ids = torch.randint(0, causal_lm.config.vocab_size, (3, 16))
    with FlopCounterMode(display=False) as counter:
        causal_lm.train()(input_ids=ids, use_cache=False).logits.sum().backward()
    counted = training_flops(matmul_parameters(causal_lm), ids.numel()) + attention_flops(2, 32, 16, ids.numel())
    assert counted == counter.get_total_flops()


def test_sharded_processes_share_everything_but_the_activations():
    assert training_bytes(1000, weight=2, gradient=3, optimizer=10) == 15_000
    assert training_bytes(1000, activations=500, processes=8) == 2000 + 500


def test_hours_and_prices_by_hand():
    assert training_hours(7.2e15, 1e12) == 2
    assert training_hours(7.2e15, 1e12, mfu=0.25, devices=4) == 2
    assert price(3, 1.5, devices=8) == 36


@pytest.mark.parametrize("mfu", [0, 40])
def test_a_utilization_is_a_share(mfu):
    with pytest.raises(ValueError, match=f"mfu={mfu} is not a share: give a number above 0"):
        training_hours(1, 1, mfu=mfu)


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


@pytest.mark.parametrize(("dropout", "batch", "length"), [(0.1, 3, 16), (0.0, 1, 9)])
def test_activations_are_those_that_autograd_keeps(dropout, batch, length):
    config = GPT2Config(vocab_size=70, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=None,
                        eos_token_id=None, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout)
    model = GPT2LMHeadModel(config).eval()
    counted = activation_bytes(model, batch, length)
    assert not model.training, "the model stays as it was"
    model.set_attn_implementation("eager")
    assert counted == really_kept(model, batch, length) > 0
    model.config.use_cache = False  # as the Trainer leaves it
    assert activation_bytes(model, batch, length) == counted


def test_fused_attention_keeps_what_pytorchs_fused_kernel_keeps():
    config = GPT2Config(vocab_size=70, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=None,
                        eos_token_id=None, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, attn_implementation="sdpa")
    model = GPT2LMHeadModel(config)
    fused, plain = (activation_bytes(model, 1, 64, fused=fused) for fused in (True, False))
    assert fused == pytest.approx(really_kept(model, 1, 64), rel=0.02)
    assert plain == fused + 2 * 2 * 64 * 64 * 4, "the probabilities of two heads in two layers"


def test_a_context_beyond_the_models_positions_is_refused(causal_lm):
    with pytest.raises(ValueError, match="context_length=65 is beyond the 64 positions of this model"):
        activation_bytes(causal_lm, 1, 65)
