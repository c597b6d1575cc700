"""Muon for the weight matrices and AdamW for the rest, as one optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

__all__ = ["POLAR_EXPRESS", "MuonAdamW", "muon_parameter_groups", "orthogonalize"]

# (a, b, c) of x <- a x + b (x x^T) x + c (x x^T)^2 x in each iteration, by the method of Amsel et al. 2025, "The Polar
# Express" (https://arxiv.org/abs/2505.16932): each polynomial is the best of its degree on the interval where the one
# before leaves the singular values. From 0.01 of the matrix's norm upward, three of them bring all values between 0.73
# and 1.27, about as near to 1 as five equal iterations of Jordan et al.
POLAR_EXPRESS = (
    (8.093368512548258, -23.62043032882427, 17.446151749836243),
    (3.6365855542590433, -2.721926746608909, 0.5365462883273615),
    (2.6612999857770987, -1.977154521884625, 0.45261640699640093),
)


def orthogonalize(
    matrix: torch.Tensor, coefficients: Sequence[tuple[float, float, float]] = POLAR_EXPRESS, *, bf16: bool = False
) -> torch.Tensor:
    """Return a matrix with the singular vectors of ``matrix`` and singular values near 1.

    Newton-Schulz iteration with odd quintic polynomials (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon/).

    Args:
        matrix: floats of shape (rows, columns).
        coefficients: (a, b, c) for each iteration.
        bf16: multiply in bfloat16, which is precise enough, and faster where the device has units for it.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x.bfloat16() if bf16 else x
    x = x / (1.01 * x.norm() + 1e-7)  # below 1, also after rounding
    for a, b, c in coefficients:
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


def muon_parameter_groups(
    model: nn.Module, *, muon_lr: float, adamw_lr: float, weight_decay: float = 0.0
) -> list[dict]:
    """Split the parameters of a GPT-2 or a Llama: the matrices inside the blocks go to Muon, all others to AdamW.

    Embeddings and norms are not linear maps between hidden states, so orthogonal updates mean nothing for them.
    """
    matrices = [layer.weight for name, layer in model.named_modules()
                if isinstance(layer, Conv1D | nn.Linear) and (".h." in name or ".layers." in name)]
    if not matrices:
        raise ValueError(f"{type(model).__name__} has no weight matrices in blocks named 'h' or 'layers', so Muon has "
                         "nothing to train: set muon_lr to None.")
    chosen = {id(weight) for weight in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    return [
        {"params": matrices, "lr": muon_lr, "muon": True, "weight_decay": weight_decay},
        {"params": others, "lr": adamw_lr, "muon": False, "weight_decay": 0.0},
    ]


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the groups with ``muon=True``, AdamW for the others.

    Muon replaces each matrix's momentum by the nearest orthogonal matrix, so that the model learns every direction at
    the same pace (Jordan et al. 2024). A step has root mean square ``0.2 * lr``, like a typical step of AdamW,
    whatever the matrix's shape (Liu et al. 2025, https://arxiv.org/abs/2502.16982). One optimizer with two kinds of
    groups works with schedules, checkpoints and ``load_state_dict``, which two optimizers in one wrapper do not.

    Args:
        params: parameter groups, each with ``lr`` and ``muon``; those of Muon hold matrices only. A group may have a
            ``weight_decay``, ``momentum`` (Nesterov's) and ``coefficients`` (see ``orthogonalize``) of its own.
        betas: AdamW's.
        bf16: compute Muon's iterations in bfloat16.
    """

    def __init__(self, params: list[dict], *, betas: tuple[float, float] = (0.9, 0.95), bf16: bool = False) -> None:
        super().__init__(params, {"momentum": 0.9, "coefficients": POLAR_EXPRESS, "betas": betas, "eps": 1e-8,
                                  "weight_decay": 0.0})
        self.bf16 = bf16  # of this device, so it is no part of a checkpoint

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient; ``closure`` is there for the interface only."""
        for group in self.param_groups:
            update = self._muon_step if group["muon"] else self._adamw_step
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(parameter, group)

    def _muon_step(self, parameter: torch.Tensor, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
        nesterov = parameter.grad.lerp(buffer, group["momentum"])
        direction = orthogonalize(nesterov, group["coefficients"], bf16=self.bf16)
        parameter.add_(direction, alpha=-group["lr"] * 0.2 * max(parameter.shape) ** 0.5)

    def _adamw_step(self, parameter: torch.Tensor, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(parameter),
                         exp_avg_sq=torch.zeros_like(parameter))
        state["step"] += 1  # no tensor, which a GPU would have to be asked for
        (first, second), count = group["betas"], state["step"]
        mean = state["exp_avg"].lerp_(parameter.grad, 1 - first)
        square = state["exp_avg_sq"].mul_(second).addcmul_(parameter.grad, parameter.grad, value=1 - second)
        scale = square.div(1 - second**count).sqrt_().add_(group["eps"])
        parameter.addcdiv_(mean, scale, value=-group["lr"] / (1 - first**count))
