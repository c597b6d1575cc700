"""MuonAdamW against PyTorch's own AdamW and Muon, and with the scaler that fp16 needs."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from llm_tutorial.optimizers import POLAR_EXPRESS, MuonAdamW, muon_parameter_groups, orthogonalize

JORDAN = ((3.4445, -4.7750, 2.0315),) * 5  # those of torch.optim.Muon
SHAPES = [(64, 16), (16, 64), (1, 8)]


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in shapes]


def run(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: int, seed: int = 1) -> None:
    source = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=source)
        optimizer.step()


def test_groups_without_muon_equal_torchs_adamw():
    ours, theirs = parameters((8, 4), (4,)), parameters((8, 4), (4,))
    run(MuonAdamW([{"params": ours, "lr": 1e-2, "muon": False, "weight_decay": 0.1}], betas=(0.8, 0.999)), ours, 20)
    run(torch.optim.AdamW(theirs, lr=1e-2, betas=(0.8, 0.999), weight_decay=0.1), theirs, 20)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_groups_with_muon_equal_torchs_muon(shape):
    ours, theirs = parameters(shape), parameters(shape)
    group = {"params": ours, "lr": 0.02, "muon": True, "weight_decay": 0.1, "momentum": 0.95, "coefficients": JORDAN}
    run(MuonAdamW([group], bf16=True), ours, 5)
    run(torch.optim.Muon(theirs, lr=0.02, adjust_lr_fn="match_rms_adamw", weight_decay=0.1), theirs, 5)
    moved = (theirs[0] - parameters(shape)[0]).norm()
    # bfloat16 has eight significant bits, and the two round at different places.
    assert (ours[0] - theirs[0]).norm() < 0.04 * moved


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bf16", [False, True])
def test_orthogonalize_keeps_the_singular_vectors_and_brings_the_values_near_one(shape, bf16):
    matrix = parameters(shape)[0].detach()
    result = orthogonalize(matrix, bf16=bf16)
    assert (result.shape, result.dtype) == (matrix.shape, matrix.dtype)
    u, values, vt = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ result @ vt.T
    large = values > 0.1 * values[0]  # the smallest ones need more iterations
    assert inner.diagonal()[large].min() > 0.5
    assert inner.diagonal().max() < 1.3
    assert (inner - inner.diagonal().diag()).abs().max() < (0.05 if bf16 else 1e-4)
    assert torch.equal(orthogonalize(torch.zeros(shape), bf16=bf16), torch.zeros(shape)), "no division by zero"


def test_the_polynomials_are_the_best_of_their_degree():
    """A best approximation errs by as much, with alternating signs, once more often than it has coefficients."""
    low, high = torch.tensor(0.01, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    for a, b, c in POLAR_EXPRESS:
        x = torch.linspace(low, high, 100_001, dtype=torch.float64)
        error = 1 - (a * x + b * x**3 + c * x**5)
        turns = [error[0], error[1:-1].min(), error[1:-1].max(), error[-1]]
        assert [turn.abs().item() for turn in turns] == pytest.approx([error.abs().max().item()] * 4, rel=1e-4)
        low, high = 1 - error.max(), 1 - error.min()
    assert (low, high) == (pytest.approx(0.73, abs=0.005), pytest.approx(1.27, abs=0.005))


def both_groups(weights: list[nn.Parameter]) -> list[dict]:
    return [{"params": weights[:1], "lr": 0.02, "muon": True, "weight_decay": 0.1},
            {"params": weights[1:], "lr": 0.01, "muon": False}]


def test_the_precision_of_the_iterations_is_the_devices_and_not_the_checkpoints():
    def first_step(begun_in_bf16: bool, bf16: bool) -> torch.Tensor:
        weights = parameters((8, 4), (4,))
        optimizer = MuonAdamW(both_groups(weights), bf16=bf16)
        optimizer.load_state_dict(MuonAdamW(both_groups(weights), bf16=begun_in_bf16).state_dict())
        run(optimizer, weights, 1)
        return weights[0]

    assert torch.equal(first_step(True, False), first_step(False, False))
    assert not torch.equal(first_step(True, True), first_step(False, False))


def test_a_scaler_for_fp16_changes_nothing_but_skips_steps_with_infinite_gradients():
    def trained(gradients, scaler):
        weights = parameters((8, 4), (4,))
        optimizer = MuonAdamW(both_groups(weights))
        for step in gradients:
            scaler.scale(sum((weight * each).sum() for weight, each in zip(weights, step, strict=True))).backward()
            scaler.step(optimizer, None)  # as accelerate's wrapper calls it
            scaler.update()
            optimizer.zero_grad()
        return weights, optimizer.state[weights[1]]["step"]

    source = torch.Generator().manual_seed(2)
    steps = [[torch.randn(shape, generator=source) for shape in ((8, 4), (4,))] for _ in range(4)]
    broken = [torch.full((8, 4), torch.inf), torch.ones(4)]
    weights, count = trained([*steps[:2], broken, *steps[2:]], torch.amp.GradScaler("cpu", init_scale=1024.0))
    expected, _ = trained(steps, torch.amp.GradScaler("cpu", enabled=False))
    assert all(torch.equal(one, other) for one, other in zip(weights, expected, strict=True))
    assert count == 4


class Reads(TorchDispatchMode):
    """Counts how often Python asks for the value of a tensor, for which a GPU has to finish its queue."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_a_step_asks_for_no_value():
    weights = parameters((8, 4), (4,))
    optimizer = MuonAdamW(both_groups(weights))
    run(optimizer, weights, 1)
    with Reads() as reads:
        optimizer.step()
    assert reads.count == 0


def test_the_matrices_of_the_blocks_go_to_muon_and_every_parameter_to_one_group(causal_lm):
    muon, adamw = muon_parameter_groups(causal_lm, muon_lr=0.02, adamw_lr=0.001, weight_decay=0.1)
    assert (muon["lr"], muon["muon"], muon["weight_decay"]) == (0.02, True, 0.1)
    assert (adamw["lr"], adamw["muon"], adamw["weight_decay"]) == (0.001, False, 0.0)
    names = {id(parameter): name for name, parameter in causal_lm.named_parameters()}
    chosen = {names[id(parameter)] for parameter in muon["params"]}
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert chosen == {f"transformer.h.{block}.{layer}.weight" for block in (0, 1) for layer in layers}
    assert sorted([*chosen, *(names[id(parameter)] for parameter in adamw["params"])]) == sorted(names.values())


def test_the_matrices_of_a_llamas_blocks_go_to_muon_too():
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=4, intermediate_size=8, num_hidden_layers=2,
                                         num_attention_heads=2, tie_word_embeddings=True))
    muon, _ = muon_parameter_groups(model, muon_lr=0.02, adamw_lr=0.001)
    assert {id(weight) for weight in muon["params"]} == {
        id(weight) for name, weight in model.named_parameters() if "proj" in name}
