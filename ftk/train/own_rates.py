"""Some weights at a learning rate of their own: a share of the run's, so that all follow one schedule."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

RATIO = "learning_rate_ratio"
"""In an optimizer's group: its learning rate over the run's. Groups without it are at the run's."""


def give_own_rates(
    optimizer: torch.optim.Optimizer,
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    own_rate: Callable[[str], float | None],
    *,
    learning_rate: float,
) -> None:
    """Part the groups of a new optimizer by the learning rates of their weights.

    Args:
        optimizer: which has not made a step yet.
        named_parameters: of the model, as the optimizer was built over them.
        own_rate: peak learning rate of a weight by its name; None for the run's.
        learning_rate: the run's peak.
    """
    rates = {id(parameter): own_rate(name) for name, parameter in named_parameters}
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        for rate in dict.fromkeys(rates[id(parameter)] for parameter in group["params"]):
            part = {**group, "params": [one for one in group["params"] if rates[id(one)] == rate]}
            groups.append(part if rate is None else {**part, RATIO: rate / learning_rate})
    optimizer.param_groups[:] = groups


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """The run's learning rate for the next step; groups with one of their own get their share of it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get(RATIO, 1.0)


def own_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> float | None:
    """What weights with a learning rate of their own have where the run's is `learning_rate`; None without such."""
    ratios = [group[RATIO] for group in optimizer.param_groups if RATIO in group]
    return learning_rate * ratios[0] if ratios else None
