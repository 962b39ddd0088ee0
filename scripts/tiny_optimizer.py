"""Muon in float32 for the tiny model's matrices, AdamW for its embedding and norms.

torch.optim.Muon orthogonalises in bfloat16, which a CPU without such arithmetic computes two hundred times slower.
"""

import torch
from torch import Tensor, nn


def orthogonalised(update: Tensor, steps: int = 5) -> Tensor:
    """The matrix with its singular values brought near one by a quintic Newton-Schulz iteration.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the coefficients are theirs.
    """
    wide = update.T if update.shape[0] > update.shape[1] else update
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if update.shape[0] > update.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, for weights of shape [out, in]; decoupled weight decay."""

    def __init__(self, weights: list[nn.Parameter], *, momentum: float = 0.95, weight_decay: float = 0.1) -> None:
        super().__init__(weights, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move each weight by its orthogonalised momentum, scaled so that wide and tall matrices move alike."""
        for group in self.param_groups:
            for weight in group["params"]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonalised(weight.grad.lerp(average, group["momentum"]))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5)


def optimizers_for(model: nn.Module) -> list[tuple[torch.optim.Optimizer, float]]:
    """(optimizer, its learning rate as a multiple of the run's): Muon for matrices, AdamW for the rest."""
    named = list(model.named_parameters())
    matrices = [weight for name, weight in named if weight.ndim == 2 and "embed" not in name]
    rest = [weight for name, weight in named if weight.ndim == 1 or "embed" in name]
    return [(Muon(matrices), 1.0), (torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0), 0.2)]
